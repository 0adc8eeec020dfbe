r"""The options of a run beside its problem and grid, and the events of its steps."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

from .controller import Controller
from .network_calls import Counter
from .noise.brownian import Brownian


class Event(NamedTuple):
    r"""The report of an accepted step.

    Arguments:
        fraction: The share of the span that is done, averaged over the samples, in [0, 1].
        time: The times reached, with shape () or one per row.
        x: The states there.
        rows: The rows they belong to, those still under way, or `None` for all.
        calls: The network calls so far, of each of these rows.
        denoised: The last estimate of the clean data that the solver saw, where there is one.

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
    r"""The options of a run, beside its problem and grid.

    Arguments:
        controller: The controller that chooses the steps. By default, they are those of the grid.
        noise: The Brownian motion of a stochastic method.
        path: Whether to keep the states at all times of the grid.
        callback: A function that is called with the :class:`Event` of each accepted step, and ends the run
            if it returns a true value. Without one, loops yield no events.
        pause: The least number of seconds between two calls of it, but for the last step.
        max_calls: The largest number of network calls of a sample.
        on_failure: Whether a failure raises, or ends the samples concerned.
        grad: How gradients are to be found, if at all: "backprop", "checkpoint" or "adjoint".
        parameters: The tensors for which an adjoint gives gradients, beside the start.
        companion: The companion at the end of the run of a reversible method that is to be undone.
        seam: A function of the number of steps done and the state, applied between two steps on a grid.
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
    counter: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.max_calls is not None and self.max_calls < 1:
            raise ValueError(f"max_calls must be at least 1, but is {self.max_calls}.")
        if self.on_failure not in ("raise", "partial"):
            raise ValueError(
                f"on_failure must be 'raise' or 'partial', but is {self.on_failure!r}."
            )
