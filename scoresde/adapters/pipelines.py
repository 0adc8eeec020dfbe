r"""Pipelines of diffusers: their parts, their prompts as conditions, and how they call their network.

Nothing is imported from diffusers. A pipeline's family follows from the class name of its network, and prompts are
encoded by the pipeline's own `encode_prompt`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..models.compiled import as_written
from ..models.conditions import Bound
from .autoencoder import Autoencoder, device_of_calls

GUIDANCE = 3.5  # which Flux pipelines pass to distilled networks by default
PATCH = 2  # the side of the patches of Flux
Shape = tuple[int, ...]
Config = Mapping[str, Any]
Said = tuple[dict[str, Bound], dict[str, Bound] | None]  # a text, and no text, if that differs


class Family(NamedTuple):
    r"""What pipelines of one kind of network have in common.

    Arguments:
        encode: A function of the pipeline, the prompts, a device and the shape of a sample. It returns the
            network's arguments for these prompts, and those for no prompt if they differ from the empty prompt's.
        spacing: A function of the configs of scheduler and network, the shape of a sample and the number of steps.
            It returns further arguments of the scheduler's `set_timesteps`.
    """

    encode: Callable[[Any, list[str], torch.device, Shape], Said]
    spacing: Callable[[Config, Config, Shape, int], dict[str, Any]]


class Texts:
    r"""Creates the map from prompts to conditions by the text encoders of a pipeline.

    Arguments:
        pipeline: The pipeline.
        family: Its family.
        shape: The shape of one sample.
    """

    def __init__(self, pipeline: Any, family: Family, shape: Shape) -> None:
        self.pipeline, self.family, self.shape = pipeline, family, shape

    def take(self, value: object) -> dict[str, Bound]:
        r"""Returns the condition for a prompt, or for a list of prompts."""

        return self._said(texts_of(value))[0]

    def null(self) -> dict[str, Bound]:
        r"""Returns the condition for no prompt, as the pipeline uses it for classifier-free guidance."""

        empty, null = self._said([""])
        return empty if null is None else null

    def _said(self, texts: list[str]) -> Said:
        encoder = self.pipeline.text_encoder
        device = device_of_calls(encoder) or torch.device("cpu")
        with torch.no_grad():
            return self.family.encode(self.pipeline, texts, device, self.shape)


def texts_of(value: object) -> list[str]:
    r"""Returns one prompt or several as a list."""

    several = [value] if isinstance(value, str) else value
    if not isinstance(several, list | tuple) or not several:
        raise TypeError(f"prompt must be a text or a list of texts, but is {value!r}.")
    for one in several:
        if not isinstance(one, str):
            raise TypeError(f"prompt must be a text or a list of texts, but one is {one!r}.")
    return list(several)


class Parts(NamedTuple):
    r"""The parts of a pipeline.

    Arguments:
        network: The denoising network.
        scheduler: The scheduler, which determines the meaning of the network's output.
        autoencoder: The autoencoder of a pipeline that works on latents.
        family: The family of a pipeline with text encoders, if it is known.
    """

    network: nn.Module
    scheduler: object
    autoencoder: Autoencoder | None
    family: Family | None


def parts_of(pipeline: Any) -> Parts:
    r"""Returns the parts of a pipeline.

    Raises:
        ValueError: If one is missing.
    """

    name, components = type(pipeline).__name__, pipeline.components
    networks = [components.get(part) for part in ("unet", "transformer")]
    network = next((one for one in networks if isinstance(one, nn.Module)), None)
    if network is None:
        raise ValueError(
            f"the pipeline must have a unet or a transformer, but this {name} has: "
            f"{', '.join(n for n, part in components.items() if part is not None) or 'nothing'}."
        )
    if getattr(pipeline, "transformer_2", None) is not None:
        raise ValueError(
            f"this {name} has two denoising networks, of which each knows some noise levels only; pass one of "
            "them and the scheduler: ss.from_diffusers(pipeline.transformer, pipeline.scheduler)."
        )
    if components.get("scheduler") is None:
        raise ValueError(
            f"this {name} has no scheduler, which says what the network predicts; pass scheduler=."
        )
    known = family_of(network) if getattr(pipeline, "text_encoder", None) is not None else None
    vae = next((components[n] for n in ("vae", "vqvae") if components.get(n) is not None), None)
    ends = None if vae is None else Autoencoder(vae)
    return Parts(network, components["scheduler"], ends, known)


def class_of(network: nn.Module) -> str:
    r"""Returns the name of a network's class, of a compiled one as it was written."""

    return type(as_written(network)).__name__


def family_of(network: nn.Module) -> Family | None:
    r"""Returns the family of a network, if it is known here."""

    kind = class_of(network)
    if kind == "UNet2DConditionModel":
        config: Any = getattr(network, "config", {})
        extended = config.get("addition_embed_type") == "text_time"
        kind = "UNet2DConditionModel with text_time" if extended else kind
    return FAMILIES.get(kind)


# ---- texts


def _stable_diffusion(pipeline: Any, texts: list[str], device: torch.device, _: Shape) -> Said:
    said, none = pipeline.encode_prompt(texts, device, 1, True)
    return {"encoder_hidden_states": said}, {"encoder_hidden_states": none[:1]}


