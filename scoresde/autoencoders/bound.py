r"""A lower bound on the density of data under a model of its latents.

With the encoder's posterior q, the decoder's density and a score model's density of latents,

.. math:: \log p(x) \geq \mathbb{E}_{q(z \mid x)} \big[ \log p(x \mid z) + \log p(z) - \log q(z \mid x) \big] ,

and what it lacks is the divergence of q from the posterior of this model.

References:
    | Score-based Generative Modeling in Latent Space (Vahdat et al., 2021), section 3
    | https://arxiv.org/abs/2106.05931
"""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import Array

from ..doors.data import as_data, as_seed
from ..likelihood import elbo, log_likelihood
from ..likelihood.bits import bin_width, code_length
from ..likelihood.students import error_of_mean
from ..models.checks import check_count
from ..models.conditions import Condition
from ..models.latent import Latent
from ..models.score_model import ScoreModel
from .losses import draw

BY: dict[str, Callable[..., Any]] = {"flow": log_likelihood, "elbo": elbo}


@dataclass(frozen=True)
class PixelBound:
    r"""A lower bound on the log-density of data, in parts, each in nats, with shape (B,), in float64.

    Arguments:
        nats: The bound, the sum of the three parts.
        stderr: Its standard error due to the draws of latents, with shape (B,); NaN for a single draw.
        reconstruction: :math:`\mathbb{E} \log p(x \mid z)`.
        prior: :math:`\mathbb{E} \log p(z)`, of standardised latents.
        entropy: :math:`- \mathbb{E} \log q(z \mid x)`, of the same.
        dimension: The number of dimensions of the data.

    Examples:
        >>> small = ss.GaussianOracle(torch.zeros(2, 4, 4), 1.0)
        >>> small.transform = ss.Latent(ss.networks.VAE(width=8))
        >>> bound = ss.autoencoders.pixel_elbo(small, torch.zeros(2, 1, 8, 8), draws=2)
        >>> bound.nats.shape, bound.dimension
        (torch.Size([2]), 64)
    """

    nats: Tensor
    stderr: Tensor
    reconstruction: Tensor
    prior: Tensor
    entropy: Tensor
    dimension: int

    @checked
    def bits_per_dim(self, *, levels: int, low: float = -1.0, high: float = 1.0) -> Tensor:
        r"""Returns an upper bound on the code length of dequantised data in bits per dimension, with shape (B,).

        Arguments:
            levels: The number of levels of the data, as for :func:`scoresde.bits_per_dim`.
            low: The value of the lowest level.
            high: The value of the highest level.
        """

        return code_length(self.nats, self.dimension, bin_width(levels, low, high))

    def __repr__(self) -> str:
        parts = (("log p(x|z)", self.reconstruction), ("log p(z)", self.prior),
                 ("- log q(z|x)", self.entropy))  # fmt: skip
        words = ", ".join(f"{name} {value.mean():.4g}" for name, value in parts)
        return (
            f"PixelBound({len(self.nats)} samples, mean {self.nats.mean():.4g} nats, each within a standard error "
            f"of {self.stderr.nanmean():.2g}: {words})"
        )


@checked
def pixel_elbo(
    model: ScoreModel,
    x: Array,
    *,
    draws: int = 8,
    by: str = "flow",
    seed: int = 0,
    first_index: int = 0,
    options: Mapping[str, Any] | None = None,
    **condition: Condition,
) -> PixelBound:
    r"""Returns the evidence lower bound of the log-density of data under a latent model.

    The density of the latents is that of the score model, which is not the standard normal prior with which the
    autoencoder was trained.

    Arguments:
        model: A model whose `transform` is a :class:`scoresde.Latent` of an autoencoder with `posterior` and
            `log_prob`, such as a :class:`scoresde.networks.VAE`.
        x: Data, with shape (B, \*); for data on levels, after :func:`scoresde.dequantize`.
        draws: The number of draws from the posterior, each of which is a run of the score model.
        by: "flow", the density of latents by :func:`scoresde.log_likelihood`, or "elbo", its bound by
            :func:`scoresde.elbo`, which needs no derivatives.
        seed: The seed of the draws. Row i depends on the seed and on `first_index + i` alone.
        first_index: The index of the first sample.
        options: Further options of that function, such as `{"nodes": 2}`.
        condition: The conditions.

    Raises:
        TypeError: If the model has no latent space, or its autoencoder no posterior.

    Examples:
        >>> ss.autoencoders.pixel_elbo(model, torch.zeros(1, 2))
        Traceback (most recent call last):
        ...
        TypeError: model must have a ss.Latent as its transform, but has None.
    """

    space = model.transform
    if not isinstance(space, Latent):
        raise TypeError(f"model must have a ss.Latent as its transform, but has {space!r}.")
    if by not in BY:
        raise ValueError(f"by must be one of {', '.join(BY)}, not {by!r}.")
    data, seed = as_data("x", x), as_seed("seed", seed)
    draws = check_count("draws", draws, at_least=1)
    inside = copy(model.given(**condition))
    inside.transform = None
    mean, std = space.posterior("x", data)
    own = torch.distributions.Normal(mean.double(), std.double())
    known_by = partial(BY[by], **{**(options or {}), "seed": seed, "first_index": first_index})
    parts: list[list[Tensor]] = [[], [], []]
    for number in range(draws):
        state = mean + std * draw(mean, seed, first_index, number)
        known = known_by(inside, state)
        values = space.log_prob(data, state), known.nats, -own.log_prob(state).flatten(1).sum(1)
        for part, value in zip(parts, values, strict=True):
            part.append(value)
    each = [torch.stack(part) for part in parts]
    total = sum(each[1:], each[0])
    rebuilt, prior, entropy = (part.mean(0) for part in each)
    size = data[0].numel()
    return PixelBound(total.mean(0), error_of_mean(total), rebuilt, prior, entropy, size)
