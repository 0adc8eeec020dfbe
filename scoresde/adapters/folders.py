r"""Folders that `save_pretrained` of diffusers wrote, opened without executing anything in them.

Each folder is inspected first: its classes must be exported by diffusers or transformers, no file may point out
of it, and its weights must be safetensors that match its config. Only then does diffusers open it.
"""

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..files import Json, shortened
from .weights import SPARE, Shapes, shapes_in, without_memory

LIBRARIES = ("diffusers", "transformers")
OURS = [
    "scoresde.adapters.diffusers_scheduler",
    "ScoreSDEScheduler",
]  # the one class of ours in folders
OLDEST = (0, 42)  # the first version that refuses code in folders by itself too
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
CHECKERS = ("safety_checker", "feature_extractor")  # of finished images, which are not loaded
LOCAL = {"local_files_only": True, "use_safetensors": True}


def is_folder(path: Path) -> bool:
    r"""Whether a folder is one that `save_pretrained` of diffusers wrote."""

    if (path / "model_index.json").is_file():
        return True
    config = path / "config.json"
    return config.is_file() and "_class_name" in _read(config)


def opened(name: str, folder: str | Path) -> object:
    r"""Returns the pipeline, network or scheduler of a folder, which messages call by a name.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it holds code, pickles, damaged weights, or classes that diffusers does not export.
        ImportError: If diffusers is missing or too old.
    """

    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(
            f"{name} must be a folder, but there is no folder {str(path)!r}; of a model of the hub, pass the "
            "pipeline that DiffusionPipeline.from_pretrained returns."
        )
    for file, opener in (
        ("model_index.json", _pipeline),
        ("config.json", _network),
        ("scheduler_config.json", _scheduler),
    ):
        if (path / file).is_file():
            return opener(path, _read(path / file))
    raise ValueError(
        f"the folder {path} holds no model_index.json of a pipeline and no config.json of a network, as "
        "save_pretrained of diffusers writes them; pass the folder that holds one."
    )


def library() -> Any:
    r"""Returns diffusers.

    Raises:
        ImportError: If it is missing, or too old to open folders safely.
    """

    try:
        known = version("diffusers")
    except PackageNotFoundError:
        raise ImportError(
            "folders of diffusers are opened by diffusers, which is missing: pip install diffusers."
        ) from None
    if tuple(int(part) for part in known.split(".")[:2]) < OLDEST:
        least = ".".join(map(str, OLDEST))
        raise ImportError(
            f"folders are opened by diffusers {least} or later, but {known} is installed: "
            "pip install -U diffusers."
        )
    return import_module("diffusers")


def exported(name: object, kind: str) -> Any:
    r"""Returns a class that diffusers exports by its name.

    Arguments:
        name: The name.
        kind: What it must be a subclass of, such as "ModelMixin".
    """

    diffusers = library()
    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not isinstance(found, type) or not issubclass(found, getattr(diffusers, kind)):
        raise ValueError(
            f"the class {shortened(name)} is no {kind} that diffusers exports; make the object by code that you "
            "trust, and pass it."
        )
    return found


# ---- what a folder holds


def _pipeline(path: Path, index: Json) -> object:
    for name, value in index.items():
        if name == "_class_name":
            _check_class(path, name, value)
        elif not name.startswith("_") and name not in CHECKERS and isinstance(value, list | tuple):
            _check_component(path, name, value)
    kind = exported(index.get("_class_name"), "DiffusionPipeline")
    for name, value in index.items():
        folder = path / name
        if (
            isinstance(value, list)
            and value[0] == "diffusers"
            and (folder / "config.json").exists()
        ):
            _check_fits(folder, _read(folder / "config.json"))
    closed: Json = {name: None for name in CHECKERS if name in index}
    if "requires_safety_checker" in index:
        closed["requires_safety_checker"] = False
    with _in_words(path):
        return kind.from_pretrained(str(path.absolute()), **LOCAL, **closed)


def _network(path: Path, config: Json) -> object:
    _check_files(path)
    _check_class(path, "_class_name", config.get("_class_name"))
    _check_fits(path, config)
    with _in_words(path):
        kind = exported(config["_class_name"], "ModelMixin")
        return kind.from_pretrained(str(path.absolute()), **LOCAL)


def _scheduler(path: Path, config: Json) -> object:
    _check_class(path, "_class_name", config.get("_class_name"))
    with _in_words(path):
        return exported(config["_class_name"], "SchedulerMixin").from_config(dict(config))


# ---- what is refused


def _check_class(path: Path, name: str, value: object) -> None:
    if not isinstance(value, str) or not value.isidentifier():
        raise ValueError(
            f"{path} names code of its own by {name}: {shortened(value)}; only classes that diffusers exports are "
            "opened. If you trust it, open it by diffusers and pass the object."
        )


