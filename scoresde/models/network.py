r"""Networks as score models: their prediction types, and how they are called."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from solvers.doors.signatures import checked
from solvers.kept import kept, like, told
from solvers.network_calls import count_backward, count_call
from solvers.problem import StateField
from solvers.shapes import Scalar, scalars

from ..processes.blocks.process import BlockProcess
from ..processes.process import Process
from .autocast import Asked as Autocast
from .autocast import autocast, hidden_autocast
from .block_forms import READINGS, Reading, check_reading
from .by_sample import changed
from .checks import check_process
from .closures import held_by
from .complaints import Asked, check_answer, explained
from .conditions import Bound, as_bound, check_names, floats_like
from .forms import data_form
from .learned import LEARNED, as_learned
from .manners import Manners
from .predictions import PREDICTIONS, Preconditioning
from .score_model import ScoreModel
from .times import check_time, model_times

SILENT = 1e6  # noise level from which float32 has no digit of the data left


class Kind(NamedTuple):
    r"""The dtypes of the state and of the time that a network receives."""

    state: torch.dtype
    time: torch.dtype


Key = tuple[torch.dtype, torch.dtype | None]  # the dtypes of the state and of a module's weights
HALVES = (torch.bfloat16, torch.float16)
DTYPES = re.compile(r"dtype|(?:scalar|data|same|input|bias) type", re.IGNORECASE)


def _with_times(states: Sequence[torch.dtype]) -> list[Kind]:
    r"""The same with time dtypes, the finer ones first."""

    found = []
    for state in dict.fromkeys(states):
        found += [Kind(state, torch.float32 if state in HALVES else state), Kind(state, state)]
    return list(dict.fromkeys(found))


@dataclass
class Seen:
    r"""What earlier calls of a network have revealed.

    Attributes:
        kinds: The dtypes in which it works, keyed by those of the state and, for a module, of its weights.
        rows: The rows of the last call that succeeded.
        manners: How it treats tensors.
    """

    kinds: dict[Key, Kind] = field(default_factory=dict, compare=False)
    rows: int | None = field(default=None, compare=False)
    manners: Manners = field(default_factory=Manners, compare=False)


def _check_signal(process: Process, predicts: str) -> None:
    r"""Refuses prediction types that do not determine the data where no signal is left."""

    if predicts in ("noise", "score") and process.has_levels:
        level = process.noise_level(process.t_max)
        if level > SILENT:
            raise ValueError(
                f"predicts={predicts!r} does not determine the data at t_max={process.t_max:.9g}, where "
                f"no signal is left (sigma/alpha = {level:.2g}); choose an earlier t_max, or use a "
                "network of 'v', 'velocity' or 'data'."
            )


@checked
class NetworkScore(ScoreModel):
    r"""Creates a score model from a network.

    `predicts` has no default, since nothing in a network shows what it predicts:

    - "data": the clean data :math:`\mathbb{E}[x_0 \mid x_t]`.
    - "noise": :math:`\mathbb{E}[z \mid x_t]`, with :math:`x_t = \alpha x_0 + \sigma z`.
    - "score": :math:`\nabla \log p_t(x_t)`.
    - "v": :math:`\mathbb{E}[\alpha z - \sigma x_0 \mid x_t]`.
    - "velocity": dx/dt of the probability flow, with t towards noise.
    - "edm": F in :math:`D = c_{skip} x + c_{out} F(c_{in} x, \log (\sigma / \alpha) / 4)`.

    References:
        | Progressive Distillation (Salimans and Ho, 2022), section 4, for "v"
        | https://arxiv.org/abs/2202.00512
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        | equation (7), for "edm"
        | https://arxiv.org/abs/2206.00364

    Arguments:
        network: The network, called as `network(x, t, **condition)` with shapes (B, *) and (B,). A module is
            called in the dtype of its weights, a function in the dtype of the state; if that fails, the first
            dtype that works is used. Times are at least in float32. The network may write into its arguments. For
            the unconditional prediction of classifier-free guidance, it is called without the conditions. For a
            process with velocities, it gets whole states and returns a tensor like data, or like states, of which
            the last parts count.
        process: The process whose noise it removes.
        predicts: The prediction type.
        conditions: The names of its conditions.
        shape: The shape of one sample, if known.
        data_std: The preconditioning constant :math:`\sigma_{data}` of "edm", by default 0.5.
        data_scale: The root mean square of the data, if `model.moments` does not give it and `data_std`
            differs from it.
        learned: What its estimates are: "score", "flow", "bridge" or "consistency".

    Examples:
        >>> silent = ss.NetworkScore(lambda x, t: 0 * x, ss.EDM(), "noise", shape=(2,))
        >>> silent.denoise(torch.ones(1, 2), torch.tensor([3.0]))
        tensor([[1., 1.]])
    """

    def __init__(
        self,
        network: nn.Module | Callable[..., Tensor],
        process: Process,
        predicts: str = "",
        *,
        conditions: Sequence[str] = (),
        shape: tuple[int, ...] | None = None,
        data_std: float | None = None,
        data_scale: float | None = None,
        learned: str = "score",
    ) -> None:
        super().__init__()
        if predicts not in PREDICTIONS:
            said = f"is {predicts!r}" if predicts else "is missing"
            choices = ", ".join(map(repr, PREDICTIONS))
            raise ValueError(f"predicts {said}; name what the network returns: {choices}.")
        if not callable(network):
            raise TypeError(f"network must be a module or a function, but is {network!r}.")
        check_process(process)
        self.network, self.process, self.predicts = network, process, predicts
        self.conditions, self.shape = check_names(conditions), shape
        self.data_scale, self.learned = data_scale, as_learned(learned)
        if learned != "score" and not process.has_scales:
            raise ValueError(
                f"learned={learned!r}, {LEARNED[learned]}, needs a process with x = alpha x0 + sigma z, which "
                f"{process} is not."
            )
        if data_std is not None or predicts == "edm":
            self.data_std = self.data_std if data_std is None else data_std
        _check_signal(process, predicts)
        if isinstance(process, BlockProcess):
            check_reading(process, predicts)
        self._seen = Seen()

    def __repr__(self) -> str:
        network = type(self.network).__name__
        learned = "" if self.learned == "score" else f", learned={self.learned!r}"
        return f"{type(self).__name__}({network}, {self.process}, predicts={self.predicts!r}{learned})"

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        if not self.process.has_levels:
            self.process.log_scales(check_time(self.process, t, x))  # raises: no clean data
        if isinstance(self.process, BlockProcess):
            process = self.process
            known, F = self._read(process, x, check_time(process, t, x), condition)
            return process.times(known.skip, x) + process.times(known.out, F)
        return self.in_form(data_form, x, t, condition)

    def _read(
        self, process: BlockProcess, u: Tensor, t: Tensor, condition: Mapping[str, Bound]
    ) -> tuple[Reading, Tensor]:
        r"""The denoised data in terms of the network, and its output, for states of a process on blocks."""

        known = READINGS[self.predicts](process, t, self.data_std)
        like = u.new_empty((len(u), 0), dtype=self._kind(u)[1].time)
        if known.label is None:
            [times] = model_times(process, t[None], like)
        else:
            times = known.label.to(like).expand(len(u))
        scaled = u if known.scale is None else process.times(known.scale, u)
        with autocast(hidden_autocast()):
            return known, self._call(scaled, times, condition)

    def score(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        if self.predicts != "score" or self._answer_shape(x) != x.shape:
            return super().score(x, t, **condition)
        return self.raw(x, t, **condition)  # as the network returns it, so that it needs no scales

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        r"""Returns the children; those of a function are the modules that it refers to."""

        yield from super().named_children()
        yield from self._within()

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        r"""Returns all submodules, so that weights, device and training mode of a function's modules are known."""

        memo = set() if memo is None else memo
        yield from super().named_modules(memo, prefix, remove_duplicate)
        for name, module in self._within():
            yield from module.named_modules(
                memo, f"{prefix}.{name}" if prefix else name, remove_duplicate
            )

    def _within(self) -> Iterator[tuple[str, nn.Module]]:
        if isinstance(self.network, nn.Module):
            return
        for number, thing in enumerate(held_by(self.network)):
            if isinstance(thing, ScoreModel):  # which sets its own mode, not its networks'
                parts = [part for part in thing.children() if not isinstance(part, ScoreModel)]
            else:
                parts = [thing] if isinstance(thing, nn.Module) else []
            for part in parts:
                yield f"function.{number}", part

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> list[StateField]:
        if not self.process.has_scales:
            return list(super().combine(times, a, b, scale, x, **condition))
        make = partial(self._columns, times, a, b, scale, x)
        known = (self.process.key, self.predicts, self.data_std, told(times, a, b, scale))
        columns = kept(make, *known, len(x), like(x), self._kind(x)[1].time)
        asked = hidden_autocast()
        return [self._bind(*column, condition, asked) for column in zip(*columns, strict=True)]

    def _columns(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor
    ) -> tuple[list[Tensor], list[Scalar], list[Scalar], list[Scalar]]:
        r"""What the network receives and what its output is multiplied by, at each time."""

        form = PREDICTIONS[self.predicts](self.process, times, self.data_std)
        return (
            self._labels(times, form, x),
            scalars((a + b * form.skip) * scale, x),
            scalars(b * form.out, x),
            scalars(form.scale * scale, x),
        )

    def raw(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        if isinstance(self.process, BlockProcess):
            return self._read(self.process, x, check_time(self.process, t, x), condition)[1]
        times, form = check_time(self.process, t, x)[None], None
        scale: Scalar = 1.0
        if self.predicts == "edm":
            form = PREDICTIONS[self.predicts](self.process, times, self.data_std)
            [scale] = scalars(form.scale, x)
        with autocast(hidden_autocast()):
            return self._call(scale * x, self._labels(times, form, x)[0], condition)

    def _labels(self, times: Tensor, form: Preconditioning | None, x: Tensor) -> list[Tensor]:
        r"""The times as the network receives them, each with shape (B,)."""

        _, kind = self._kind(x)
        like = x.new_empty((len(x), 0), dtype=kind.time)
        if form is None or form.label is None:
            return model_times(self.process, times, like)
        return list(form.label.to(like).reshape(len(times), -1).expand(-1, len(x)))

    def _bind(
        self,
        t: Tensor,
        a: Scalar,
        b: Scalar,
        scale: Scalar,
        condition: Mapping[str, Bound],
        asked: Autocast,
    ) -> StateField:
        def combined(X: Tensor) -> Tensor:
            x = X if isinstance(scale, float) and scale == 1 else scale * X
            if asked:
                with autocast(asked):
                    F = self._call(x, t, condition)
            else:
                F = self._call(x, t, condition)
            if not isinstance(b, float) or not isinstance(a, float):
                return a * X + b * F
            F = F if b == 1 else b * F
            return F if a == 0 else torch.add(F, X, alpha=a)

        return combined

    def _call(self, x: Tensor, t: Tensor, condition: Mapping[str, Bound]) -> Tensor:
        if condition:
            condition = {name: as_bound(name, value) for name, value in condition.items()}
        count_call()
        key, kind = self._kind(x)
        try:
            F = self._ask(kind, x, t, condition)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            F, kind = self._ask_again(error, kind, x, t, condition)
        if isinstance(F, Tensor):
            count_backward(F)
        shape = self._answer_shape(x)
        if isinstance(F, Tensor) and F.shape == x.shape != shape:
            F = F[:, -shape[1] :]  # its last parts
        check_answer(F, shape)
        self._seen.kinds[key], self._seen.rows = kind, len(x)
        return F.to(x.dtype)

    def _answer_shape(self, x: Tensor) -> tuple[int, ...]:
        r"""The shape of what the network returns: that of data, which states may exceed."""

        process = self.process
        return process.data_shape(x.shape) if isinstance(process, BlockProcess) else x.shape

    def _ask(self, kind: Kind, x: Tensor, t: Tensor, condition: Mapping[str, Bound]) -> Tensor:
        r"""Calls the network in the given dtypes."""

        if t.dtype != kind.time and self.predicts != "edm":
            t = model_times(self.process, t[None], x.new_empty((len(x), 0), dtype=kind.time))[0]
        if condition:
            condition = floats_like(condition, x.new_empty((len(x), 0), dtype=kind.state))
            condition = {name: changed(v, Tensor.clone) for name, v in condition.items()}
        time = t.to(kind.time, copy=True)
        return self._seen.manners.call(self.network, x, kind.state, time, condition)

    def _ask_again(
        self, error: Exception, kind: Kind, x: Tensor, t: Tensor, condition: Mapping[str, Bound]
    ) -> tuple[Tensor, Kind]:
        r"""Calls the network in the other dtypes that it may be meant for, or raises an explained error."""

        plain = {name: value for name, value in condition.items() if isinstance(value, Tensor)}
        asked = Asked(self.network, self.conditions, x, plain, self._seen.rows)
        clear = explained(error, asked)
        if clear is not None:
            raise clear from error
        if DTYPES.search(str(error)) or self._key(x) not in self._seen.kinds:
            for other in [one for one in self._kinds(x) if one != kind]:
                try:
                    return self._ask(other, x, t, condition), other
                except Exception:  # the first error is the most informative
                    continue
        raise error

    def _kind(self, x: Tensor) -> tuple[Key, Kind]:
        r"""What a kind is known by, and the kind in which the network is called with a state."""

        key = self._key(x)
        known = self._seen.kinds.get(key)
        return key, self._kinds(x)[0] if known is None else known

    def _key(self, x: Tensor) -> Key:
        r"""The dtypes of the state and of a module's weights."""

        if not isinstance(self.network, nn.Module):
            return x.dtype, None
        weights = self.network.parameters()
        return x.dtype, next((p.dtype for p in weights if p.is_floating_point()), None)

    def _kinds(self, x: Tensor) -> list[Kind]:
        r"""The dtypes that the network may be meant for, the likeliest first.

        A module is called in the dtype of its weights, a function in that of the state. Times are at least in
        float32, which resolves all labels.
        """

        _, own = self._key(x)
        if own is not None:
            return _with_times([own])
        weights = [p.dtype for p in self.parameters() if p.is_floating_point()]
        return _with_times([x.dtype, *weights, torch.float32, *HALVES])
