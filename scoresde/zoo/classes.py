r"""Models by their class in cards: exact ones of this package, and classes of the user's by import path."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..files import Entry, Json, check_entries, finite, mapping, or_none, text
from ..models.estimate import estimate
from ..models.network import NetworkScore
from ..models.score_model import ScoreModel
from ..oracles.mixture import GaussianOracle, KernelOracle, MixtureOracle
from ..oracles.quantile import QuantileOracle
from ..oracles.uniform import UniformOracle
from ..processes.process import Process
from .build import MODEL, take_moments
from .constructors import imported, is_path, is_plain, path_in, path_of
from .processes import take_process
from .transforms import take_transform
from .weights import check_numbers

State: TypeAlias = Mapping[str, Tensor]
FACTS = ("data_std", "data_scale", "finest")  # of the data, where the model was told


def _gaussian(state: State, shape: Sequence[int], process: Process, settings: Json) -> ScoreModel:
    return GaussianOracle(state["means"].reshape(tuple(shape)), 1.0, process, **settings)


def _mixture(state: State, shape: Sequence[int], process: Process, settings: Json) -> ScoreModel:
    return MixtureOracle(state["means"].reshape(-1, *shape), 1.0, None, process, **settings)


def _kernel(state: State, shape: Sequence[int], process: Process, settings: Json) -> ScoreModel:
    points = state["points"].reshape(-1, *shape)
    return KernelOracle(points, process=process, labels=state.get("labels"), **settings)


def _quantile(state: State, shape: Sequence[int], process: Process, settings: Json) -> ScoreModel:
    return QuantileOracle(
        state["means"], state["variances"].sqrt(), None, state["rotation"], process, **settings
    )


def _uniform(state: State, shape: Sequence[int], process: Process, settings: Json) -> ScoreModel:
    low, high = (state[name].reshape(tuple(shape)) for name in ("low", "high"))
    return UniformOracle(low, high, process, **settings)


ORACLES: dict[str, Callable[[State, Sequence[int], Process, Json], ScoreModel]] = {
    "GaussianOracle": _gaussian,
    "MixtureOracle": _mixture,
    "KernelOracle": _kernel,
    "QuantileOracle": _quantile,
    "UniformOracle": _uniform,
}
POSITIVE = ("values", "variances")  # tensors of oracles
KIND = {
    "name": Entry(
        f"one of {', '.join(ORACLES)}, or of others by module:name",
        lambda name: text(name) and (name in ORACLES or is_path(name)),
    ),
    "settings": Entry("plain settings by name", lambda s: mapping(s) and is_plain(s)),
}
CLASS = {
    "model": Entry("its name and settings", mapping),
    "process": Entry("a process, or null", or_none(mapping)),
    "shape": MODEL["shape"],
    **{
        name: Entry("a positive number, or null", or_none(lambda v: finite(v) and v > 0))
        for name in FACTS
    },
    "moments": MODEL["moments"],
    "learned": MODEL["learned"],
    "transform": MODEL["transform"],
}


def described_class(model: ScoreModel, said: object) -> Json:
    r"""Returns the class of a model and its settings as plain data.

    Arguments:
        model: The model.
        said: The entry of the user's card, which may hold the settings.

    Raises:
        ValueError: If its settings are not known.
    """

    if is_oracle(model):
        width = {"width": model.width} if isinstance(model, KernelOracle) else {}
        return {"name": type(model).__name__, "settings": width}
    entry = dict(said) if isinstance(said, Mapping) else {}
    settings = entry.get("settings", getattr(model, "settings", None))
    if not isinstance(settings, Mapping):
        raise ValueError(
            f"the settings that make a {type(model).__name__} are not known; give it an attribute `settings`, the "
            "keyword arguments of its class, or pass them as card={'model': {'settings': {...}}}"
        )
    return {"name": entry.get("name", path_of(type(model))), "settings": dict(settings)}


def is_oracle(model: ScoreModel) -> bool:
    r"""Whether a model is an exact one of this package."""

    return type(model).__name__ in ORACLES and type(model).__module__.startswith("scoresde.")


def takes_process(model: ScoreModel) -> bool:
    r"""Whether a model's class is made with a process."""

    known = is_oracle(model) or isinstance(model, NetworkScore)
    return known or "process" in inspect.signature(type(model)).parameters


