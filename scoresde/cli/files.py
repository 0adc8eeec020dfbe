r"""Arrays in and out of files: npz, npy and png. Nothing in a file is executed."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..adapters import Autoencoder, pictures
from ..doors.arrays import open_arrays as arrays_in
from ..files import replacing
from ..models.latent import Latent
from ..models.score_model import ScoreModel
from ..models.transforms import NamedParts, Standardized
from ..plots import MOVIES
from ..plots.figures import PICTURES, check_libraries
from ..runs.files import COUNTS, DENSITIES, STATES
from .tiles import read_picture, write_picture

END = 2**20  # bytes at either end of a file that identify it
SUFFIXES = (".npz", ".npy", ".png")
ENTRIES = {"x", "label", "pictures", "provenance", "times", "reached", "status", "memory", *COUNTS, *STATES,
           *DENSITIES}  # of the files of samples  # fmt: skip
DRAWN = (*PICTURES, *MOVIES)  # which need more libraries than the command line


def check_suffix(file: Path) -> None:
    r"""Refuses a file with an unknown suffix."""

    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file} must end in one of {', '.join(SUFFIXES)}, not {file.suffix!r}.")


def check_out(*files: Path | None, suffixes: tuple[str, ...] = (), folder: bool = False) -> None:
    r"""Refuses files that cannot be written, before any work is done.

    Arguments:
        files: The files, or `None`.
        suffixes: The suffixes that they may have.
        folder: Whether the file is to be the folder of a job, which checks it itself.
    """

    for file in filter(None, () if folder else files):
        if suffixes and file.suffix not in suffixes:
            raise ValueError(
                f"{file} must end in one of {', '.join(suffixes)}, not {file.suffix!r}."
            )
        if file.suffix in DRAWN:
            check_libraries()
        if file.is_dir():
            raise ValueError(f"{file} is a folder; pass the name of a file in it.")
        above = next(parent for parent in file.absolute().parents if parent.exists())
        try:
            with tempfile.TemporaryFile(dir=above):
                pass
            if file.exists():
                file.open("ab").close()
        except OSError as error:
            raise ValueError(f"{file} cannot be written: {error.strerror}.") from None


def read_array(file: Path, model: ScoreModel) -> tuple[Tensor, Tensor | None]:
    r"""Returns data, with shape (B, *), and labels if the file has them.

    Arguments:
        file: An npy array, an npz archive with the entry `x`, or with the parts of the model's data by name, and
            optionally `label`, or a png picture; see :func:`scoresde.cli.tiles.read_picture`.
        model: The model that the data is for.

    Returns:
        Data in the user's form, where named parts are joined, and labels.
    """

    check_form(model, file)
    if file.suffix == ".png":
        return read_picture(file, model), None
    arrays, transform = open_arrays(file), model.transform
    if {*map(str, arrays.get("status", ()))} - {"ok"}:
        raise ValueError(
            f"{file} holds a run that did not reach its end, and so no data; `scoresde resume` goes on with it."
        )
    parts = {} if transform is None else transform.parts
    named = bool(parts) and set(parts) <= set(arrays)
    wanted = f"no entry 'x', nor all of {', '.join(parts)}" if parts else "no entry 'x'"
    if "x" not in arrays and not named:
        raise ValueError(f"{file} has {wanted}, but: {', '.join(arrays)}.")
    for name in {*(parts if named else ("x",)), "label"} & arrays.keys():
        _check_kind(
            name, arrays[name], file, complex_too=name != "label" and transform is not None
        )
    label = torch.from_numpy(arrays["label"]) if "label" in arrays else None
    if named and transform is not None:
        given = {name: torch.from_numpy(arrays[name]) for name in parts}
        return transform.pack(str(file), given), label
    return torch.from_numpy(arrays["x"]), label


def _check_kind(name: str, array: np.ndarray, file: Path, complex_too: bool) -> None:
    r"""Refuses an entry of a file that does not hold numbers, or complex ones where the model takes none."""

    if array.dtype.kind not in ("fiubc" if complex_too else "fiub"):
        cure = "; complex data needs a model with model.transform = ss.ComplexPairs()"
        raise ValueError(
            f"the entry {name!r} of {file} must hold numbers, not {array.dtype}"
            f"{cure if array.dtype.kind == 'c' else ''}."
        )


def check_form(model: ScoreModel, *files: Path | None) -> None:
    r"""Refuses pictures of data that has units of its own, complex numbers or named parts."""

    form = model.transform
    points = isinstance(form, Standardized) and form.form is None and model.shape in ((2,), (3,))
    drawn = form is None or points or isinstance(form, Latent)
    for file in filter(None, () if drawn else files):
        if file.suffix in (".png", *DRAWN):
            raise ValueError(
                f"{file} would be a picture of numbers from -1 to 1, but the data of this model has the form of "
                f"{form!r}; use npz or npy."
            )


def parts_of(model: ScoreModel, x: Tensor) -> dict[str, np.ndarray]:
    r"""Returns the named parts of samples, for a file beside them, unless a name is that of another entry."""

    form = getattr(model.transform, "form", None) or model.transform
    if not isinstance(form, NamedParts) or ENTRIES & set(form.parts):
        return {}
    return {name: part.cpu().numpy() for name, part in form.split(x).items()}


def read_rows(file: Path, model: ScoreModel) -> tuple[np.ndarray, np.ndarray | None]:
    r"""Returns data and labels as :func:`read_array` does; npy files stay on the disk."""

    if file.suffix == ".npy" and file.exists():
        try:
            return np.load(file, mmap_mode="r", allow_pickle=False), None
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{file} is not an array file, or is damaged ({error}).") from None
    x, label = read_array(file, model)
    return x.numpy(), None if label is None else label.numpy()


def digest(file: Path) -> str:
    r"""Returns a digest that identifies a file: its size, and a hash of its first and last megabyte."""

    size, hashed = file.stat().st_size, hashlib.sha256()
    with file.open("rb") as handle:
        hashed.update(handle.read(END))
        handle.seek(max(0, size - END))
        hashed.update(handle.read(END))
    return f"{size} bytes, {hashed.hexdigest()[:16]}"


def write_array(file: Path, x: Tensor, **others: object) -> None:
    r"""Writes samples, and per-sample values if the format can hold them."""

    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".png":
        write_picture(file, x)
    elif file.suffix == ".npy":
        np.save(file, x.cpu().numpy(), allow_pickle=False)
    else:
        arrays: dict[str, Any] = {  # which savez takes beside options
            name: np.asarray(value) for name, value in others.items()
        }
        with replacing(file) as part, part.open("wb") as handle:
            np.savez(handle, **{**arrays, "x": x.cpu().numpy()})


def decoded(model: ScoreModel, x: Tensor) -> dict[str, np.ndarray]:
    r"""Returns the pictures of samples that are latents, in [-1, 1], for a file beside them."""

    if not any(isinstance(part, Autoencoder) for part in model.modules()):
        return {}
    return {"pictures": pictures(model, x).cpu().numpy()}


def open_arrays(file: Path) -> dict[str, np.ndarray]:
    r"""Returns the arrays of a file by name; that of an npy file is `x`."""

    check_suffix(file)
    return arrays_in(file)
