r"""Densities of continuous data, and probabilities of integers."""

import math

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import Array, as_number, as_tensor, as_whole
from solvers.noise.brownian import DEQUANTIZE, keyed_uniform

from ..doors.data import check_batch_shape, check_rows_finite
from .result import Likelihood


def bin_width(levels: int, low: float, high: float, option: str = "levels") -> float:
    r"""Returns the distance between neighbouring levels."""

    levels = as_whole(option, levels, at_least=2)
    low, high = as_number("low", low), as_number("high", high)
    if not low < high or not math.isfinite(high - low):
        raise ValueError(
            f"low and high must be finite, the lower first, but are {low} and {high}."
        )
    return (high - low) / (levels - 1)


def on_levels(
    x: Array, levels: int, low: float, high: float, name: str = "x", option: str = "levels"
) -> Tensor:
    r"""Returns data on levels, after checking that it lies on them; integers are indices of levels.

    Arguments:
        x: The data.
        levels: The number of levels.
        low: The value of the lowest level.
        high: The value of the highest level.
        name: The name of the data, for messages.
        option: The name of the argument that is the number of levels, for messages.
    """

    width, x = bin_width(levels, low, high, option), as_tensor(name, x)
    check_batch_shape(name, x)
    check_rows_finite(name, x)
    values = x.double() if x.is_floating_point() else low + x.double() * width
    steps = (values - low) / width
    if steps.min() < -0.5 or steps.max() > levels - 0.5:
        named = values if x.is_floating_point() else x
        ends = (low, high) if x.is_floating_point() else (0, levels - 1)
        cure = f"the {option}= and range (low=, high=) of the data"
        if not x.is_floating_point() and x.min() >= 0:
            cure = f"{option}={int(x.max()) + 1} or more, the number of levels of the data"
        raise ValueError(
            f"{name} must lie within {levels} levels from {ends[0]:g} to {ends[1]:g}, but reaches from "
            f"{named.min():.4g} to {named.max():.4g}; pass {cure}."
        )
    off = (steps - steps.round()).abs().max().item()
    if off > 1e-3:
        raise ValueError(
            f"{name} must lie on {levels} levels from {low:g} to {high:g}, but is up to {off:.3g} bins "
            f"off them: pass {option}= of the data; data that already has noise needs no {option}= (use "
            "log_likelihood and bits_per_dim)."
        )
    return x if x.is_floating_point() else values


@checked
def dequantize(
    x: Array,
    *,
    levels: int,
    low: float = -1.0,
    high: float = 1.0,
    seed: int = 0,
    first_index: int = 0,
) -> Tensor:
    r"""Returns :math:`x + b \, (U - 1/2)`, data with uniform noise of one bin width b.

    Arguments:
        x: Data on the levels, with shape (B, *). Integers become floating-point numbers.
        levels: The number of levels.
        low: The value of the lowest level.
        high: The value of the highest level.
        seed: The seed. Row i depends on the seed and on `first_index + i` alone.
        first_index: The index of the first sample.

    Raises:
        ValueError: If the data is not on the levels.

    Examples:
        >>> x = torch.tensor([[-1.0, 0.0, 1.0]])
        >>> ss.quantize(ss.dequantize(x, levels=3), levels=3)
        tensor([[-1.,  0.,  1.]])
    """

    width, x = bin_width(levels, low, high), as_tensor("x", x)
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    x = on_levels(x, levels, low, high)
    index = torch.arange(len(x), device=x.device) + first_index
    u = keyed_uniform(seed, index, DEQUANTIZE, 0, x[0].numel()).reshape(x.shape)
    return x + (width * (u - 0.5)).to(x)


@checked
def quantize(x: Array, *, levels: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    r"""Returns data rounded to the nearest levels.

    Arguments:
        x: Data, with any shape.
        levels: The number of levels.
        low: The value of the lowest level.
        high: The value of the highest level.

    Raises:
        ValueError: If `x` is not finite, or the levels are not in order.

    Examples:
        >>> ss.quantize(torch.tensor([-0.9, 0.2, 0.7]), levels=3)
        tensor([-1.,  0.,  1.])
    """

    width, x = bin_width(levels, low, high), as_tensor("x", x)
    if not bool(x.isfinite().all()):
        raise ValueError("x must be finite, but has NaN or infinite entries.")
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    return low + width * torch.round((x - low) / width).clamp(0, levels - 1)


@checked
def bits_per_dim(
    likelihood: Likelihood, *, levels: int | None = None, low: float = -1.0, high: float = 1.0
) -> Tensor:
    r"""Returns the code length of data on levels in bits per dimension, with shape (B,).

    .. math:: - \frac{\log p(x) + d \log b}{d \log 2} , \qquad b = (high - low) / (levels - 1)

    For uniformly dequantised data (:func:`dequantize`), this is an upper bound on the code length of the
    integers under the density integrated over each bin. The result of :func:`scoresde.discrete_log_likelihood`
    is already a probability, and needs no levels.

    Arguments:
        likelihood: The log-density of dequantised data in nats, or the log-probability of integers.
        levels: The number of levels, for a density.
        low: The value of the lowest level.
        high: The value of the highest level.

    Raises:
        ValueError: If the levels are missing, passed for a probability, or closer together than the noise of the
            density, or if the density is that of latents.

    References:
        | A Note on the Evaluation of Generative Models (Theis et al., 2016), section 3.1
        | https://arxiv.org/abs/1511.01844

    Examples:
        >>> l = ss.log_likelihood(model, torch.zeros(1, 2))
        >>> round(float(ss.bits_per_dim(l, levels=3)), 2)  # log(2 pi 0.25) / log 4
        0.33
    """

    if likelihood.provenance.get("of") == "latents":
        raise ValueError(
            "these are densities of latents, which have no levels; ss.autoencoders.pixel_elbo bounds the density "
            "of the data, and has bits_per_dim."
        )
    d = likelihood.dimension if likelihood.entries is None else likelihood.entries
    if likelihood.levels is not None:
        if levels is not None:
            raise ValueError(
                f"levels={levels} has no effect: these are probabilities of data on "
                f"{likelihood.levels} levels already."
            )
        return -likelihood.nats / (d * math.log(2))
    if levels is None:
        raise ValueError("levels must be passed, as in bits_per_dim(l, levels=256).")
    width = bin_width(levels, low, high)
    check_noise(likelihood.noise_level, width)
    return code_length(likelihood.nats, d, width)


def code_length(nats: Tensor, d: int | Tensor, width: float) -> Tensor:
    r"""Returns the code length of data in bins of a width in bits per dimension, from its log-density in nats."""

    return -(nats + d * math.log(width)) / (d * math.log(2))


def check_noise(noise_level: float, width: float) -> None:
    r"""Refuses noise at `t_min` that is wider than the bins."""

    if noise_level > width / math.sqrt(12):
        raise ValueError(
            f"the noise at t_min has the level {noise_level:.3g}, which is more than that of uniform "
            f"noise in bins of {width:.3g}: {width / math.sqrt(12):.3g}; lower t_min=."
        )
