r"""Networks as score models: what a network predicts, and how it is called."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from solvers.calls import count_backward, count_call
from solvers.problem import StateField
from solvers.shapes import Scalar, scalars

from .conditions import check_names, floats_like
from .models import ScoreModel, check_time, model_times
from .process import Process, check_process

SILENT = 1e6  # noise level from which on float32 has no digit of the data left


class Preconditioning(NamedTuple):
    r"""How the denoised data follows from a network: :math:`D = skip \, x + out \, F(scale \, x)`.

    Arguments:
        skip: The coefficient of the noisy data.
        out: The coefficient of the network.
        scale: What the noisy data is multiplied with before the network sees it.
        label: What the network gets as its time, or `None` for t itself.
    """

    skip: Tensor
    out: Tensor
    scale: Tensor
    label: Tensor | None = None


def _data(process: Process, t: Tensor, data_std: float) -> Preconditioning:
    return Preconditioning(torch.zeros_like(t), torch.ones_like(t), torch.ones_like(t))


def _noise(process: Process, t: Tensor, data_std: float) -> Preconditioning:
    alpha, sigma = process.scales(t)
    return Preconditioning(1 / alpha, -sigma / alpha, torch.ones_like(t))


def _score(process: Process, t: Tensor, data_std: float) -> Preconditioning:
    alpha, sigma = process.scales(t)
    return Preconditioning(1 / alpha, sigma**2 / alpha, torch.ones_like(t))


def _v(process: Process, t: Tensor, data_std: float) -> Preconditioning:
    alpha, sigma = process.scales(t)  # v = alpha z - sigma x0
    total = alpha**2 + sigma**2
    return Preconditioning(alpha / total, -sigma / total, torch.ones_like(t))


def _velocity(process: Process, t: Tensor, data_std: float) -> Preconditioning:
    f, slope = process.rates(t)  # u = (f - slope) x + slope alpha D
    alpha, _ = process.scales(t)
    return Preconditioning((slope - f) / (slope * alpha), 1 / (slope * alpha), torch.ones_like(t))


def _edm(process: Process, t: Tensor, data_std: float) -> Preconditioning:
    alpha, sigma = process.scales(t)
    level = sigma / alpha
    total = level**2 + data_std**2
    return Preconditioning(
        skip=data_std**2 / total / alpha,
        out=level * data_std / total.sqrt(),
        scale=1 / total.sqrt() / alpha,
        label=level.log() / 4,
    )


PREDICTIONS: dict[str, Callable[[Process, Tensor, float], Preconditioning]] = {
    "data": _data,
    "noise": _noise,
    "score": _score,
    "v": _v,
    "velocity": _velocity,
    "edm": _edm,
}


def _check_signal(process: Process, predicts: str) -> None:
    r"""Refuses predictions from which data does not follow where no signal is left."""

    if predicts in ("noise", "score") and process.has_scales:
        level = process.noise_level(process.t_max)
        if level > SILENT:
            raise ValueError(
                f"predicts={predicts!r} tells nothing of the data at t_max={process.t_max:.9g}, where no "
                f"signal is left (sigma/alpha = {level:.2g}); choose an earlier t_max, or use a network "
                "of 'v', 'velocity' or 'data'."
            )


class NetworkScore(ScoreModel):
    r"""Creates the score model of a network.

    What the network predicts has no default, since nothing in it tells:

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
        network: The network, called as `network(x, t, **condition)` with shapes (B, *) and (B,),
            in its own dtype.
        process: The process whose noise it removes.
        predicts: What it predicts.
        conditions: The names of the conditions it takes.
        shape: The shape of one sample, if known.
        data_std: The constant of preconditioning :math:`\sigma_{data}` of "edm", 0.5 unless said.
        data_scale: The root mean square of the data, where `model.moments` does not tell it and `data_std` is
            another.
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
    ) -> None:
        super().__init__()
        if predicts not in PREDICTIONS:
            said = f"is {predicts!r}" if predicts else "is missing"
            choices = ", ".join(map(repr, PREDICTIONS))
            raise ValueError(f"predicts {said}; say what the network returns: {choices}.")
        if not callable(network):
            raise TypeError(f"network must be a module or a function, but is {network!r}.")
        check_process(process)
        self.network, self.process, self.predicts = network, process, predicts
        self.conditions, self.shape = check_names(conditions), shape
        self.data_scale = data_scale
        if data_std is not None or predicts == "edm":
            self.data_std = self.data_std if data_std is None else data_std
        _check_signal(process, predicts)

    def __repr__(self) -> str:
        network = type(self.network).__name__
        return f"{type(self).__name__}({network}, {self.process}, predicts={self.predicts!r})"

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        t = check_time(self.process, t, x)
        self.process.scales(t)  # refused by processes that have no clean data
        return self._at(t, torch.zeros_like(t), torch.ones_like(t), x, condition)

    def score(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        if self.predicts != "score":
            return super().score(x, t, **condition)
        t = check_time(self.process, t, x)  # as it comes, so that it needs no scales
        return self._call(x, model_times(self.process, t[None], self._like(x))[0], condition)

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> list[StateField]:
        form = PREDICTIONS[self.predicts](self.process, times, self.data_std)
        like = self._like(x)
        if form.label is None:
            labels = model_times(self.process, times, like)
        else:
            labels = list(form.label.to(like).reshape(len(times), -1).expand(-1, len(x)))
        columns = (
            labels,
            scalars((a + b * form.skip) * scale, x),
            scalars(b * form.out, x),
            scalars(form.scale * scale, x),
        )
        return [self._bind(*column, condition) for column in zip(*columns, strict=True)]

    def _bind(
        self, t: Tensor, a: Scalar, b: Scalar, scale: Scalar, condition: dict[str, Tensor]
    ) -> StateField:
        def combined(X: Tensor) -> Tensor:
            F = self._call(
                X if isinstance(scale, float) and scale == 1 else scale * X, t, condition
            )
            if not isinstance(b, float) or not isinstance(a, float):
                return a * X + b * F
            F = F if b == 1 else b * F
            return F if a == 0 else torch.add(F, X, alpha=a)

        return combined

    def _call(self, x: Tensor, t: Tensor, condition: dict[str, Tensor]) -> Tensor:
        count_call()
        x_in = x.to(self._dtype(x))
        version = None if x_in.is_inference() else x_in._version
        F = self.network(x_in, t, **floats_like(condition, x_in))
        if isinstance(F, Tensor):
            count_backward(F)
        if version is not None and x_in._version != version:
            raise ValueError("the network changed its input in place; let it work on a copy.")
        if not isinstance(F, Tensor) or F.shape != x.shape:
            got = tuple(F.shape) if isinstance(F, Tensor) else type(F).__name__
            raise ValueError(
                f"the network must return the shape of its input, {tuple(x.shape)}, but returned {got}."
            )
        if not F.is_floating_point():
            raise TypeError(f"the network must return floating-point numbers, not {F.dtype}.")
        return F.to(x.dtype)

    def _like(self, x: Tensor) -> Tensor:
        r"""An empty tensor with the dtype in which the network computes."""

        return x.new_empty((len(x), 0), dtype=self._dtype(x))

    def _dtype(self, x: Tensor) -> torch.dtype:
        r"""The dtype in which the network computes: that of its weights, or of the state."""

        parameters = self.network.parameters() if isinstance(self.network, nn.Module) else iter(())
        weight = next((p for p in parameters if p.is_floating_point()), None)
        return x.dtype if weight is None else weight.dtype
