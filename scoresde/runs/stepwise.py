r"""Runs under the caller's control, which ask for network outputs, or yield their steps, one at a time.

The run is the ordinary one, and waits in a separate thread while its owner works. So this works with any public
function, solver and guidance, results are the same to the last bit, and other runs have no overhead.
"""

import contextvars
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar, cast

from torch import Tensor

from solvers import Event, Solution
from solvers.doors.signatures import checked

from ..models.network import NetworkScore
from ..models.score_model import ScoreModel
from ..processes.process import Process

R = TypeVar("R")


class _Closed(BaseException):
    r"""Ends a run whose owner is gone."""


class _Message(NamedTuple):
    kind: str  # "says", "done" or "failed"
    value: object


class Suspended(Generic[R]):
    r"""A function in a thread that, whenever it sends a value, waits for an answer."""

    def __init__(self, function: Callable[[Callable[[object], object]], R]) -> None:
        said: SimpleQueue[_Message] = SimpleQueue()
        answers: SimpleQueue[object] = SimpleQueue()

        def say(value: object) -> object:
            said.put(_Message("says", value))
            answer = answers.get()
            if answer is _Closed:
                raise _Closed
            return answer

        def work() -> None:
            try:
                said.put(_Message("done", function(say)))
            except _Closed:
                pass
            except BaseException as error:  # it belongs to the owner's thread
                said.put(_Message("failed", error))

        self._said, self._answers, self._waits = said, answers, False
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(work,), daemon=True)
        self._close = weakref.finalize(self, answers.put, _Closed)
        self.result: R | None = None
        self.done = False  # whether there is nothing left to send
        self.ended = False  # and it returned normally, neither failed nor closed

    def send(self, answer: object) -> object:
        r"""Answers the latest value, and returns the next one, or `None` at the end."""

        if self.done:
            return None
        if self._waits:
            self._answers.put(answer)
        else:
            self._thread.start()
        self._waits = True
        message = self._said.get()
        if message.kind == "says":
            return message.value
        self.done = True
        self._close.detach()
        self.ended = message.kind == "done"
        if isinstance(message.value, BaseException) and not self.ended:
            raise message.value
        self.result = cast(R, message.value)
        return None

    def close(self) -> None:
        r"""Ends the function at its current wait."""

        self.done = True
        self._close()


class Question(NamedTuple):
    r"""A network input whose output a run asks for.

    Arguments:
        x: The noisy data, with shape (B, \*).
        t: The time as the network receives it, with shape (B,).
        condition: The conditions by name.
    """

    x: Tensor
    t: Tensor
    condition: dict[str, Tensor]


@checked
class Stepwise(Generic[R]):
    r"""Creates a run that asks for network outputs, one at a time: `question` is the next input of the network.

    Arguments:
        verb: A function of a model that starts the run, as in the example. It may apply guidance to the model.
        process: The process of the network.
        predicts: What the network predicts, as for :class:`scoresde.NetworkScore`.
        conditions: The names of conditions, as for :class:`scoresde.NetworkScore`, like the rest.
        shape: The shape of one sample.
        data_std: The constant of preconditioning of "edm".
        data_scale: The root mean square of the data.
        learned: What the network has learned.

    Attributes:
        question: The next network input, or `None` at the end.
        result: The result of `verb`, at the end.

    Raises:
        ValueError, TypeError, SolverError: If `verb` raises them, at the call of :meth:`tell` that leads there.

    Examples:
        >>> run = ss.Stepwise(lambda model: ss.sample(model, 4, steps=3), ss.EDM(), "data", shape=(2,))
        >>> while run.question is not None:
        ...     question = run.tell(0 * run.question.x)
        >>> run.result
        Solution((4, 2) by dpmpp_2m, 3 intervals, 4 calls per sample)
    """

    def __init__(
        self,
        verb: Callable[[ScoreModel], R],
        process: Process,
        predicts: str,
        *,
        conditions: Sequence[str] = (),
        shape: tuple[int, ...] | None = None,
        data_std: float | None = None,
        data_scale: float | None = None,
        learned: str = "score",
    ) -> None:
        def made(say: Callable[[object], object]) -> R:
            def network(x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
                return cast(Tensor, say(Question(x, t, condition)))

            model = NetworkScore(
                network,
                process,
                predicts,
                conditions=conditions,
                shape=shape,
                data_std=data_std,
                data_scale=data_scale,
                learned=learned,
            )
            model.owned = True
            return verb(model)

        self._run: Suspended[R] = Suspended(made)
        self.question = self._asked(None)

    def tell(self, output: Tensor) -> Question | None:
        r"""Passes the output of the network for the current question, and returns the next question."""

        if self.question is None:
            raise ValueError(
                "this run is done and has no further question; its result is in .result."
            )
        self.question = None  # a run that fails asks no more
        self.question = self._asked(output)
        return self.question

    def _asked(self, answer: Tensor | None) -> Question | None:
        return cast(Question | None, self._run.send(answer))

    @property
    def result(self) -> R:
        r"""The result of `verb`."""

        if not self._run.done:
            raise ValueError(
                "this run is not done; pass the network's output for each .question to .tell()."
            )
        if not self._run.ended:
            raise ValueError("this run failed or was closed before its end, so it has no result.")
        return cast(R, self._run.result)

    def close(self) -> None:
        r"""Ends the run early."""

        self.question = None
        self._run.close()


@checked
class StepByStep(Iterator[Event]):
    r"""Creates an iterator over the steps of a run, which takes a step whenever the next event is requested.

    Arguments:
        verb: A function of a callback that starts the run, as in the example.

    Attributes:
        solution: The solution of `verb`, at the end.

    Examples:
        >>> steps = ss.StepByStep(lambda tell: ss.sample(model, 4, steps=3, callback=tell))
        >>> [round(event.fraction, 2) for event in steps]
        [0.33, 0.67, 1.0]
        >>> steps.solution
        Solution((4, 2) by dpmpp_2m, 3 intervals, 4 calls per sample)
    """

    def __init__(self, verb: Callable[[Callable[[Event], object]], Solution]) -> None:
        self._run: Suspended[Solution] = Suspended(verb)
        self._stopped = False

    def __next__(self) -> Event:
        event = cast(Event | None, self._run.send(self._stopped))
        if event is None:
            raise StopIteration
        return event

    def stop(self) -> None:
        r"""Ends the run after the current step; the solution holds the states reached."""

        self._stopped = True

    @property
    def solution(self) -> Solution:
        r"""The solution of `verb`, once the run has ended."""

        if self._stopped:
            while not self._run.done:
                self._run.send(True)
        if self._run.result is None:
            raise ValueError("this run is not done: iterate to its end, or call stop().")
        return self._run.result
