r"""Models named on the command line: embedded, in files, or objects of the user's own Python code."""

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import nn

import solvers

from .. import zoo
from ..models.score_model import ScoreModel

T = TypeVar("T")
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (
    torch.float64, torch.float32, torch.bfloat16, torch.float16
)}  # fmt: skip
OWN: set[Path] = set()  # folders of code that the command line named
INSTALLED = (Path(solvers.__file__).parent, Path(__file__).parents[1])


def opened(name: str, trust: bool = False, dtype: str | None = None) -> ScoreModel:
    r"""Returns the model that a command names.

    Arguments:
        name: An embedded model, a file or folder, or an object of Python code: `file.py:object` or
            `package.module:object`. The object is a score model, or is called without arguments to make one.
        trust: Whether code that a file names is imported. What the user names is imported in any case.
        dtype: The name of the dtype of the weights.
    """

    if dtype not in (None, *DTYPES):
        raise ValueError(f"--dtype must be one of {', '.join(DTYPES)}, but is {dtype!r}.")
    wanted = None if dtype is None else DTYPES[dtype]
    where, sign, path = name.rpartition(":")
    own = where.endswith(".py") or all(part.isidentifier() for part in where.split("."))
    if not sign or not own or Path(name).exists():
        if name.endswith(".py"):
            raise ValueError(
                f"{name} is a file of Python code; name the model in it, too, as in {name}:model."
            )
        return zoo.load(name, trust=trust, dtype=wanted)
    model = _model(name, _found(_module(where), where, path))
    return model if wanted is None else model.to(wanted)


def object_of(name: str) -> object:
    r"""Returns an object of the user's Python code: `file.py:object` or `package.module:object`."""

    where, sign, path = name.rpartition(":")
    if not sign:
        raise ValueError(f"{name!r} must name an object of Python code, as in file.py:object.")
    return _found(_module(where), where, path)


def _module(where: str) -> ModuleType:
    r"""The module at a path to a file, or at an import path from the working directory on."""

    file = Path(where).absolute()
    folder = str(file.parent) if where.endswith(".py") else os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python file.py` does, for the modules beside it
    OWN.add(Path(folder))
    importlib.invalidate_caches()
    with blamed(where):
        return _of_file(file) if where.endswith(".py") else importlib.import_module(where)


def _of_file(file: Path) -> ModuleType:
    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}.")
    known = sys.modules.get(file.stem)
    if known is not None and getattr(known, "__file__", None) == str(file):
        return known
    if known is not None or file.stem in sys.stdlib_module_names:
        raise ValueError(
            f"{file.name} has the name of another module, {file.stem}, which is in use; rename the file."
        )
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # by which classes in it are found
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[file.stem]
        raise
    return module


def _found(module: ModuleType, where: str, path: str) -> object:
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{where} has no {path!r}; it has: {_listed(module) or 'nothing'}.")
        found = getattr(found, part)
    return found


def _listed(module: ModuleType) -> str:
    r"""The names in a module that may lead to models: score models, and what it defines and can be called."""

    known = {n: value for n, value in vars(module).items() if not n.startswith("_")}
    return ", ".join(
        name
        for name, value in known.items()
        if isinstance(value, ScoreModel)
        or (callable(value) and getattr(value, "__module__", None) == module.__name__)
    )


def _model(name: str, found: object) -> ScoreModel:
    r"""A score model from the object that was named."""

    if not isinstance(found, nn.Module) and callable(found):
        found = _called(name, found)
    if isinstance(found, ScoreModel):
        return found
    if isinstance(found, nn.Module):
        raise ValueError(
            f"{name} is a network, a {type(found).__name__}, and no score model; wrap it there, as in model = "
            "ss.NetworkScore(network, ss.VP(), predicts='noise')."
        )
    raise ValueError(
        f"{name} must be a score model, or a function without arguments that returns one, but is a "
        f"{type(found).__name__}."
    )


def _called(name: str, make: Callable[..., T]) -> T:
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise ValueError(
            f"{name} must take no arguments, or have defaults for all of them: {error}."
        ) from None
    except ValueError:  # a built-in function without a signature
        pass
    with blamed(name):
        return make()


@contextmanager
def blamed(name: str) -> Iterator[None]:
    r"""Turns errors of the user's code in its block into a sentence with file and line."""

    try:
        yield
    except (Exception, SystemExit) as error:
        place = place_of(error)
        if isinstance(error, ModuleNotFoundError) and place is None:
            raise ValueError(
                f"there is no module {error.name!r} to import from {os.getcwd()}."
            ) from error
        if place is None:
            raise
        raise ValueError(f"{name} fails in {place}.") from error


def place_of(error: BaseException) -> str | None:
    r"""Returns file, line and words of an error in code that the command line named, and `None` for others."""

    words = f"{type(error).__name__}: {error}".removesuffix(".")
    if isinstance(error, SystemExit):
        words = (
            "it ends the program when it is imported; put this below `if __name__ == '__main__':`"
        )
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if OWN and _is_own(Path(frame.filename)):
            return f"{frame.filename}, line {frame.lineno}: {words}"
    return None


def _is_own(file: Path) -> bool:
    r"""Whether a file of code is the user's: in a folder of what was named, and of no installed package."""

    if "site-packages" in file.parts or any(map(file.is_relative_to, INSTALLED)):
        return False
    return any(map(file.is_relative_to, OWN))
