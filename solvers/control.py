r"""The options of a run besides its problem and grid, and the events of its steps."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import Tensor

from .controller import Controller
from .network_calls import Counter
from .noise.brownian import Brownian

Memory: TypeAlias = dict[str, Any]  # tensors, numbers and text, in nested tuples and mappings


class Event(NamedTuple):
    r"""The report of an accepted step.

    Arguments:
        fraction: The fraction of the span that is done, averaged over the samples, in [0, 1].
        time: The times reached, with shape () or one per row.
        x: The states there.
        rows: The rows they belong to, which are those still running, or `None` for all rows.
        calls: The network calls so far for each of these rows.
        denoised: The solver's latest estimate of the clean data, if it has one.

    Examples:
        >>> decay, times = solvers.ODE(lambda t, x: -x), torch.tensor([0.0, 1.0, 2.0])
        >>> [event.fraction for event in solvers.steps(decay, torch.ones(1, 1), times, "euler")]
        [0.5, 1.0]
    """

    fraction: float
    time: Tensor
    x: Tensor
    rows: Tensor | None = None
    calls: Tensor | None = None
    denoised: Tensor | None = None


@dataclass(frozen=True)
class Control:
    r"""The options of a run, besides its problem and grid.

    Arguments:
        controller: The controller that chooses the steps. By default, the steps are those of the grid.
        noise: The Brownian motion of a stochastic method.
        path: Whether to keep the states at all grid times.
        callback: A function that is called with the :class:`Event` of each accepted step and ends the run by
            returning a true value. Without a callback, loops yield no events.
        pause: The minimum time between two calls of `callback`, in seconds; the last step is always reported.
        max_calls: The maximum number of network calls per sample.
        on_failure: "raise", or "partial" to end only the samples concerned.
        grad: How gradients are computed, if at all: "none", "backprop", "checkpoint" or "adjoint".
        parameters: The tensors for which the adjoint gives gradients, besides the initial state.
        companion: The companion state at the end of the reversible run that is to be undone.
        seam: A function of the number of completed steps and the state, applied to the state between two grid
            steps.
        memory: The memory of a run that ended early, which then goes on from where it was.
        counter: The counter of the network calls of the run.

    Examples:
        >>> control = solvers.Control(max_calls=10)
        >>> control.on_failure
        'raise'
    """

    controller: Controller | None = None
    noise: Brownian | None = None
    path: bool = False
    callback: Callable[[Event], object] | None = None
    pause: float = 0.0
    max_calls: int | None = None
    on_failure: Literal["raise", "partial"] = "raise"
    grad: str = "none"
    parameters: tuple[Tensor, ...] = ()
    companion: Tensor | None = None
    seam: Callable[[int, Tensor], Tensor] | None = None
    memory: Memory | None = None
    counter: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.max_calls is not None and self.max_calls < 1:
            raise ValueError(f"max_calls must be at least 1, but is {self.max_calls}.")
        if self.on_failure not in ("raise", "partial"):
            raise ValueError(
                f"on_failure must be 'raise' or 'partial', but is {self.on_failure!r}."
            )
