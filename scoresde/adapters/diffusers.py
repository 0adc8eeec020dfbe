r"""Networks and pipelines of diffusers as score models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from solvers.doors.signatures import checked

from ..models.conditions import Bound
from ..models.network import NetworkScore
from ..models.score_model import ScoreModel
from .foreign import Foreign
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
CLASSES = ("class_embed_type", "num_class_embeds", "num_embeds_ada_norm")


class DiffusersScore(NetworkScore):
    r"""Creates the score model of a diffusers network.

    Attributes:
        scheduler: The scheduler, which determines the meaning of its output.
        meaning: The meaning of its output.

    Examples:
        >>> issubclass(ss.adapters.DiffusersScore, ss.NetworkScore)
        True
    """

    scheduler: Any
    meaning: Meaning

    @checked
    def times(self, steps: int, **options: object) -> Tensor:
        r"""Returns the scheduler's grid, for `times=`, with its spacing, offset, shift and sigmas.

        Arguments:
            steps: The number of inference steps.
            options: Further arguments of its `set_timesteps`, such as `mu` of a shift by resolution.
        """

        return stock_times(self.scheduler, self.meaning, steps, **options)


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
    r"""Returns the score model of a diffusers network, whose scheduler determines the prediction type.

    With `times=model.times(n)`, a solver takes the scheduler's steps for n inference steps.

    Arguments:
        source: The network, a pipeline, or a folder of either that `save_pretrained` wrote.
        scheduler: The scheduler. By default, that of the pipeline.
        conditions: The names of the network's conditions. By default, they follow from its signature.
        constants: Further keyword arguments of every call.
        null: The values that stand for no condition, each with leading size 1.
        shape: The shape of one sample. By default, that of its config.
        clip: Whether denoised data is clipped or thresholded if the scheduler does so.

    Raises:
        ValueError: If the scheduler has an unknown class or prediction type, or leaves no signal for a network
            that predicts noise.

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

    network = source
    if not isinstance(network, nn.Module):
        raise TypeError("source must be a network")
    meaning = meaning_of(scheduler)
    state = next(iter(parameters_of(network)))
    called = Foreign(
        network,
        meaning.process,
        meaning.label,
        names=(state, "timestep"),
        factor=meaning.factor,
        constants=constants,
        null=null,
    )
    model = DiffusersScore(
        called,
        meaning.process,
        meaning.predicts,
        conditions=_conditions(network) if conditions is None else conditions,
        shape=_shape(network) if shape is None else shape,
        data_std=meaning.data_std,
    )
    model.scheduler, model.meaning = scheduler, meaning
    return _clipped(model) if clip else model


def _conditions(network: nn.Module) -> list[str]:
    r"""The per-sample arguments of a network, from its signature and config."""

    config: Any = getattr(network, "config", {})
    takes = parameters_of(network)
    classes = any(config.get(name) is not None for name in CLASSES)
    return [name for name in CONDITIONS if name in takes and (name != "class_labels" or classes)]


def _shape(network: nn.Module) -> tuple[int, ...] | None:
    config: Any = getattr(network, "config", {})
    channels, size = config.get("in_channels"), config.get("sample_size")
    if channels is None or size is None:
        return None
    return (channels, *((size, size) if isinstance(size, int) else size))


def _clipped(model: DiffusersScore) -> ScoreModel:
    r"""The model with the thresholds of its scheduler, if it has any."""

    found = clipped(model, model.scheduler.config)
    if found is not model:
        found.times = model.times  # type: ignore[assignment]
    return found
