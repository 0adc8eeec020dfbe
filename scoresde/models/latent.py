r"""The latent space of an autoencoder as the states of a model: images in, images out."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from solvers.doors.signatures import checked
from solvers.doors.values import Array

from ..doors.data import as_data, as_floats
from .checks import check_count
from .transforms import Transform


@runtime_checkable
class Coder(Protocol):
    r"""An encoder and a decoder."""

    def encode(self, x: Tensor, /) -> Tensor:
        r"""Returns the latents of data."""

    def decode(self, z: Tensor, /) -> Tensor:
        r"""Returns the data of latents."""


class Latent(Transform):
    r"""Creates the map between data and the standardised latents of an autoencoder,

    .. math:: u = (E(x) - m) / s , \qquad x = D(m + s \, u) .

    A model of u with this transform is a latent diffusion model: samples, edits and decoded latents are D of its
    states, and data is encoded by E where it comes in. The map loses what the autoencoder does not keep, so the
    density of such a model is that of the latent E(x), in the units of the autoencoder, and not of x;
    :func:`scoresde.autoencoders.pixel_elbo` bounds the latter.

    The autoencoder computes on its own device and in the dtype of its weights.

    References:
        | High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3
        | https://arxiv.org/abs/2112.10752

    Arguments:
        autoencoder: The autoencoder, with `encode` and `decode`, such as a :class:`scoresde.networks.VAE`, a
            :class:`scoresde.networks.VQVAE`, or what `autoencoder_of` of :mod:`scoresde.adapters` finds.
        data_shape: The shape of one sample of the data. By default, that of the autoencoder.
        mean: The mean m of the latents: a number, or a tensor that broadcasts with one latent.
        std: Their standard deviation s > 0, in the same form.
        shape: The shape of one latent. By default, that of an encoded sample of zeros.

    Attributes:
        shape: The shape of one latent.
        quantized: Whether the latents lie on vectors of a codebook, so that they have no density.

    Examples:
        >>> latent = ss.Latent(ss.networks.VAE(width=8))
        >>> latent.shape, latent.data_shape
        ((2, 4, 4), (1, 8, 8))
        >>> small = ss.GaussianOracle(torch.zeros(2, 4, 4), 1.0)
        >>> small.transform = latent
        >>> ss.sample(small, 3, steps=4).x.shape
        torch.Size([3, 1, 8, 8])
    """

    lossless = False

    @checked
    def __init__(
        self,
        autoencoder: nn.Module,
        data_shape: Sequence[int] | None = None,
        mean: Array | float = 0.0,
        std: Array | float = 1.0,
        shape: Sequence[int] | None = None,
    ) -> None:
        if not isinstance(autoencoder, Coder):
            raise TypeError(
                f"autoencoder must have the methods encode and decode, but {type(autoencoder).__name__} has not."
            )
        known: Any = getattr(autoencoder, "shape", None) if data_shape is None else data_shape
        if known is None:
            raise ValueError(
                f"data_shape is missing, and {type(autoencoder).__name__} has no attribute `shape`; pass the "
                "shape of one sample, such as data_shape=(1, 8, 8)."
            )
        own = getattr(autoencoder, "shape", known)
        if tuple(known) != tuple(own):
            raise ValueError(
                f"data_shape must be {tuple(own)}, that of this autoencoder, but is {tuple(known)}."
            )
        self.autoencoder, self.data_shape = autoencoder, tuple(int(n) for n in known)
        self.mean = as_floats("mean", mean, dtype=torch.float64)
        self.std = as_floats("std", std, dtype=torch.float64)
        self.quantized = bool(getattr(autoencoder, "quantized", False))
        if not bool((self.std > 0).all()):
            raise ValueError(f"std must be positive, but is as small as {self.std.min():.4g}.")
        zeros = torch.zeros(1, *self.data_shape)
        self.shape = tuple(self._encode(zeros).shape[1:] if shape is None else shape)
        for name, value in (("mean", self.mean), ("std", self.std)):
            if not _broadcasts(value.shape, self.shape):
                raise ValueError(
                    f"{name} must broadcast with a latent of shape {self.shape}, but has {tuple(value.shape)}."
                )

    @staticmethod
    @checked
    def of(autoencoder: nn.Module, data: Array, *, batch_size: int = 1024) -> "Latent":
        r"""Returns the map under which the latents of data have mean 0 and deviation 1 in each entry.

        For an autoencoder with a `posterior`, these are the moments of draws from it. Entries without a deviation
        get 1.

        Arguments:
            autoencoder: The autoencoder.
            data: Data, with shape (M, \*), M >= 2.
            batch_size: The number of samples that are encoded at once.
        """

        x, size = as_data("data", data), check_count("batch_size", batch_size, at_least=1)
        if len(x) < 2:
            raise ValueError(f"data must have at least 2 samples, but has {len(x)}.")
        known = getattr(autoencoder, "shape", None)
        found = Latent(autoencoder, tuple(x.shape[1:]) if known is None else known)
        found._check("data", tuple(x.shape[1:]))
        pairs = [found._spread(part) for part in x.split(size)]
        centre, own = (torch.cat(values).double() for values in zip(*pairs, strict=True))
        std = (centre.var(0) + own.square().mean(0)).sqrt()
        found.mean, found.std = centre.mean(0), torch.where(std > 0, std, 1.0)
        return found

    def __repr__(self) -> str:
        return f"Latent({type(self.autoencoder).__name__}, {self.data_shape} -> {self.shape})"

    def pack(self, name: str, x: object) -> Tensor:
        return as_data(name, x, finite=False)

    def unpack(self, x: Tensor) -> Tensor:
        return x

    def inside(self, name: str, x: object) -> Tensor:
        data = as_data(name, x)
        self._check(name, tuple(data.shape[1:]))
        return self._standard(self._encode(data))

    def outside(self, x: Tensor) -> Tensor:
        with self._asked(x):
            coder = cast(Coder, self.autoencoder)
            return coder.decode(self._like(self.mean.to(x) + self.std.to(x) * x)).to(x)

    def posterior(self, name: str, x: object) -> tuple[Tensor, Tensor]:
        r"""Returns the mean and the standard deviation of the states of data, each like the states.

        Arguments:
            name: The name of the argument, for messages.
            x: The data, with shape (B, \*).

        Raises:
            TypeError: If the autoencoder has no posterior.
        """

        data = as_data(name, x)
        self._check(name, tuple(data.shape[1:]))
        self._check_has("posterior")
        centre, own = self._spread(data)
        return self._standard(centre), own / self.std.to(own)

    def log_prob(self, x: Tensor, state: Tensor) -> Tensor:
        r"""Returns the log-density of data given its state in nats, with shape (B,), in float64.

        Arguments:
            x: The data, with shape (B, \*).
            state: The state, with shape (B, \*).

        Raises:
            TypeError: If the autoencoder has no density of data.
        """

        self._check_has("log_prob")
        with self._asked(state):
            z = self._like(self.mean.to(state) + self.std.to(state) * state)
            known: Any = self.autoencoder
            return known.log_prob(self._like(x), z).to(state.device, torch.float64)

    def gradient(self, slope: Tensor) -> Tensor:
        return slope / self.std.to(slope)

    def log_volumes(self, shape: Sequence[int]) -> Tensor:
        return self.std.expand(*shape).log()

    def inner_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.shape is not None and tuple(shape[1:]) != self.shape:
            self._check("shape", tuple(shape[1:]))
            return (shape[0], *self.shape)
        return shape

    @property
    def described(self) -> dict[str, Any]:
        kind, made = type(self.autoencoder), getattr(self.autoencoder, "settings", None)
        return {
            "name": "Latent",
            "autoencoder": f"{kind.__module__}:{kind.__qualname__}",
            "settings": dict(made) if isinstance(made, Mapping) else None,
            "data_shape": list(self.data_shape),
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        weights = {f"autoencoder.{n}": v for n, v in self.autoencoder.state_dict().items()}
        return {"mean": self.mean, "std": self.std, **weights}

    def _standard(self, z: Tensor) -> Tensor:
        return (z - self.mean.to(z)) / self.std.to(z)

    def _encode(self, x: Tensor) -> Tensor:
        r"""The latents of data, like it in dtype and device."""

        with self._asked(x):
            return cast(Coder, self.autoencoder).encode(self._like(x)).to(x)

    def _spread(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""The means and deviations of latents; without a posterior, the latents and 0."""

        if not hasattr(self.autoencoder, "posterior"):
            z = self._encode(x)
            return z, torch.zeros_like(z)
        with self._asked(x):
            known: Any = self.autoencoder
            centre, own = known.posterior(self._like(x))
            return centre.to(x), own.to(x)

    def _like(self, x: Tensor) -> Tensor:
        r"""A tensor on the device and in the dtype of the autoencoder, unless it converts tensors itself."""

        if getattr(self.autoencoder, "converts", False):
            return x
        weights = (p for p in self.autoencoder.parameters() if p.is_floating_point())
        weight = next(weights, None)
        return x if weight is None else x.to(weight)

    def _asked(self, x: Tensor) -> torch.set_grad_enabled:
        r"""Keeps derivatives if the state requires them, but not for the weights alone."""

        return torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad)

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        if shape != self.data_shape:
            raise ValueError(
                f"{name} must be (B, {', '.join(map(str, self.data_shape))}), the data of this model's "
                f"autoencoder, but its samples have shape {shape}."
            )

    def _check_has(self, name: str) -> None:
        if self.quantized or not hasattr(self.autoencoder, name):
            raise TypeError(
                "bounds on the density of data need an autoencoder with the methods posterior and log_prob, such "
                f"as a ss.networks.VAE, but this model has a {type(self.autoencoder).__name__}."
            )


def data_shape_of(model: object) -> tuple[int, ...] | None:
    r"""Returns the shape of one sample of a model's data, if known: outside of its latent space, if it has one."""

    transform = getattr(model, "transform", None)
    return transform.data_shape if isinstance(transform, Latent) else getattr(model, "shape", None)


def _broadcasts(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    try:
        return torch.broadcast_shapes(tuple(shape), tuple(wanted)) == tuple(wanted)
    except RuntimeError:
        return False
