r"""A check, once per model, that autograd's derivative of a model matches its values.

A network that detaches, rounds, or runs under `torch.no_grad()` returns values like any other, but its
derivative by autograd is wrong, and so are gradients, divergences and likelihoods. The change along a line, from
five points on it,

.. math:: F(x + v) - F(x - v) = \int_{-1}^{1} \frac{\partial F}{\partial x}(x + s v) \, v \, ds ,

holds for every network with a correct derivative, even with kinks (ReLU) or if it is constant. The integral is
computed by Boole's rule. Its error is at most its difference from the trapezoidal rule, plus rounding, which the
fourth differences of F show.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from solvers.divergence import NO_FORWARD
from solvers.network_calls import uncounted
from solvers.noise.brownian import PROBES, keyed_normal
from solvers.problem import StateField
from solvers.shapes import align

from .score_model import Given, ScoreModel

Mode = Literal["forward", "reverse"]

REACH = 0.5  # length of a line to each side, in standard deviations of the noise
PLACES = (-1.0, -0.5, 0.0, 0.5, 1.0)
BOOLE = (7 / 45, 32 / 45, 12 / 45, 32 / 45, 7 / 45)
TRAPEZOID = (1 / 4, 1 / 2, 1 / 2, 1 / 2, 1 / 4)
FOURTH = (1.0, -4.0, 6.0, -4.0, 1.0)
ROUNDING = math.sqrt(
    2 / 70
)  # rounding of a difference of two values, relative to that of the fourth difference
SLACK = 0.01  # the fraction of a change that a derivative may miss, as in TF32
ULPS = 16  # of the dtype, to which a network's values may be rounded
SAFETY = 2.0  # from an error estimate to a bound
CLEAR = 2.0  # times this bound, beyond which there is no doubt
ENTRIES, LINES = 64, 8  # as many numbers are compared, if that many lines give them


class Seen(NamedTuple):
    r"""The values and derivatives along lines.

    Arguments:
        values: The network's output at the five points of each line, with shape (5, n).
        slopes: The derivatives along the line at these points, with shape (5, n).
        size: The root mean square of the network's output.
    """

    values: Tensor
    slopes: Tensor
    size: Tensor


class Missed(NamedTuple):
    r"""The mismatch between derivatives and changes.

    Arguments:
        ratio: The gap relative to what rounding and kinks explain, or 0 if they explain it.
        change: The root mean square of the changes.
        gap: The root mean square of the part of the changes that the derivatives miss.
    """

    ratio: float
    change: float
    gap: float


def check_derivative(
    model: ScoreModel, x: Tensor, mode: Mode, use: str, rows: int | None = None
) -> None:
    r"""Refuses a model whose derivative with respect to the state does not match its values.

    This takes about six network calls, more for fewer than 64 numbers, once per model, mode and set of bound
    condition names. They are not counted.

    Arguments:
        model: The model, with its conditions bound.
        x: A state, which sets shape, dtype and device.
        mode: "forward", as in divergences, or "reverse", as in gradients.
        use: The name of the feature that needs the derivative, for messages.
        rows: The maximum number of rows computed at once. By default, all.

    Raises:
        ValueError: If the two differ by more than rounding and kinks explain.
    """

    owner = model
    while isinstance(owner, Given):
        owner = owner.model
    key = (mode, *sorted(model.bound_names))
    if key in owner._checked:
        return
    if rows is not None and rows < len(x):
        model, x = model.rows(torch.arange(rows)), x[:rows]
    with uncounted():
        seen: list[Seen] = []
        for _ in range(2):  # an error found on one set of lines must be found on two
            seen += _lines(model, x, mode, use, len(seen))
            missed = _missed(seen, coarsest_eps(model, x))
            if not 0 < missed.ratio < CLEAR:
                break
    if missed.ratio:
        raise ValueError(
            f"{use} needs the derivative of the model, but where the model changes by "
            f"{missed.change:.3g}, its derivative is off by {missed.gap:.3g}: {whose(model)} detaches, "
            "rounds, leaves torch (numpy), or runs under torch.no_grad() or torch.inference_mode(); "
            "remove that, or use a function that needs no derivatives, such as ss.elbo."
        )
    owner._checked = owner._checked | {key}


def whose(model: ScoreModel) -> str:
    r"""Returns in words which functions a derivative is that of."""

    return "the network" if model.process.has_scales else "the network or the drift f"


def _lines(model: ScoreModel, x: Tensor, mode: Mode, use: str, first: int) -> list[Seen]:
    r"""The values and derivatives along lines, from the line with the given number on."""

    t, scale = where_noise_is_data(model, x)
    count = min(LINES, -(-ENTRIES // x.numel()))
    index, size = torch.arange(len(x), device=x.device), x[0].numel()

    known = (
        model.raw if model.process.has_scales else model.velocity
    )  # with the drift, for any drift

    def field(state: Tensor) -> Tensor:
        return known(state, t)

    found = []
    for number in range(first, first + count):
        state, step, w = (
            keyed_normal(0, index, PROBES, 3 * number + k, size).to(x).reshape(x.shape)
            for k in range(3)
        )
        state, step = math.sqrt(2) * scale * state, REACH * scale * step
        with torch.no_grad():
            field(state)  # a failure here has nothing to do with derivatives
        try:
            found.append(_seen(field, state, step, w, mode))
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError, TypeError) as error:
            raise ValueError(
                f"{use} needs the derivative of the model, which torch cannot compute: the network leaves "
                "torch, as those of numpy or ONNX do, or runs under torch.inference_mode(). torch says: "
                f"{str(error).splitlines()[0][:200]}"
            ) from error
    return found


def where_noise_is_data(
    model: ScoreModel, x: Tensor, level: float | None = None
) -> tuple[Tensor, float]:
    r"""The time at which noise is as large as data, with shape (B,), and the noise's standard deviation.

    Arguments:
        model: The model.
        x: States, each with its own time.
        level: A noise level to use instead.
    """

    process = model.process
    if not process.has_scales:
        t = (process.t_min + process.t_max) / 2
        return torch.full((len(x),), t, dtype=torch.float64), process.prior_std()
    t = min(max(process.at_noise_level(level or model.data_std), process.t_min), process.t_max)
    times = torch.full((len(x),), t, dtype=torch.float64)
    return times, float(process.scales(times)[1][0])


def _seen(field: StateField, state: Tensor, step: Tensor, w: Tensor, mode: Mode) -> Seen:
    if mode == "forward":
        try:
            with torch.no_grad():
                return _forward(field, state, step)
        except (NotImplementedError, RuntimeError) as missing:
            if not any(word in str(missing).lower() for word in NO_FORWARD):
                raise
    return _reverse(field, state, step, w)


def _forward(field: StateField, state: Tensor, step: Tensor) -> Seen:
    pairs = [torch.func.jvp(field, (state + s * step,), (step,)) for s in PLACES]
    values, slopes = (
        torch.stack(column).flatten(1).double() for column in zip(*pairs, strict=True)
    )
    return Seen(values, slopes, values.square().mean().sqrt())


def _reverse(field: StateField, state: Tensor, step: Tensor, w: Tensor) -> Seen:
    r"""The same in reverse mode, along two directions per row: that of the change itself, and a random one."""

    with torch.no_grad():
        change = field(state + step) - field(state - step)
    ways = [align(1 / v.flatten(1).norm(dim=1).clamp(min=1e-30), v) * v for v in (change, w)]
    values, slopes, sizes = [], [], []
    for s in PLACES:
        with torch.enable_grad():
            leaf = (state + s * step).requires_grad_()
            F = field(leaf)
        for way in ways:
            values.append((way * F.detach()).flatten(1).double().sum(1))
            slopes.append((_pulled(F, leaf, way) * step).flatten(1).double().sum(1))
        sizes.append(F.detach().double().square().mean())
    return Seen(
        torch.stack(values).reshape(len(PLACES), -1),
        torch.stack(slopes).reshape(len(PLACES), -1),
        torch.stack(sizes).mean().sqrt(),
    )


def _pulled(F: Tensor, leaf: Tensor, way: Tensor) -> Tensor:
    if not F.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(F, leaf, way, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


def _missed(seen: list[Seen], eps: float) -> Missed:
    r"""The part of the change along all lines that the derivatives miss."""

    values = torch.cat([one.values for one in seen], 1)
    slopes = torch.cat([one.slopes for one in seen], 1)
    rules = torch.tensor([BOOLE, TRAPEZOID, FOURTH], dtype=torch.float64, device=values.device)
    change = values[-1] - values[0]
    boole, trapezoid, _ = rules @ slopes
    gap, root = (change - boole).norm(), math.sqrt(change.numel())
    size = torch.stack([one.size for one in seen]).square().mean().sqrt()
    known = SLACK * change.norm() + ULPS * eps * root * size
    if bool(slopes.any()):  # otherwise a correct one means that the network is constant
        kinks, rounding = (boole - trapezoid).norm(), ROUNDING * (rules[2] @ values).norm()
        known = known + SAFETY * (kinks + rounding)
    ratio = float(gap) / float(known) if bool(gap > known) else 0.0
    return Missed(ratio, float(change.norm()) / root, float(gap) / root)


def coarsest_eps(model: ScoreModel, x: Tensor) -> float:
    r"""The rounding of the coarsest dtype in which the model may compute."""

    kinds = {x.dtype, *(p.dtype for p in model.parameters() if p.is_floating_point())}
    if torch.is_autocast_enabled(x.device.type):
        kinds.add(torch.get_autocast_dtype(x.device.type))
    return max(torch.finfo(kind).eps for kind in kinds)
