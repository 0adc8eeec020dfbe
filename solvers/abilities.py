r"""What a solver can do, as one value that doors, loops and tables read."""

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

from .controller import Caution
from .problem import Problem

Instability = Literal["", "as the clock falls", "over long spans", "in stiff clocks"]


@dataclass(frozen=True)
class Abilities:
    r"""Creates what a solver can do.

    A solver that is made of another states what differs, as in `replace(inner.can, takes_eta=False)`.

    Arguments:
        solves: The kind of problem it takes: ODE, SDE or SemiLinear.
        order: The global error is :math:`O(h^{order})`; for stochastic methods, the strong one
            for additive noise.
        calls_per_step: The evaluations of the drift in a step; :meth:`solvers.Solver.calls` knows of the start.
        cap: The highest order that its first or last steps leave it on an even grid.
        one_step: Whether a step does not depend on those before it, so that a run in parts equals a run in
            one piece.
        unstable: Where its own errors grow from step to step, in words; empty if they do not.
        stochastic: Whether it adds noise.
        one_normal: Whether one normal number per entry and step is all the noise it takes.
        takes_eta: Whether the amount of noise is that of the problem.
        own_noise: Whether it adds noise where the equation has none, and so follows no path of it.
        profile: How the noise that it needs depends on the noise level.
        adaptive: Whether it can choose its own steps, given tolerances.
        fixed: Whether it can follow a grid.
        even: Whether it needs steps of equal size.
        stepwise: Whether a run can be iterated over, step by step.
        adjoint: Whether it can integrate its adjoint equation.
        form: The linear part that it needs of a semi-linear problem.
        reversible: Whether its runs end with a companion, from which they can be undone.
        exact: Whether that holds to the last bit.
        block: How many rows it integrates at once, always as many; 0 if that does not matter.
        limit: What a state that is no longer finite may mean beside the usual, in words.
        severed: Why no gradient flows through its steps, and what to use, in words; empty if it does.
        caution: How far its estimate of the error is trusted.
        calls_at_start: The evaluations of the drift before the first step under tolerances.

    Examples:
        >>> can = solvers.get("heun").can
        >>> can.order, can.calls_per_step, can.stochastic
        (2, 2, False)
    """

    solves: type[Problem]
    _: KW_ONLY
    order: float
    calls_per_step: int
    cap: float = math.inf
    one_step: bool = True
    unstable: Instability = ""
    stochastic: bool = False
    one_normal: bool = True
    takes_eta: bool = True
    own_noise: bool = False
    profile: str = "constant"
    adaptive: bool = False
    fixed: bool = True
    even: bool = False
    stepwise: bool = True
    adjoint: bool = False
    form: str = "data"
    reversible: bool = False
    exact: bool = False
    block: int = 0
    limit: str = ""
    severed: str = ""
    caution: Caution = field(default_factory=Caution)
    calls_at_start: int = 2

    @property
    def cold_order(self) -> float:
        r"""The order on an even grid, whose first or last steps may keep it below `order`."""

        return min(self.order, self.cap)
