r"""A run that you iterate over, one accepted step at a time."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from ..control import Event
from ..errors import SolverError
from ..network_calls import Counter, counting
from ..solver import Run, Solution, Solver


class Steps(Iterator[Event]):
    r"""Creates the steps of a run, which are taken one at a time as you iterate over them.

    Between steps, neither the run's gradient mode nor its call counter is active. `yield from` returns the
    solution.

    Arguments:
        solver: The solver.
        run: The run.
        counter: The counter of its network calls.
        grad: Whether the run keeps gradients.

    Attributes:
        solution: The solution once there are no more steps, `None` before.

    Examples:
        >>> decay, times = solvers.ODE(lambda t, x: -x), torch.tensor([0.0, 0.5, 1.0])
        >>> steps = solvers.steps(decay, torch.ones(1, 1), times, "euler")
        >>> [float(event.x) for event in steps], float(steps.solution.x)
        ([0.5, 0.25], 0.25)
    """

    def __init__(self, solver: Solver, run: Run, counter: Counter, grad: bool = False) -> None:
        self.solution: Solution | None = None
        self._solver, self._run, self._counter, self._grad = solver, run, counter, grad
        self._begun = False
        self._answer: object = None  # the answer to the latest event

    def __next__(self) -> Event:
        with torch.set_grad_enabled(self._grad), counting(self._counter):
            event = self._send()
        if event is None:
            raise StopIteration(self.solution)
        return event

    def stop(self) -> Solution:
        r"""Ends the run where it is, and returns its solution, in which the running samples are "stopped".

        A run that has not begun takes its first step before it ends.
        """

        self._answer = True
        return self.finish()

    def finish(self, callback: Callable[[Event], object] | None = None) -> Solution:
        r"""Takes all remaining steps, and returns the solution.

        Arguments:
            callback: A function that is called with each event and ends the run by returning `True`.
        """

        with torch.set_grad_enabled(self._grad), counting(self._counter):
            while (event := self._send()) is not None:
                if callback is None:
                    continue
                try:
                    self._answer = callback(event)
                except (Exception, KeyboardInterrupt) as error:
                    self._run.throw(error)  # which returns it with the solution so far
                del event  # so that the memory of its state serves the next steps
        assert self.solution is not None
        return self.solution

    def _send(self) -> Event | None:
        r"""The next event, or `None` at the end."""

        if self.solution is not None:
            return None
        answer, self._begun = self._answer if self._begun else None, True
        try:
            return self._run.send(answer)
        except StopIteration as end:
            self.solution = replace(end.value, solver=self._solver)
        except SolverError as error:
            self.solution = error.solution
            raise
        return None
