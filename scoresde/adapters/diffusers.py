r"""Networks and pipelines of diffusers as score models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from solvers.doors.signatures import checked

from ..models.conditions import Bound
from ..models.network import NetworkScore
from ..models.score_model import ScoreModel
from .autoencoder import Autoencoder
from .folders import opened
from .foreign import Foreign
from .pipelines import Packed, Parts, Texts, class_of, family_of, nulls_of, parts_of
from .schedulers import Meaning, clipped, meaning_of, stock_times
from .signatures import parameters_of

CONDITIONS = (
    "encoder_hidden_states",
    "class_labels",
    "added_cond_kwargs",
    "pooled_projections",
    "encoder_attention_mask",
    "timestep_cond",
    "guidance",
)  # per-sample arguments of networks
ASKED = {
    "class_labels": ("class_embed_type", "num_class_embeds", "num_embeds_ada_norm")
}  # by config
LATENT_SCALE = 1.0  # the root mean square of latents, by the scaling of autoencoders
PROMPT = "prompt"  # the condition that is a text


class DiffusersScore(NetworkScore):
    r"""Creates the score model of a diffusers network.

    Attributes:
        scheduler: The scheduler, which determines the meaning of its output.
        meaning: The meaning of its output.
        autoencoder: The autoencoder of its pipeline, or `None`.
        texts: The pipeline's text encoders for the condition `prompt`, or `None`.

    Examples:
        >>> issubclass(ss.adapters.DiffusersScore, ss.NetworkScore)
        True
    """

    scheduler: Any
    meaning: Meaning
    autoencoder: Autoencoder | None
    texts: Texts | None = None

    @checked
    def times(self, steps: int, **options: object) -> Tensor:
        r"""Returns the scheduler's grid, for `times=`, with its spacing, offset, shift and sigmas.

        Arguments:
            steps: The number of inference steps.
            options: Further arguments of its `set_timesteps`, such as `mu` of a shift by resolution. By default,
                those that the pipeline passes for samples of the model's shape.
        """

        called: Any = self.network
        network = called.network
        family = family_of(network.network if isinstance(network, Packed) else network)
        if family is not None and self.shape is not None:
            config = self.scheduler.config
            options = {**family.spacing(config, network.config, self.shape, steps), **options}
        return stock_times(self.scheduler, self.meaning, steps, **options)

    def take_condition(self, name: str, value: object) -> Bound:
        if name == PROMPT and self.texts is not None and not isinstance(value, Mapping):
            value = self.texts.take(value)
        return super().take_condition(name, value)


@checked
def from_diffusers(
    source: str | Path | object,
    scheduler: object | None = None,
    *,
    conditions: Sequence[str] | None = None,
    constants: Mapping[str, object] | None = None,
    null: Mapping[str, Bound] | None = None,
    shape: tuple[int, ...] | None = None,
    clip: bool = True,
) -> ScoreModel:
    r"""Returns the score model of a diffusers network or pipeline, whose scheduler determines the prediction type.

    With `times=model.times(n)`, a solver takes the scheduler's steps for n inference steps.

    The model of a pipeline with an autoencoder is one of latents, and so are its likelihoods. Its `data_scale` is
    1, to which autoencoders bring latents; `model.autoencoder` and :func:`scoresde.pictures` lead to pictures. A
    model of a pipeline with text encoders takes the condition `prompt`, a text or a list of texts, and knows what
    stands for none under classifier-free guidance.

    Arguments:
        source: The network, a pipeline, or a folder of either that `save_pretrained` wrote. Nothing in a folder is
            executed: it must hold safetensors, and classes that diffusers and transformers export.
        scheduler: The scheduler, or its folder. By default, that of the pipeline.
        conditions: The names of the network's conditions. By default, they follow from its signature.
        constants: Further keyword arguments of every call.
        null: The values that stand for no condition, each with leading size 1.
        shape: The shape of one sample. By default, that of its config.
        clip: Whether denoised data is clipped or thresholded if the scheduler does so.

    Raises:
        ValueError: If the scheduler has an unknown class or prediction type, or leaves no signal for a network
            that predicts noise; or if a folder holds code, pickles or damaged weights.
        ImportError: If a folder is to be opened, and diffusers is missing or older than 0.42.

    Examples:
        >>> import types
        >>> class Network(torch.nn.Module):  # as those of diffusers are
        ...     config = {"in_channels": 1, "sample_size": 8}
        ...     def forward(self, sample, timestep):
        ...         return 0 * sample
        >>> signal = torch.linspace(0.999, 0.01, 1000)
        >>> scheduler = types.SimpleNamespace(config={"prediction_type": "v_prediction"}, alphas_cumprod=signal)
        >>> ss.from_diffusers(Network(), scheduler).shape
        (1, 8, 8)
    """

    pipeline, parts = _parts(source, scheduler)
    network = parts.network
    names = _conditions(network) if conditions is None else list(conditions)
    shape = _shape(network, pipeline) if shape is None else shape
    texts = None
    known = nulls_of(network, names)
    if parts.family is not None and shape is not None:
        texts = Texts(pipeline, parts.family, shape)
        names, known = [PROMPT, *names], {PROMPT: texts.null(), **known}
    model = _score(parts, names, constants, {**known, **(null or {})}, shape)
    model.autoencoder, model.texts = parts.autoencoder, texts
    if parts.autoencoder is not None:
        model.data_scale = LATENT_SCALE
    return _clipped(model) if clip else model


def _parts(source: Any, scheduler: Any) -> tuple[Any, Parts]:
    r"""The pipeline, if there is one, and the parts of it or of a network and a scheduler."""

    if isinstance(source, str | Path):
        source = opened("source", source)
    if isinstance(scheduler, str | Path):
        scheduler = opened("scheduler", scheduler)
    if hasattr(source, "components") and not isinstance(source, nn.Module):
        parts = parts_of(source)
        parts = parts if scheduler is None else parts._replace(scheduler=scheduler)
        pipeline = source
    elif isinstance(source, nn.Module):
        if scheduler is None:
            raise ValueError(
                "scheduler must be that of the network's pipeline, since nothing in a network tells what it "
                "predicts, but is missing; pass scheduler=, or the whole pipeline."
            )
        parts, pipeline = Parts(source, scheduler, None, None), None
    else:
        raise TypeError(
            "source must be a network or pipeline of diffusers, or a folder of one, but is a "
            f"{type(source).__name__}."
        )
    known = getattr(parts.scheduler, "stock_scheduler", parts.scheduler)  # behind one of ours
    parts = parts._replace(scheduler=known)
    packed = class_of(parts.network) == "FluxTransformer2DModel"
    return pipeline, parts._replace(network=Packed(parts.network)) if packed else parts


def _score(
    parts: Parts,
    conditions: Sequence[str],
    constants: Mapping[str, object] | None,
    null: Mapping[str, Bound],
    shape: tuple[int, ...] | None,
) -> DiffusersScore:
    meaning, network = meaning_of(parts.scheduler), parts.network
    state = next(iter(parameters_of(network)))
    called = Foreign(
        network,
        meaning.process,
        meaning.label,
        names=(state, "timestep"),
        factor=meaning.factor,
        constants=constants,
        null=null,
        opened=[PROMPT],
    )
    model = DiffusersScore(
        called,
        meaning.process,
        meaning.predicts,
        conditions=conditions,
        shape=shape,
        data_std=meaning.data_std,
    )
    model.scheduler, model.meaning = parts.scheduler, meaning
    return model


def _conditions(network: nn.Module) -> list[str]:
    r"""The per-sample arguments of a network, from its signature and config."""

    config: Any = getattr(network, "config", {})
    takes = parameters_of(network)
    told = {name: any(config.get(one) is not None for one in ones) for name, ones in ASKED.items()}
    told["guidance"] = bool(config.get("guidance_embeds"))
    return [name for name in CONDITIONS if name in takes and told.get(name, True)]


def _shape(network: nn.Module, pipeline: Any) -> tuple[int, ...] | None:
    config: Any = getattr(network, "config", {})
    channels, size = config.get("in_channels"), config.get("sample_size")
    size = getattr(pipeline, "default_sample_size", None) if size is None else size
    if channels is None or size is None:
        return None
    return (channels, *((size, size) if isinstance(size, int) else size))


def _clipped(model: DiffusersScore) -> ScoreModel:
    r"""The model with the thresholds of its scheduler, if it has any."""

    found = clipped(model, model.scheduler.config)
    if found is not model:
        found.times = model.times  # type: ignore[assignment]
        found.autoencoder = model.autoencoder  # type: ignore[assignment]
    return found
