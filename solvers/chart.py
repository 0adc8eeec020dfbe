r"""A change of clock and coordinates, applied to every part of a run."""

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from .control import Event
from .errors import change_solution
from .noise.brownian import Brownian
from .problem import Problem
from .solver import Run, Solution


class Chart(ABC):
    r"""Abstract change of clock and coordinates, :math:`(t, x) \mapsto (v, y)`.

    Times have shape (), (n,), (B,) or (n, B), and states (B, \*).

    Examples:
        >>> from solvers.methods.interaction import Lawson  # the chart without the linear part
        >>> linear = solvers.SemiLinear(lambda t, x: torch.zeros_like(x), solvers.ConstantRate(-1.0))
        >>> t = torch.tensor([0.0, 1.0])
        >>> y = Lawson(linear, "clock", t[0], t[1]).enter(torch.ones(1, 1), t[1])
        >>> round(float(y), 4)  # exp(1)
        2.7183
    """

    @abstractmethod
    def problem(self) -> Problem:
        r"""Returns the problem in the chart."""

    @abstractmethod
    def to_clock(self, time: Tensor) -> Tensor:
        r"""Returns the clock :math:`v(t)` of the chart."""

    @abstractmethod
    def to_time(self, clock: Tensor) -> Tensor:
        r"""Returns the times :math:`t(v)`."""

    @abstractmethod
    def enter(self, x: Tensor, time: Tensor) -> Tensor:
        r"""Returns the coordinates y of states at a time, () or one per row."""

    @abstractmethod
    def leave(self, y: Tensor, time: Tensor) -> Tensor:
        r"""Returns the states of coordinates at a time, () or one per row."""

    def motion(self, outside: Brownian) -> Brownian:
        r"""Returns a Brownian motion as seen in the chart."""

        return outside

    def event(self, event: Event) -> Event:
        r"""Returns an event of the chart in the original times and states."""

        time = self.to_time(event.time)
        return event._replace(time=time, x=self.leave(event.x, time))

    def solution(self, solution: Solution, times: Tensor) -> Solution:
        r"""Returns a solution of the chart in the original times and states; failed rows stopped on the way."""

        path = solution.path
        if path is not None:
            path = torch.stack([self.leave(y, t) for y, t in zip(path, times, strict=True)])
        if solution.ok:
            reached, x = times[-1].expand(len(solution.x)), self.leave(solution.x, times[-1])
        else:
            ok = torch.tensor([status == "ok" for status in solution.status])
            reached = torch.where(ok, times[-1], self.to_time(solution.reached))
            x = self.leave(solution.x, reached)
        return replace(solution, x=x, times=times, reached=reached, path=path)

    def run(self, inside: Run, times: Tensor) -> Run:
        r"""Returns a run in the chart, with its events and solution in the original times and states."""

        try:
            event = next(inside)
            while True:
                try:
                    answer = yield self.event(event)
                except (Exception, KeyboardInterrupt) as error:  # of the callback
                    event = inside.throw(error)
                else:
                    event = inside.send(answer)
        except StopIteration as end:
            return self.solution(end.value, times)
        except (Exception, KeyboardInterrupt) as error:
            change_solution(error, lambda known: self.solution(known, times))
            raise
