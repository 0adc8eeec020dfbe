r"""What went wrong in a run: which samples, when, why, and what to do about it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .solution import Solution

CURES = {
    "nonfinite": "raise t_min, take smaller steps, or check the network",
    "min_step": "loosen rtol and atol, raise t_min, or use a solver with fixed steps",
    "max_steps": "loosen rtol and atol, or use a solver with fixed steps",
    "max_calls": "allow more with max_calls, or take fewer steps",
}
CAUSES = {
    "nonfinite": "the state or the model's output is NaN or infinite",
    "min_step": "no step is small enough to meet the tolerance",
    "max_steps": "the limit on the number of steps is reached",
    "max_calls": "the budget of calls is spent",
}


@dataclass(frozen=True)
class Failure:
    r"""The end of some samples' integration before its time.

    Arguments:
        kind: "nonfinite", "min_step", "max_steps" or "max_calls".
        samples: The rows concerned.
        time: Where it happened, in words.
    """

    kind: str
    samples: tuple[int, ...]
    time: str

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.samples[:8])) + (", ..." if len(self.samples) > 8 else "")
        return f"{CAUSES[self.kind]} at {self.time} for samples [{shown}]; {CURES[self.kind]}."


class SolverError(RuntimeError):
    r"""Raised when a run fails.

    Arguments:
        failure: What happened.
        solution: What there is: rows that failed hold their last finite state.
    """

    def __init__(self, failure: Failure, solution: "Solution | None" = None) -> None:
        super().__init__(str(failure))
        self.failure, self.solution = failure, solution
