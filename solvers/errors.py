r"""Failures of a run: which samples failed, when, why, and what to do about it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from .solver import Solution

CURES = {
    "nonfinite": "raise t_min, take smaller steps, or check the network",
    "min_step": "loosen rtol and atol, raise t_min, or use a solver with fixed steps",
    "max_steps": "loosen rtol and atol, or use a solver with fixed steps",
    "max_calls": "allow more with max_calls, or take fewer steps",
    "diverged": "take smaller steps, another solver or less guidance, or check what the network predicts",
}
CAUSES = {
    "nonfinite": "the state or the model's output is NaN or infinite",
    "min_step": "no step is small enough to meet the tolerance",
    "max_steps": "the limit on the number of steps is reached",
    "max_calls": "the budget of calls is spent",
    "diverged": "the state is more than 10,000 times as large as data and noise can make it",
}


@dataclass(frozen=True)
class Failure:
    r"""The premature end of the integration of some samples.

    Arguments:
        kind: "nonfinite", "min_step", "max_steps", "max_calls" or "diverged".
        samples: The rows concerned.
        time: The time at which it happened, in words.
        cause: The cause, if more is known than the kind says.
        cure: The cure, if more is known than the kind says.

    Examples:
        >>> failure = solvers.Failure("max_calls", (3,), "t=0.5")
        >>> str(failure).split(";")[0]
        'the budget of calls is spent at t=0.5 for samples [3]'
    """

    kind: str
    samples: tuple[int, ...]
    time: str
    cause: str = ""
    cure: str = ""

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.samples[:8])) + (", ..." if len(self.samples) > 8 else "")
        cause, cure = self.cause or CAUSES[self.kind], self.cure or CURES[self.kind]
        return f"{cause} at {self.time} for samples [{shown}]; {cure}."


class SolverError(RuntimeError):
    r"""Is raised when a run fails.

    Arguments:
        failure: The failure.
        solution: The solution so far, if there is one; rows that failed hold their last finite state.
    """

    def __init__(self, failure: Failure, solution: Solution | None = None) -> None:
        super().__init__(str(failure))
        self.failure, self.solution = failure, solution


def give_solution(error: BaseException, make: Callable[[], Solution]) -> None:
    r"""Gives an error the solution so far, if it carries none."""

    if vars(error).get("solution") is None:
        with suppress(Exception):  # of a device that has failed, which would hide this error
            vars(error)["solution"] = make()


def change_solution(error: BaseException, change: Callable[[Solution], Solution]) -> None:
    r"""Changes the solution that an error carries, if it does."""

    known = vars(error).pop("solution", None)
    if isinstance(known, Solution):
        give_solution(error, lambda: change(known))
    elif isinstance(error, SolverError):
        error.solution = None
