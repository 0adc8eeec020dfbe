r"""The catalogue: names and the solvers they mean, as data."""

import difflib

from .backends import torchdiffeq, torchsde
from .exponential import ExponentialMultistep, midpoint
from .problem import SDE, SemiLinear
from .runge_kutta import TABLEAUS, RungeKutta
from .solver import Solver
from .stochastic import EulerMaruyama

NATIVE: tuple[Solver, ...] = (
    *map(RungeKutta, TABLEAUS),
    ExponentialMultistep("ddim", order=1),
    ExponentialMultistep("exponential_2", order=2),
    ExponentialMultistep("exponential_3", order=3),
    ExponentialMultistep("dpmpp_2m", order=2, rule=midpoint),
    ExponentialMultistep("ancestral", order=1, stochastic=True),
    EulerMaruyama(),
)
CATALOGUE: dict[str, Solver] = {
    str(solver): solver for solver in (*NATIVE, *torchdiffeq.METHODS, *torchsde.METHODS)
}
REFUSED: dict[str, str] = {**torchdiffeq.REFUSED, **torchsde.REFUSED}
ALIASES = {"exponential_1": "ddim", "euler_maruyama": "em"}


def available() -> tuple[str, ...]:
    r"""Returns the names of all solvers."""

    return tuple(CATALOGUE)


def get(solver: str | Solver) -> Solver:
    r"""Returns the solver of a name; a solver is returned as it is.

    Raises:
        ValueError: If there is none of this name. Similar names are offered.
        TypeError: If `solver` is neither a name nor a solver.
    """

    if isinstance(solver, Solver):
        return solver
    if not isinstance(solver, str):
        raise TypeError(f"solver must be a name or a Solver, but is a {type(solver).__name__}.")
    name = ALIASES.get(solver, solver)
    if name in REFUSED:
        raise ValueError(f"solver {name!r} cannot serve: {REFUSED[name]}.")
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, CATALOGUE, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "none is similar."
        raise ValueError(
            f"solver {name!r} is unknown; {hint} solvers.available() lists all {len(CATALOGUE)}."
        )
    return CATALOGUE[name]


def describe(solver: Solver) -> dict[str, str | float | bool]:
    r"""Returns what a table says of a solver."""

    kinds = {SDE: "SDE", SemiLinear: "semi-linear"}
    return {
        "name": str(solver),
        "solves": kinds.get(solver.solves, "ODE"),
        "order": solver.order,
        "stochastic": solver.stochastic,
        "adaptive": solver.adaptive,
        "fixed": solver.fixed,
        "calls per step": solver.calls_per_step,
    }
