r"""Transforms of a model's data in cards: the name and shapes in the card, the numbers among the tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..files import Entry, Json, check_entries, each, mapping, or_none, text, whole
from ..models.latent import Latent
from ..models.transforms import Around, ComplexPairs, NamedParts, Standardized, Transform
from ..symbols.bits import Bits
from .constructors import is_name, is_plain, name_of
from .weights import build_network

PREFIX = "transform."  # of the tensors of a transform
CODER = "autoencoder."  # of the weights of an autoencoder, after it
KINDS = {kind.__name__: kind for kind in (Standardized, ComplexPairs, NamedParts, Bits, Latent)}
FORMS = {
    "ComplexPairs": ComplexPairs,
    "NamedParts": NamedParts,
}  # which may be inside a Standardized


def _shapes(value: object) -> bool:
    return mapping(value) and all(
        isinstance(shape, list) and all(map(whole, shape)) for shape in value.values()
    )


NAME = Entry(f"one of {', '.join(KINDS)}", lambda name: text(name) and name in KINDS)
FORM = Entry(f"one of {', '.join(FORMS)}", lambda name: text(name) and name in FORMS)
ENTRIES = {
    "Standardized": {"name": NAME, "form": Entry("a form, or null", or_none(mapping))},
    "ComplexPairs": {"name": NAME},
    "NamedParts": {"name": NAME, "shapes": Entry("lists of whole numbers by name", _shapes)},
    "Bits": {
        "name": NAME,
        "count": Entry("a whole number", whole),
        "gray": Entry("true or false", lambda gray: isinstance(gray, bool)),
        "shape": Entry("whole numbers, or null", or_none(each(whole))),
    },
    "Latent": {
        "name": NAME,
        "autoencoder": Entry("the name of a network, or module:name", is_name),
        "settings": Entry("plain settings by name", lambda s: mapping(s) and is_plain(s)),
        "data_shape": Entry(
            "positive whole numbers",
            lambda shape: isinstance(shape, list) and each(whole)(shape) and 0 not in shape,
        ),
    },
}


def described_transform(transform: Transform | None) -> tuple[Json | None, dict[str, Tensor]]:
    r"""Returns a transform as plain data and tensors.

    Raises:
        ValueError: If it is of a class of the user's.
    """

    if transform is None:
        return None, {}
    inner = transform.form if type(transform) is Standardized else None
    kinds = {type(one) for one in (transform, inner) if one is not None}
    if not kinds <= {*KINDS.values()} or isinstance(inner, Standardized):
        raise ValueError(
            f"model.transform must be one of {', '.join(KINDS)} to be saved, since files hold no code, but is "
            f"{transform!r}; set model.transform = None, save, and set it again after ss.load"
        )
    tensors = {
        PREFIX + name: value.detach().cpu().contiguous().clone()
        for name, value in transform.tensors.items()
    }
    return _described(transform), tensors


def _described(transform: Transform) -> Json:
    r"""A transform as plain data; the autoencoder of a latent by its name in cards."""

    if not isinstance(transform, Latent):
        return transform.described
    entry = {**transform.described, "autoencoder": name_of(transform.autoencoder)}
    if entry["settings"] is None:
        raise ValueError(
            f"the settings that make a {type(transform.autoencoder).__name__} are not known; give it an attribute "
            "`settings`, the keyword arguments of its class"
        )
    return entry


def check_transform(entry: Json) -> None:
    r"""Refuses an entry that does not describe a transform."""

    check_entries({"name": entry.get("name")}, {"name": NAME}, "transform: ")
    check_entries(entry, ENTRIES[entry["name"]], "transform: ")
    form = entry.get("form")
    if form is not None:
        check_entries({"name": form.get("name")}, {"name": FORM}, "transform: form: ")
        check_entries(form, ENTRIES[form["name"]], "transform: form: ")


def take_transform(
    tensors: dict[str, Tensor], entry: Json | None, shape: Sequence[int], trust: bool = False
) -> Transform | None:
    r"""Removes the tensors of a transform from those of a file, and returns the transform, if there is one.

    Arguments:
        tensors: The tensors of the file.
        entry: The entry of the card, after its check.
        shape: The shape of one state, or () if it is not known.
        trust: Whether a constructor of an autoencoder that is not registered is imported and called.
    """

    if entry is None:
        return None
    names = [name for name in tensors if name.startswith(PREFIX)]
    found = {name.removeprefix(PREFIX): tensors.pop(name) for name in names}
    weights = {n.removeprefix(CODER): found.pop(n) for n in [*found] if n.startswith(CODER)}
    wanted = {"mean", "std"} if entry["name"] in ("Standardized", "Latent") else set()
    if set(found) != wanted or (weights and entry["name"] != "Latent"):
        listed = ", ".join(sorted(wanted)) or "none"
        raise ValueError(
            f"transform: its tensors must be {listed}, but are {', '.join(found) or 'none'}"
        )
    coded = entry["name"] == "Latent"
    transform = _latent(entry, found, weights, trust) if coded else _built(entry, found)
    if shape and transform.shape not in (None, tuple(shape)):
        raise ValueError(f"transform: its states have shape {transform.shape}, not {tuple(shape)}")
    if shape and not coded:
        device = "cpu" if transform.whole else "meta"
        transform.outside(torch.zeros(1, *shape, device=device))  # raises if the shapes do not fit
    return transform


def _latent(
    entry: Json, found: dict[str, Tensor], weights: dict[str, Tensor], trust: bool
) -> Latent:
    r"""The latent space of the autoencoder of a card, after passing zeros through it."""

    network = {"name": entry["autoencoder"], "settings": entry["settings"]}
    coder = build_network({"network": network}, weights, trust).requires_grad_(False)
    _check_real(found)
    transform = Latent(coder, entry["data_shape"], found["mean"], found["std"])
    data = torch.zeros(1, *transform.data_shape)
    again = transform.outside(transform.inside("data", data))
    if again.shape != data.shape:
        raise ValueError(
            f"transform: its autoencoder decodes to {tuple(again.shape[1:])}, not {transform.data_shape}"
        )
    return transform


def _check_real(found: dict[str, Tensor]) -> None:
    for name, value in found.items():
        if not value.is_floating_point():
            raise ValueError(f"transform: {name!r} must hold real numbers, not {value.dtype}")


def _built(entry: Json, found: dict[str, Tensor]) -> Transform:
    if entry["name"] == "ComplexPairs":
        return ComplexPairs()
    if entry["name"] == "NamedParts":
        return NamedParts(entry["shapes"])
    if entry["name"] == "Bits":
        return Bits(entry["count"], entry["gray"], entry["shape"])
    _check_real(found)
    whole_map = Standardized(found["mean"], found["std"])  # which checks them
    if entry["form"] is not None:
        whole_map.form = _built(entry["form"], {})
        whole_map.shape = whole_map.form.shape
    return whole_map


def without_form(network: object, transform: Transform | None) -> tuple[object, bool]:
    r"""Returns the network of the user's form of the data inside one of states, and whether there is one.

    Raises:
        ValueError: If its form is not that of the transform.
    """

    if not isinstance(network, Around):
        return network, False
    form = _form(transform)
    if form is None or form.described != network.form.described:
        raise ValueError(
            f"the network takes data in the form of {network.form!r}, so model.transform must have this form, but "
            f"is {transform!r}"
        )
    return network.network, True


def in_form(network: nn.Module, transform: Transform | None) -> nn.Module:
    r"""Returns the network of states around one of the form of a transform."""

    form = _form(transform)
    if not isinstance(form, ComplexPairs | NamedParts):
        raise ValueError("network: 'form' must be false where the transform has no form")
    around = form.network(network)
    assert isinstance(around, nn.Module)
    return around


def _form(transform: Transform | None) -> Transform | None:
    return transform.form if isinstance(transform, Standardized) else transform