def _stable_diffusion_xl(
    pipeline: Any, texts: list[str], device: torch.device, shape: Shape
) -> Said:
    found = pipeline.encode_prompt(prompt=texts, device=device)
    height, width = (side * pipeline.vae_scale_factor for side in shape[-2:])
    times = torch.tensor([[height, width, 0, 0, height, width]], dtype=found[0].dtype)

    def parts(hidden: Tensor, pooled: Tensor) -> dict[str, Bound]:
        added: dict[str, Bound] = {"text_embeds": pooled, "time_ids": times.to(pooled)}
        return {"encoder_hidden_states": hidden, "added_cond_kwargs": added}

    return parts(found[0], found[2]), parts(found[1][:1], found[3][:1])


def _stable_diffusion_3(pipeline: Any, texts: list[str], device: torch.device, _: Shape) -> Said:
    found = pipeline.encode_prompt(prompt=texts, prompt_2=None, prompt_3=None, device=device)
    names = ("encoder_hidden_states", "pooled_projections")
    return (
        dict(zip(names, (found[0], found[2]), strict=True)),
        dict(zip(names, (found[1][:1], found[3][:1]), strict=True)),
    )


def _flux(pipeline: Any, texts: list[str], device: torch.device, _: Shape) -> Said:
    hidden, pooled, _ids = pipeline.encode_prompt(prompt=texts, prompt_2=None, device=device)
    return {"encoder_hidden_states": hidden, "pooled_projections": pooled}, None


# ---- grids


def _as_it_is(_config: Config, _network: Config, _shape: Shape, _steps: int) -> dict[str, Any]:
    return {}


def _shifted(config: Config, network: Config, shape: Shape, _steps: int) -> dict[str, Any]:
    if not config.get("use_dynamic_shifting"):
        return {}
    size = network["patch_size"]
    return {"mu": _shift(config, (shape[-2] // size) * (shape[-1] // size))}


def _packed_shifted(config: Config, _network: Config, shape: Shape, steps: int) -> dict[str, Any]:
    found = {} if config.get("use_flow_sigmas") else {"sigmas": np.linspace(1.0, 1 / steps, steps)}
    return {**found, **_shifted(config, {"patch_size": PATCH}, shape, steps)}


def _shift(config: Config, length: int) -> float:
    r"""The shift of the noise levels for an image of `length` patches, which is linear in that number."""

    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (most - least) / (many - few)
    return length * slope + (least - slope * few)


FAMILIES = {
    "UNet2DConditionModel": Family(_stable_diffusion, _as_it_is),
    "UNet2DConditionModel with text_time": Family(_stable_diffusion_xl, _as_it_is),
    "SD3Transformer2DModel": Family(_stable_diffusion_3, _shifted),
    "FluxTransformer2DModel": Family(_flux, _packed_shifted),
}  # by the class of the network


class Packed(nn.Module):
    r"""Creates a network of latent images from a Flux transformer, which takes sequences of 2 x 2 patches.

    Arguments:
        network: The transformer.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def config(self) -> dict[str, Any]:
        r"""The config of the transformer, with the channels of the latent images."""

        found: Any = self.network.config
        return {**found, "in_channels": found["in_channels"] // 4}

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        guidance: Tensor | None = None,
        **others: object,
    ) -> Tensor:
        r"""Returns the velocity, with the shape of the state; the time label goes from 0 to 1000."""

        _check_sides(hidden_states)
        batch, channels, height, width = hidden_states.shape
        cut = hidden_states.reshape(batch, channels, height // 2, 2, width // 2, 2)
        rows = cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, 4 * channels)
        ids = torch.cartesian_prod(torch.arange(height // 2), torch.arange(width // 2))
        answer = self.network(
            hidden_states=rows,
            timestep=timestep / 1000,
            guidance=guidance,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
            txt_ids=rows.new_zeros(encoder_hidden_states.shape[1], 3),
            img_ids=nn.functional.pad(ids, (1, 0)).to(rows),
            return_dict=False,
            **others,
        )[0]
        cut = answer.reshape(batch, height // 2, width // 2, channels, 2, 2)
        return cut.permute(0, 3, 1, 4, 2, 5).reshape(hidden_states.shape)


def _check_sides(x: Tensor) -> None:
    if x.ndim != 4 or x.shape[2] % 2 or x.shape[3] % 2:
        raise ValueError(
            "the network takes latents with shape (B, C, H, W), of even height and width, but got "
            f"{tuple(x.shape)}; pass shape= to ss.from_diffusers, or of the start."
        )


def nulls_of(network: nn.Module, conditions: Sequence[str]) -> dict[str, Bound]:
    r"""Returns the values that stand for no condition, by the config of a network."""

    config: Any = getattr(network, "config", {})
    found: dict[str, Bound] = {}
    classes = config.get("num_embeds_ada_norm")
    if "class_labels" in conditions and classes is not None:
        found["class_labels"] = torch.tensor([classes])
    if "guidance" in conditions:
        found["guidance"] = torch.tensor([GUIDANCE])
    return found
