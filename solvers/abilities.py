r"""The abilities of a solver, as one value that argument checks, loops and tables read."""

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

from .controller import Caution
from .problem import Problem

Instability = Literal["", "as the clock falls", "over long spans", "in stiff clocks"]


@dataclass(frozen=True)
class Abilities:
    r"""Creates the abilities of a solver.

    A solver built on another one states only what differs, as in `replace(inner.can, takes_eta=False)`.

    Arguments:
        solves: The kind of problem it solves: ODE, SDE or SemiLinear.
        order: The order of the global error, :math:`O(h^{order})`; for stochastic methods, the strong order for
            additive noise.
        calls_per_step: The drift evaluations per step; :meth:`solvers.Solver.calls` includes those at the start.
        cap: The highest order that its first or last steps allow on an even grid.
        one_step: Whether each step is independent of the steps before it, so that a run in parts equals a run in
            one piece.
        unstable: Where its own errors grow from step to step, in words; empty if they never do.
        stochastic: Whether it adds noise.
        one_normal: Whether one normal number per entry and step is all the noise it takes.
        gaussian: Whether the state after a step is normal given all states before it, since the step adds one
            normal number per entry after all of its network calls, times a deviation that its plan alone sets.
        takes_eta: Whether the amount of noise is set by the problem.
        own_noise: Whether it adds noise that the equation does not have, so that it follows no path of the
            equation.
        profile: How the noise that it needs depends on the noise level.
        adaptive: Whether it can choose its own steps, given tolerances.
        fixed: Whether it can follow a grid.
        even: Whether it needs steps of equal size.
        open: Whether its last step is the last denoising, so that `steps` counts it, and grids by name leave out
            their last time.
        stepwise: Whether a run can be iterated over, step by step.
        adjoint: Whether it can integrate its adjoint equation.
        form: The form of the linear part that it needs from a semi-linear problem.
        reversible: Whether its runs end with a companion state, from which they can be undone.
        exact: Whether they can be undone to the last bit.
        block: The fixed number of rows that it integrates at once; 0 if the number does not matter.
        limit: What else a non-finite state may mean for this solver, in words.
        severed: Why no gradient flows through its steps, and what to use instead, in words; empty if gradients
            flow.
        caution: How far its error estimate is trusted.
        calls_at_start: The drift evaluations before the first adaptive step.

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
    gaussian: bool = False
    takes_eta: bool = True
    own_noise: bool = False
    profile: str = "constant"
    adaptive: bool = False
    fixed: bool = True
    even: bool = False
    open: bool = False
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
        r"""The order on an even grid, where the first or last steps may keep it below `order`."""

        return min(self.order, self.cap)