def _check_component(path: Path, name: str, value: Any) -> None:
    r"""Refuses a component of a pipeline that is no class of a known library, or whose files are not safe."""

    if not name.isidentifier():
        raise ValueError(
            f"{path} has a component {shortened(name)}, which is no name of a folder in it."
        )
    if list(value) == OURS:
        import_module(OURS[0])  # as diffusers wants it before it opens the folder
    elif len(value) != 2 or (value[0] is not None and value[0] not in LIBRARIES):
        raise ValueError(
            f"the component {name!r} of {path} is {shortened(value)}, but only classes of "
            f"{' and '.join(LIBRARIES)} are opened. If you trust it, open the pipeline by diffusers and pass it."
        )
    if value[0] is None:
        return
    _check_class(path, name, value[1])
    if not (path / name).is_dir():
        raise ValueError(
            f"the component {name!r} of {path} is missing; download the folder again."
        )
    if value[0] == "transformers" and importlib.util.find_spec("transformers") is None:
        raise ImportError(
            f"the component {name!r} of {path} is one of transformers, which is missing: pip install transformers."
        )
    _check_files(path / name)


def _check_files(folder: Path) -> None:
    r"""Refuses pickles, damaged weights, and files that lead to code or out of the folder."""

    files = [file for file in sorted(folder.iterdir()) if file.is_file()]
    safe = [file for file in files if file.suffix == ".safetensors"]
    pickles = [file for file in files if file.suffix in PICKLES]
    if pickles and not safe:
        raise ValueError(
            f"{pickles[0]} is a pickle, which may run code when it is opened; pass a folder with safetensors, as "
            "save_pretrained(folder, safe_serialization=True) writes it."
        )
    for file in files:
        if file.suffix == ".json":
            _check_json(file)
    for file in safe:
        shapes_in(file)


def _check_json(file: Path) -> None:
    content = _read(file) if file.stat().st_size < 2**20 or "index" in file.name else {}
    if "auto_map" in content:
        raise ValueError(
            f"{file} names code of its own by auto_map; only classes that libraries export are opened. If you "
            "trust it, open it by diffusers and pass the object."
        )
    parts = content.get("weight_map", {})
    for part in parts.values() if isinstance(parts, dict) else [parts]:
        if not isinstance(part, str) or Path(part).name != part or "\\" in part:
            raise ValueError(
                f"{file} names the weights {shortened(part)}, which is no file beside it; download the "
                "folder again."
            )


def _check_fits(folder: Path, config: Json) -> None:
    r"""Refuses a config that does not match the weights in the folder, before memory is allocated."""

    there: Shapes = {}
    for file in folder.glob("*.safetensors"):
        there.update(shapes_in(file))
    if not there:
        raise ValueError(f"{folder} has no weights (*.safetensors); download the folder again.")
    kind = exported(config.get("_class_name"), "ModelMixin")
    wanted = _wanted(folder, kind, config, len(there))
    for name, shape in wanted.items():
        if there.get(name, shape) != shape:
            raise ValueError(
                f"the weight {name!r} in {folder} has shape {there[name]}, but its config says {shape}; download "
                "the folder again."
            )


def _wanted(folder: Path, kind: Any, config: Json, count: int) -> Shapes:
    r"""The shapes of a network's weights; none, if it cannot be built without memory."""

    settings = {name: value for name, value in config.items() if not name.startswith("_")}
    try:
        with without_memory(count, SPARE):
            network = kind.from_config(settings)
    except (RuntimeError, NotImplementedError) as error:
        if "meta" in str(error):  # it computes with numbers when it is built
            return {}
        raise
    except (ValueError, TypeError, KeyError, AttributeError, MemoryError) as error:
        raise ValueError(
            f"{folder / 'config.json'} describes no network: {_first(error)}."
        ) from error
    return {name: tuple(weight.shape) for name, weight in network.state_dict().items()}


def _first(error: Exception) -> str:
    r"""The first line of an error's message."""

    return next(iter(str(error).splitlines()), type(error).__name__).removesuffix(".")


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    r"""Adds to errors inside that the folder could not be opened."""

    try:
        yield
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RuntimeError,
        OSError,
        MemoryError,
    ) as error:
        raise ValueError(f"{path} cannot be opened: {_first(error)}.") from error


def _read(file: Path) -> Json:
    try:
        content = json.loads(file.read_text())
    except (ValueError, RecursionError):  # of text that is no JSON, or nested without end
        raise ValueError(f"{file} is not JSON text; download the folder again.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no entries by name; download the folder again.")
    return content
