r"""Saving of models: nothing is written that could not be loaded again."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from solvers.doors.signatures import checked

from ..adapters.foreign import Foreign
from ..chains import ChainModel
from ..files import Entry, Json, replacing
from ..guidance.guided import Guided
from ..models.compiled import as_written, name_as_written
from ..models.learned import as_learned
from ..models.network import NetworkScore
from ..models.score_model import ScoreModel
from ..symbols.score import network_of
from .build import MODEL, check_card, described_moments, take_moments
from .called import described_call, take_null
from .chains import CHAIN, described_chain
from .classes import (
    CLASS,
    FACTS,
    build_class,
    check_kind,
    check_same,
    described_class,
    is_oracle,
    takes_process,
)
from .constructors import constructor_of, is_path, name_of, path_in
from .embedded import described_embedding, take_embedding, transform_of
from .experts import KIND, levels_of, part_files
from .processes import described_process, take_process
from .transforms import described_transform, take_transform, without_form
from .weights import build_network, check_dtype, check_numbers, in_dtype

LOST = 0.01  # of a weight's norm: the loss in float16 that is accepted by default


@checked
def save(
    model: ScoreModel | ChainModel,
    file: str | Path,
    card: Json | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Path:
    r"""Writes a model to `file.safetensors` and `file.json`, for :func:`load`, or :func:`load_chain` for chains.

    A network must be one of :mod:`scoresde.networks`, a diffusers class, or made by a constructor that
    :func:`scoresde.register_network` registered, or a class, to be loaded with `trust=True`. Networks of diffusers
    know their settings. For others, pass the settings as `card["network"]`, such as `{"settings": {"width": 16}}`.
    How a network of :mod:`scoresde.adapters` is called is saved too. The encoders and the autoencoder of a
    pipeline are not: `pipeline.save_pretrained(folder)` keeps these. That of a :class:`scoresde.Latent` is, if it
    is a network of this package, or has an attribute `settings`.

    The learned vectors of a :class:`scoresde.symbols.EmbeddedScore` are saved beside the weights of its network.
    Exact models are saved with all their digits. A :class:`scoresde.ScoreModel` of your own class is saved by its
    import path, its parameters and buffers, and its settings: the keyword arguments of the class, from an
    attribute `settings` or `card["model"]["settings"]`. If the class takes a `process`, the process is saved too.
    Such files are loaded with `trust=True`.

    The models of :func:`scoresde.guidance.experts` are saved in a folder `file_experts` beside its card;
    `card["network"]` is then that of all of them.

    Processes with a schedule of this package are saved by name. All others with scales are saved as a table of
    :math:`\log \alpha` and :math:`\log \sigma` that is right within 1e-8, and loads without trust. One without
    scales needs the import path of a function that returns it, as `card["process"]`, such as
    `{"name": "module:function"}`, and `trust=True`. `model.transform` is saved if its class is of this package.

    Arguments:
        model: The score model of a network, an exact model, one of your own class, or the model of a chain.
        file: The path, without suffix.
        card: The entries of the card, in addition to those that the model provides.
        dtype: The dtype of the weights. By default, float16, or float32 for weights that float16 cannot hold
            within one percent, and that of the model where there is no network. To keep all numbers exactly, pass
            torch.float32, or torch.float64 for weights of that dtype.

    Returns:
        The path of the card.

    Raises:
        TypeError: If the model wraps another, as guidance does.
        ValueError: If it could not be loaded again, or a number does not fit into the dtype.

    Examples:
        >>> digits = ss.load("digits")
        >>> ss.load(ss.save(digits, folder / "copy", digits.card)).shape
        (1, 8, 8)
    """

    check_dtype(dtype)
    card = dict(card or getattr(model, "card", {}))
    if isinstance(model, ChainModel):
        network = as_written(model.network)
        card |= {**_named(network, card.get("network", {}), {}), **described_chain(model)}
        return write_model(network, Path(file), card, {}, CHAIN, dtype)
    for name in ("transform", "learned", "embedding"):  # those of the model are written
        card.pop(name, None)
    levels = levels_of(model)
    if isinstance(model, Guided) and levels is not None:
        return _save_experts(model, levels, Path(file), card, dtype)
    plain = isinstance(model, NetworkScore) and type(model).__module__.startswith("scoresde.")
    if "model" in card or not plain or hasattr(model, "settings"):
        return _save_class(model, Path(file), card, dtype)
    assert isinstance(model, NetworkScore)
    return _save_network(model, Path(file), card, dtype)


def _save_network(model: NetworkScore, file: Path, card: Json, dtype: torch.dtype | None) -> Path:
    r"""Writes the score model of a network."""

    network = as_written(network_of(model))
    embedding, vectors = described_embedding(model)
    tensors: dict[str, Tensor] = {}
    call: Json = {}
    if isinstance(network, Foreign):
        network, call["called"], tensors = described_call(network)
    with _readable():
        network, formed = without_form(network, transform_of(model))
        facts, others = _of_data(model, card)
    if formed:
        call["form"] = True
    if embedding is not None:
        card["embedding"] = embedding
        others |= {name: _stored(name, value, dtype) for name, value in vectors.items()}
    card = {
        **card,
        **_named(network, card.get("network", {}), call),
        "predicts": model.predicts,
        "conditions": list(model.conditions),
        "data_std": model.data_std,
        **facts,
    }
    if model.learned != "score":
        card["learned"] = as_learned(model.learned)
    if model.moments is None and model.data_scale not in (None, model.data_std):
        card["data_scale"] = model.data_scale
    return write_model(network, file, card, {**tensors, **others}, MODEL, dtype)


def _of_data(model: ScoreModel, card: Json) -> tuple[Json, dict[str, Tensor]]:
    r"""The entries of a card about process and data, and their tensors: what is not made with the model itself."""

    process, table = (
        described_process(model.process, card.get("process"))
        if takes_process(model)
        else (None, {})
    )
    moments, known = (None, {}) if is_oracle(model) else described_moments(model)
    transform, numbers = described_transform(transform_of(model))
    entries = {"process": process, "shape": list(model.shape or ()), "moments": moments}
    if transform is not None:
        entries["transform"] = transform
    return entries, {**table, **known, **numbers}


def _save_class(model: ScoreModel, file: Path, card: Json, dtype: torch.dtype | None) -> Path:
    r"""Writes a model by its class: an exact one of this package, or a class of the user's."""

    if type(model).__module__.split(".")[0] == "scoresde" and not is_oracle(model):
        raise TypeError(
            f"model must be a NetworkScore, an exact model or one of your own, but is a {type(model).__name__}; "
            "for a guided or conditioned model, save the model that it wraps."
        )
    state = {
        name: _stored(name, value, dtype or (value.dtype if value.is_floating_point() else None))
        for name, value in model.state_dict().items()
    }
    with _readable():
        facts, others = _of_data(model, card)
        entry = described_class(model, card.get("model"))
        told = {name: getattr(model, f"_{name}") for name in FACTS}
        card = {**card, "model": entry, **facts, **told, "learned": as_learned(model.learned)}
        known = json.loads(json.dumps(card, allow_nan=False))
        check_card(known, CLASS)
        check_kind(known["model"])
        mine = known["model"]["name"] == path_in(type(model))
        check_same(model, build_class(known, {**state, **others}, mine), dtype is None)
    return _written(file, card, {**state, **others})