def check_kind(entry: Json) -> None:
    r"""Refuses an entry that does not describe the class of a model."""

    check_entries(entry, KIND, "model: ")


def build_class(
    card: Json, tensors: dict[str, Tensor], trust: bool = False, dtype: torch.dtype | None = None
) -> ScoreModel:
    r"""Returns the model whose class a card names, with its tensors.

    Arguments:
        card: The card, after its check.
        tensors: The tensors of the file.
        trust: Whether a class that is not of this package is imported and called.
        dtype: The dtype of its floating-point numbers. By default, that of the file.
    """

    shape = tuple(card["shape"])
    moments, transform = (
        take_moments(tensors, card),
        take_transform(tensors, card.get("transform"), shape, trust),
    )
    entry, known = card["model"], card.get("process")
    process = None if known is None else take_process(tensors, known, trust)
    for name, value in tensors.items():
        check_numbers(name, value)
    model = _made(entry, tensors, shape, process, trust)
    wanted = model.state_dict()
    for name in {*wanted, *tensors}:
        if name not in wanted or name not in tensors or wanted[name].shape != tensors[name].shape:
            raise ValueError(
                f"the tensor {name!r} of the model and of the file are not of one shape"
            )
    ready = {
        name: value.to(dtype if value.is_floating_point() else None, copy=True)
        for name, value in tensors.items()
    }
    model.load_state_dict(ready, assign=True)
    for name in FACTS:
        if card.get(name) is not None:
            setattr(model, name, card[name])
    if shape and model.shape is None:
        model.shape = shape
    if moments is not None:
        model.moments = moments
    model.transform = transform
    if "learned" in card:
        model.learned = card["learned"]
    return model.eval()


def _made(
    entry: Json, tensors: State, shape: tuple[int, ...], process: Process | None, trust: bool
) -> ScoreModel:
    name, settings = entry["name"], entry["settings"]
    if name not in ORACLES:
        known: dict[str, Any] = {} if process is None else {"process": process}
        model = imported(name, "model", trust)(**settings, **known)
        if not isinstance(model, ScoreModel):
            raise ValueError(f"its model must be a ScoreModel, but is a {type(model).__name__}")
        return model
    if process is None or not shape:
        raise ValueError(f"a {name} must have a 'process' and a 'shape'")
    for one in POSITIVE:
        if one in tensors and not bool((tensors[one] > 0).all()):
            raise ValueError(f"the tensor {one!r} of a {name} must be positive")
    vectors, means = tensors.get("vectors"), tensors.get("means")
    if vectors is not None and means is not None:  # the size of what is made first
        wanted = (len(means), means[0].numel(), means[0].numel())
        if tuple(vectors.shape) != wanted:
            raise ValueError(
                f"the tensor 'vectors' of a {name} must have shape {wanted}, but has {tuple(vectors.shape)}"
            )
    return ORACLES[name](tensors, shape, process, settings)


def check_same(model: ScoreModel, again: ScoreModel, exact: bool) -> None:
    r"""Refuses a model that its card makes differently.

    Arguments:
        model: The model.
        again: The model that the card makes.
        exact: Whether its tensors keep all their digits, so that estimates can be compared.
    """

    if type(again) is not type(model):
        raise TypeError(
            f"the card makes a {path_in(type(again))}, but this is a {path_in(type(model))}"
        )
    for name in ("shape", "conditions", "learned", *FACTS):
        mine, its = getattr(model, name), getattr(again, name)
        if mine != its:
            raise ValueError(f"the card makes a model with {name}={its!r}, but this has {mine!r}")
    if not exact or model.shape is None or not model.process.has_scales:
        return
    t = torch.tensor((model.process.t_min + model.process.t_max) / 2, dtype=torch.float64)
    first = next((v for v in model.state_dict().values() if v.is_floating_point()), torch.zeros(1))
    x = torch.linspace(-1, 1, math.prod(model.shape)).to(first).reshape(1, *model.shape)
    with torch.no_grad():
        try:
            wanted = estimate(model, x, t)
        except (TypeError, ValueError, RuntimeError):  # a model that needs its conditions
            return
        if not torch.allclose(estimate(again.to(x.device), x, t), wanted, equal_nan=True):
            raise ValueError(
                "the card makes a model with other estimates: an attribute is missing among its settings, "
                "parameters and buffers"
            )
