r"""Runs whose network somebody else calls, at states that they may have changed: loops of other libraries."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..models.network import NetworkScore
from ..models.score_model import ScoreModel
from ..runs.between import telling
from ..runs.stepwise import Question, Suspended
from .schedulers import Meaning

CLOSE = 1e-3  # of a time label: what two may differ by, since pipelines round them
Verb = Callable[[ScoreModel, Tensor], Tensor]


class State(NamedTuple):
    r"""The state between two steps.

    Arguments:
        x: The state, with shape (B, \*).
        t: Its time, with shape ().
    """

    x: Tensor
    t: Tensor


class Call(NamedTuple):
    r"""A network call that a run makes.

    Arguments:
        t: Its time.
        first: Whether it is the first of a step or the last denoising, at a state that may be changed before.
    """

    t: float
    first: bool


def started(verb: Verb, meaning: Meaning, x: Tensor) -> Suspended[Tensor]:
    r"""Returns a run that says each :class:`Question` of the network and each :class:`State` between its steps.

    Arguments:
        verb: A function of model and start that makes the run, and returns its end.
        meaning: What the output of the network means.
        x: The start.
    """

    def made(say: Callable[[Any], Any]) -> Tensor:
        def network(x: Tensor, t: Tensor) -> Any:
            return say(Question(x, t, {}))

        model = NetworkScore(network, meaning.process, meaning.predicts)
        model.owned = True
        with (
            torch.no_grad(),
            telling(model, lambda x, t: say(State(x, t))),
        ):  # which are the thread's own
            return verb(model, x)

    return Suspended(made)


def calls_of(verb: Verb, meaning: Meaning, shape: Sequence[int]) -> list[Call]:
    r"""Returns the network calls of a run, found by making it with a network of little weight.

    Arguments:
        verb: A function of model and start that makes the run.
        meaning: What the output of the network means.
        shape: The shape of one sample.

    Raises:
        ValueError: If the first call is not at the state that the run starts from.
    """

    x = torch.full((1, *shape), 0.5, dtype=torch.float64)
    run, state = started(verb, meaning, x), State(x, torch.tensor(math.nan))
    calls: list[Call] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run itself warns
        said: Any = run.send(None)
        while said is not None:
            if isinstance(said, State):
                state, said = said, run.send(None)
                continue
            t = float(said.t.flatten()[0])
            same = math.isnan(float(state.t)) or math.isclose(t, float(state.t), rel_tol=1e-6)
            first = same and torch.allclose(said.x, state.x, rtol=1e-9)  # up to changes of units
            if not calls and not (first and torch.allclose(said.x, x, rtol=1e-9)):
                raise ValueError(
                    "the solver changes the state before its first network call, so that nobody who calls the "
                    "network first can drive it; use a solver that calls it at the start of a step and draws "
                    "noise after the call, such as 'dpmpp_2m' or 'ancestral'."
                )
            calls.append(Call(t, first))
            state = State(x.new_full(x.shape, math.nan), state.t)
            said = run.send(0.25 * said.x + 0.125)
    return calls


class Drive:
    r"""Creates a run that takes the outputs of a network one by one.

    Arguments:
        verb: A function of model and start that makes the run.
        meaning: What the output of the network means.
        calls: Its network calls.
        x: The start. Later states come in its dtype; inside, they have float32 at least.

    Attributes:
        left: The network calls that are still to come.
    """

    def __init__(self, verb: Verb, meaning: Meaning, calls: Sequence[Call], x: Tensor) -> None:
        start = x if x.dtype == torch.float64 else x.float()
        self._run, self.left = started(verb, meaning, start), list(calls)
        self._shown, self._dtype = x, x.dtype
        self._said: Any = self._run.send(None)

    @property
    def state(self) -> Tensor:
        r"""The state at which the network is to be called next, or the end, in the dtype of the run."""

        found = self._run.result if self._said is None else self._said.x
        assert found is not None
        return found

    def tell(self, output: Tensor, x: Tensor) -> Tensor:
        r"""Passes the output of the network, and returns the state at which to call it next, or the end.

        Arguments:
            output: The output.
            x: The state at which it was called.

        Raises:
            ValueError: If it is another state than was returned, within a step of several calls.
        """

        call, changed = self.left[0], self._is_changed(x)
        if changed and not call.first:
            raise ValueError(
                f"the state at t={call.t:.6g} was changed within a step of several network calls, which belong to "
                "one state; change it between steps only, or use a solver with one call per step, such as "
                "'dpmpp_2m'."
            )
        if isinstance(self._said, State):
            self._said = self._run.send(x.to(self.state) if changed else None)
        elif changed:
            raise ValueError(
                "the state at the start of a run cannot be another than it began with."
            )
        said = self._run.send(output.to(self._said.x))
        self.left = self.left[1:]
        self._said = self._paused(said)
        self._shown = self.state.to(self._dtype)
        return self._shown

    def close(self) -> None:
        r"""Ends the run before its time."""

        self._run.close()

    def _is_changed(self, x: Tensor) -> bool:
        return x is not self._shown and not torch.equal(x, self._shown)

    def _paused(self, said: Any) -> Any:
        r"""What the run waits for: a state that may be changed, or an output."""

        if (said is None) != (not self.left):
            raise ValueError(
                "the run did not make the network calls that were expected of it: an output of the network was "
                "not finite, or the solver makes other calls each time."
            )
        if isinstance(said, State) and not self.left[0].first:
            return self._run.send(None)
        return said