def _save_experts(
    model: Guided, levels: list[float], file: Path, card: Json, dtype: torch.dtype | None
) -> Path:
    r"""Writes each expert, and then the card with the noise levels between them."""

    whole = file.with_suffix(".json")
    files = part_files(whole, len(levels) + 1)
    files[0].parent.mkdir(parents=True, exist_ok=True)
    network = card.pop("network", None)  # of all of them
    for part, place in zip(model.each, files, strict=True):
        known = getattr(part, "card", {})
        save(part, place, known if network is None else {**known, "network": network}, dtype=dtype)
    text = json.dumps({**card, KIND: levels}, indent=2, allow_nan=False) + "\n"
    with replacing(whole) as written:
        written.write_text(text)
    return whole


def _named(network: object, said: object, call: Json) -> Json:
    r"""The entry of a network in a card, with its name, and the settings that networks of diffusers know."""

    if not isinstance(network, nn.Module) or not isinstance(said, Mapping):
        return {}
    entry = {**{name: value for name, value in said.items() if name != "form"}, **call}
    config = getattr(network, "config", None)
    if "settings" not in entry and isinstance(config, Mapping):
        entry["settings"] = {n: v for n, v in config.items() if not n.startswith("_")}
    if "settings" in entry and "name" not in entry:
        entry["name"] = name_of(network)
    return {"network": entry} if "name" in entry else {}


