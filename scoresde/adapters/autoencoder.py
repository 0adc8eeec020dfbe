r"""Autoencoders at both ends of a latent model: images in, images out."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from solvers.doors.signatures import checked
from solvers.solver import Solution

from ..doors.data import as_state
from ..models.score_model import ScoreModel


class Autoencoder(nn.Module):
    r"""Creates the encoder and decoder of a latent model from an autoencoder of diffusers.

    .. math:: z = (E(x) - m) \, s , \qquad x = D(z / s + m) ,

    where E is the mode of the posterior, and the scale s and the shift m come from its config.

    Arguments:
        network: The autoencoder, such as an `AutoencoderKL`.

    Examples:
        >>> import types
        >>> class Doubled(torch.nn.Module):
        ...     config = {"scaling_factor": 0.5}
        ...     def encode(self, x):
        ...         return types.SimpleNamespace(latents=2 * x)
        ...     def decode(self, z):
        ...         return types.SimpleNamespace(sample=z / 2)
        >>> ends = ss.adapters.Autoencoder(Doubled())
        >>> ends.encode(torch.ones(1, 3, 2, 2)).mean(), ends.decode(torch.ones(1, 3, 2, 2)).mean()
        (tensor(1.), tensor(1.))
    """

    converts = True  # tensors to its network's device and dtype

    @checked
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        config: Any = getattr(network, "config", {})
        found = {name: config.get(name) for name in ("latents_mean", "latents_std")}
        mean, std = found["latents_mean"], found["latents_std"]
        factor = config.get("scaling_factor")
        self.scale = _per_channel(1.0 if std is None else std, 1.0 if factor is None else factor)
        self.shift = _per_channel(
            (config.get("shift_factor") or 0.0) if mean is None else mean, 1.0, 1.0
        )

    def __repr__(self) -> str:
        return f"Autoencoder({type(self.network).__name__})"

    def encode(self, images: Tensor) -> Tensor:
        r"""Returns the latents of images.

        Arguments:
            images: Images in [-1, 1], with shape (B, C, H, W).
        """

        x = as_state("images", images)
        with self._asked(x):
            answer: Any = cast(Any, self.network).encode(self._like(x))
        if hasattr(answer, "latent_dist"):
            z = answer.latent_dist.mode()
        else:
            z = answer.latents if hasattr(answer, "latents") else answer.latent
        return (z.to(x) - self.shift.to(x)) * self.scale.to(x)

    def decode(self, latents: Tensor) -> Tensor:
        r"""Returns the images of latents, in [-1, 1] or nearly.

        Arguments:
            latents: Latents, such as samples of the model, with shape (B, C, H, W).
        """

        z = as_state("latents", latents)
        plain = z / self.scale.to(z) + self.shift.to(z)
        with self._asked(z):
            answer: Any = cast(Any, self.network).decode(self._like(plain))
        return answer.sample.to(z)

    def error(self, images: Tensor) -> Tensor:
        r"""Returns the autoencoder's own root mean square error for each image, with shape (B,).

        No solver can undercut it, so report it beside every round-trip error in pixels.

        Arguments:
            images: Images in [-1, 1], with shape (B, C, H, W).
        """

        images = as_state("images", images)
        lost = self.decode(self.encode(images)) - images
        return lost.flatten(1).square().mean(1).sqrt()

    def _like(self, x: Tensor) -> Tensor:
        r"""A state in the dtype and on the device of the autoencoder's computation."""

        known: Any = self.network
        weight = next(iter(self.network.parameters()), x)
        halved = weight.dtype == torch.float16 and getattr(known, "config", {}).get("force_upcast")
        if halved:
            raise ValueError(
                "the autoencoder leaves the range of float16 (force_upcast in its config); call "
                "pipeline.vae.to(torch.float32)."
            )
        return x.to(device_of_calls(self.network) or x.device, weight.dtype)

    def _asked(self, x: Tensor) -> torch.set_grad_enabled:
        r"""Keeps derivatives if the state requires them, but not for the weights alone."""

        return torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad)


def device_of_calls(network: nn.Module) -> torch.device | None:
    r"""Returns the device on which a network computes; an offloaded network keeps its weights elsewhere."""

    for module in network.modules():
        hook: Any = getattr(module, "_hf_hook", None)
        device = getattr(hook, "execution_device", None)
        if device is not None:
            return torch.device(device)
    weight = next(iter(network.parameters()), None)
    return None if weight is None or weight.is_meta else weight.device


def autoencoder_of(model: ScoreModel) -> Autoencoder:
    r"""Returns the autoencoder of a model, or of the model that it is made of.

    Arguments:
        model: A model that :func:`scoresde.from_diffusers` made of a pipeline, or one around it.

    Raises:
        ValueError: If it has none.

    Examples:
        >>> ss.adapters.autoencoder_of(ss.load("digits"))
        Traceback (most recent call last):
        ...
        ValueError: model has no autoencoder; pass one that ss.from_diffusers made of a pipeline with a vae.
    """

    for module in model.modules():
        if isinstance(module, Autoencoder):
            return module
    raise ValueError(
        "model has no autoencoder; pass one that ss.from_diffusers made of a pipeline with a vae."
    )


@checked
def pictures(model: ScoreModel, latents: Tensor | Solution) -> Tensor:
    r"""Returns the images of a latent model's samples, in [-1, 1] or nearly, with shape (B, C, H, W).

    Arguments:
        model: A model of a pipeline with an autoencoder, or any model made of it, such as a guided one.
        latents: Its samples, or the solution of a run.

    Raises:
        ValueError: If the model has no autoencoder.

    Examples:
        >>> ss.pictures(ss.load("digits"), torch.zeros(1, 1, 8, 8))
        Traceback (most recent call last):
        ...
        ValueError: model has no autoencoder; pass one that ss.from_diffusers made of a pipeline with a vae.
    """

    x = latents.x if isinstance(latents, Solution) else latents
    return autoencoder_of(model).decode(x)


def _per_channel(values: Any, factor: float, power: float = -1.0) -> Tensor:
    r"""Numbers per channel, with shape (C, 1, 1), or () for all of them."""

    found = torch.as_tensor(values, dtype=torch.float64)
    found = factor * found**power
    return found[:, None, None] if found.ndim else found
