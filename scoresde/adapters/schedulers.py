r"""Process, prediction type and time label of a network, read from its diffusers scheduler.

Everything is read from the scheduler object, never from the defaults of its class, which differ between classes.
"""

import copy
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..guidance.guided import Guided
from ..guidance.thresholds import Thresholded, thresholded
from ..models.score_model import ScoreModel
from ..processes.process import Process
from ..processes.schedules import Geometric, Karras
from ..processes.standard import EDM, VE, VP, Interpolant
from ..processes.tabulated import Tabulated
from .foreign import Label

PREDICTS = {"epsilon": "noise", "sample": "data", "v_prediction": "v"}
FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
DISTILLED = (
    "LCMScheduler",
    "TCDScheduler",
    "FlowMatchLCMScheduler",
    "CMStochasticIterativeScheduler",
)
WIDER = 1.01  # than the range of EDM's schedulers, which their grids leave by rounding


class Meaning(NamedTuple):
    r"""The meaning of a network's output under a scheduler.

    Arguments:
        process: The process.
        predicts: The prediction type.
        label: The time label.
        factor: The factor that multiplies its output.
        data_std: The preconditioning constant.
        unit: The process's time per time step of the scheduler.
    """

    process: Process
    predicts: str
    label: Label | None = None
    factor: float = 1.0
    data_std: float | None = None
    unit: float = 1.0


def meaning_of(scheduler: object) -> Meaning:
    r"""Returns the meaning of a network's output under a scheduler.

    Raises:
        ValueError: If it has an unknown class or prediction type, or belongs to a distilled network.
    """

    name = type(scheduler).__name__
    config: Mapping[str, Any] | None = getattr(scheduler, "config", None)
    if config is None:
        raise TypeError(
            f"scheduler must be a scheduler of diffusers, with its config, but is a {name}."
        )
    if name in DISTILLED:
        raise ValueError(
            f"scheduler is a {name}, of networks distilled to a few steps, which are no scores: they return "
            "samples, not means. Sample with their own pipeline."
        )
    if name in FLOWS or config.get("prediction_type") == "flow_prediction":
        return _flow(config)
    if name.startswith("EDM"):
        return _edm(config)
    if name == "ScoreSdeVeScheduler":
        process = VE(Geometric(config["sigma_min"], config["sigma_max"]))
        return Meaning(process, "score", Label("noise_level"))
    return _discrete(scheduler, config, name)


def _flow(config: Mapping[str, Any]) -> Meaning:
    steps = config["num_train_timesteps"]
    process = Interpolant(t_min=2.0**-24, t_max=1 - 2.0**-30)
    return Meaning(process, "velocity", Label("t", steps), unit=1 / steps)


def _edm(config: Mapping[str, Any]) -> Meaning:
    process = EDM(Karras(config["sigma_min"] / WIDER, config["sigma_max"] * WIDER))
    factors = {"epsilon": 1.0, "v_prediction": -1.0}
    _check_prediction(config["prediction_type"], factors)
    factor = factors[config["prediction_type"]]
    return Meaning(process, "edm", factor=factor, data_std=config["sigma_data"])


def _discrete(scheduler: Any, config: Mapping[str, Any], name: str) -> Meaning:
    if getattr(scheduler, "alphas_cumprod", None) is None:
        raise ValueError(
            f"scheduler must be one whose noise levels are known here, but is a {name}: those with "
            f"alphas_cumprod, such as DDIMScheduler, {', '.join(FLOWS)}, those of EDM and ScoreSdeVeScheduler "
            "are. Otherwise wrap the network by ss.from_callable."
        )
    _check_prediction(config["prediction_type"], PREDICTS)
    predicts, signal = PREDICTS[config["prediction_type"]], scheduler.alphas_cumprod
    silent = bool(config.get("rescale_betas_zero_snr")) or float(signal[-1]) <= 0
    if silent and predicts == "noise":
        raise ValueError(
            "scheduler has a terminal SNR of zero, where a network that predicts noise "
            "(prediction_type='epsilon') says nothing of the data; use one of "
            "v_prediction or sample, or rescale_betas_zero_snr=False."
        )
    if silent:  # some schedulers put a small number there for the 0
        signal = torch.cat([signal[:-1], torch.zeros_like(signal[-1:])])
    return Meaning(VP(Tabulated.from_alphas_cumprod(signal)), predicts)


def _check_prediction(found: str, known: dict[str, Any]) -> None:
    if found not in known:
        names = ", ".join(map(repr, known))
        raise ValueError(
            f"the scheduler's prediction_type must be one of {names}, but is {found!r}; if its meaning is known, "
            "wrap the network by ss.from_callable(network, process, predicts=...)."
        )


def clipped(model: ScoreModel, config: Mapping[str, Any]) -> ScoreModel:
    r"""Returns the model with the thresholds of a scheduler on its denoised data, or itself if there are none.

    Theirs clip dynamically to the range from -1 to 1, and `sample_max_value` is the most that they divide by.
    """

    if config.get("thresholding"):
        ratio, most = config["dynamic_thresholding_ratio"], config["sample_max_value"]
        return Guided((model,), Thresholded(1.0, ratio, most))
    if config.get("clip_sample"):
        return thresholded(model, config.get("clip_sample_range", 1.0))
    return model


def stock_times(scheduler: Any, meaning: Meaning, steps: int, **options: object) -> Tensor:
    r"""Returns the times of the process at which a scheduler would call the network, in float64.

    The denoising at the last time replaces the scheduler's step to noise level 0. The scheduler itself is not
    changed.

    Arguments:
        scheduler: The scheduler.
        meaning: The meaning of the network's output.
        steps: The number of inference steps.
        options: Further arguments of its `set_timesteps`, such as `mu`.
    """

    fresh = copy.deepcopy(scheduler)
    takes = inspect.signature(fresh.set_timesteps).parameters
    fresh.set_timesteps(**{"num_inference_steps": steps, **options} if "num_inference_steps" in takes else
                        {"n_steps": steps})  # fmt: skip
    process = meaning.process
    if meaning.predicts == "edm" or meaning.unit != 1:
        times = torch.as_tensor(fresh.sigmas).double().cpu()
        times = times[times > 0]
    else:
        times = torch.as_tensor(fresh.timesteps).double().cpu()
    return torch.unique_consecutive(times).clamp(process.t_min, process.t_max)