def write_model(
    network: object,
    file: Path,
    card: Json,
    others: dict[str, Tensor],
    entries: Mapping[str, Entry],
    dtype: torch.dtype | None = None,
) -> Path:
    r"""Writes the weights of a network, other tensors as they are, and the card, if they can be read again.

    Arguments:
        network: The network.
        file: The path, without suffix.
        card: The card.
        others: The tensors that are not weights.
        entries: The required entries of the card.
        dtype: The dtype of the weights, as in :func:`save`.

    Returns:
        The path of the card.

    Raises:
        ValueError: If these files could not be loaded, or a number does not fit into the dtype.
    """

    network = as_written(network)
    if not isinstance(network, nn.Module):
        raise TypeError(f"only networks that are modules have weights to save, not {network!r}.")
    if "network" not in card:
        raise ValueError(
            "card must have the entry 'network' with the settings by which it is made, as in card={'network': "
            "{'settings': {...}}}."
        )
    weights = {
        name_as_written(name): _stored(name, value, dtype)
        for name, value in network.state_dict().items()
    }
    _check_readable(network, card, weights, others, entries)
    return _written(file, card, {**weights, **others})


def _written(file: Path, card: Json, tensors: dict[str, Tensor]) -> Path:
    r"""Writes a card and tensors, and returns the path of the card."""

    text = json.dumps(card, indent=2, allow_nan=False) + "\n"
    with replacing(file.with_suffix(".safetensors")) as part:
        save_file(tensors, part)
    with replacing(file.with_suffix(".json")) as part:
        part.write_text(text)
    return file.with_suffix(".json")


def _stored(name: str, value: Tensor, dtype: torch.dtype | None) -> Tensor:
    r"""A weight in the dtype of the file, after checking that it fits."""

    value = value.detach().cpu().contiguous()
    if not value.is_floating_point():
        return value.clone()
    check_numbers(f"the weight {name!r}", value)
    if dtype is None:
        half = value.half()
        gone = (half.double() - value.double()).norm() > LOST * value.double().norm()
        return value.float() if bool(gone) else half
    return in_dtype(f"the weight {name!r}", value, dtype)


def _check_readable(
    network: nn.Module,
    card: Json,
    weights: dict[str, Tensor],
    others: dict[str, Tensor],
    entries: Mapping[str, Entry],
) -> None:
    r"""Refuses a model that cannot be loaded again, by loading it."""

    with _readable():
        known = json.loads(json.dumps(card, allow_nan=False))
        check_card(known, entries)
        name = known["network"]["name"]
        mine = name == path_in(type(network))  # and so imported already
        named = constructor_of(name, mine)
        if isinstance(named, type) and type(network) is not named:
            raise TypeError(
                f"the card names the network {named.__name__}, but this is a {type(network).__name__}"
            )
        left = {**weights, **others}
        take_moments(left, known)
        take_embedding(left, known.get("embedding"))
        take_transform(left, known.get("transform"), known.get("shape", ()), trust=True)
        if "process" in entries:
            take_process(left, known["process"], is_path(known["process"]["name"]))
        if known["network"].get("called") is not None:
            take_null(left)
        build_network(known, left, mine)


@contextmanager
def _readable() -> Iterator[None]:
    r"""Turns errors in its block into one that says that a model is not saved."""

    try:
        yield
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        words = str(error).splitlines()[0].removesuffix(".")
        raise ValueError(
            f"this could not be loaded again, so it is not saved: {words}. Files hold networks and models that "
            "settings make, and processes that have scales."
        ) from None
