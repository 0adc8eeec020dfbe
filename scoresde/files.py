r"""Files that are written whole or not at all, and JSON files that state what they hold."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeGuard

Json: TypeAlias = dict[str, Any]  # named entries as json.loads returns them


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    r"""Yields a temporary file that replaces the given one once it is completely written.

    Whoever writes it, it has the permissions of a new file: safetensors would keep its files from other users.
    """

    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.unlink(missing_ok=True)
    part.touch()
    mode = part.stat().st_mode
    part.unlink()
    try:
        yield part
        if part.stat().st_mode != mode:
            part.chmod(mode)
        part.replace(file)
    except BaseException:
        if part.is_file():
            part.unlink()
        raise


def write_json(file: str | Path, kind: str, content: Mapping[str, object]) -> Path:
    r"""Writes a JSON file of the given kind."""

    with replacing(Path(file)) as part:
        part.write_text(json.dumps({"kind": kind, **content}, indent=1) + "\n")
    return Path(file)


def read_json(file: str | Path, kind: str) -> Json:
    r"""Returns the content of a JSON file of the given kind.

    Raises:
        ValueError: If the file holds something else.
        FileNotFoundError: If there is no such file.
    """

    noun = kind.removesuffix(" of scoresde")
    if not Path(file).is_file():
        raise FileNotFoundError(f"there is no {noun} {str(file)!r}.")
    try:
        content = json.loads(Path(file).read_text())
    except (ValueError, RecursionError):  # of text that is not JSON, or nested too deeply
        raise ValueError(f"{file} is not a {noun}: it is not JSON text.") from None
    if not isinstance(content, dict) or content.pop("kind", None) != kind:
        raise ValueError(f"{file} is not a {noun} written by scoresde; pass another file.")
    return content


class Entry(NamedTuple):
    r"""The requirements on an entry of a file.

    Arguments:
        words: What it must be, for the error message.
        fits: A function that returns whether a value is that.
        needed: Whether the entry is required.
    """

    words: str
    fits: Callable[[object], bool]
    needed: bool = True


def real(value: object) -> TypeGuard[float]:
    r"""Whether a value is a number other than NaN."""

    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def finite(value: object) -> TypeGuard[float]:
    r"""Whether a value is a finite number, in double precision."""

    return real(value) and abs(value) <= sys.float_info.max


def whole(value: object) -> TypeGuard[int]:
    r"""Whether a value is a whole number of at least 0."""

    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def text(value: object) -> TypeGuard[str]:
    r"""Whether a value is text."""

    return isinstance(value, str)


def mapping(value: object) -> TypeGuard[Json]:
    r"""Whether a value maps names to values."""

    return isinstance(value, dict)


def pair(value: object) -> bool:
    r"""Whether a value is a finite number with its error, which may be unknown."""

    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    return finite(value[0]) and isinstance(value[1], int | float)


def or_none(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    r"""Returns a function that returns whether a value is `None`, or fits."""

    return lambda value: value is None or fits(value)


def each(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    r"""Returns a function that returns whether all values of a list or a mapping fit."""

    return lambda value: (
        isinstance(value, dict | list | tuple)
        and all(fits(v) for v in (value.values() if isinstance(value, dict) else value))
    )


def check_entries(content: object, entries: Mapping[str, Entry], where: str = "") -> None:
    r"""Refuses content with a missing, unknown or unfit entry.

    Arguments:
        content: The content of a file.
        entries: The required and optional entries.
        where: The part of the file that this is, such as "row 3: ".

    Raises:
        ValueError: If an entry does not fit; the message names it.
    """

    if not isinstance(content, dict):
        raise ValueError(f"{where}it must hold named entries, but is {shortened(content)}")
    for name, entry in entries.items():
        if name not in content:
            if entry.needed:
                raise ValueError(f"{where}it lacks {name!r}")
        elif not entry.fits(content[name]):
            raise ValueError(
                f"{where}{name!r} must be {entry.words}, but is {shortened(content[name])}"
            )
    unknown = [name for name in content if name not in entries]
    if unknown:
        raise ValueError(f"{where}it has the unknown entry {unknown[0]!r}")


def shortened(value: object) -> str:
    r"""Returns a short form of a value."""

    words = repr(value)
    return words if len(words) <= 60 else f"{words[:57]}..."


@contextmanager
def damaged(file: str | Path, noun: str) -> Iterator[None]:
    r"""Turns errors about entries in its block into one that says that the file is damaged."""

    try:
        yield
    except (ValueError, TypeError) as error:
        words = str(error).removesuffix(".")
        raise ValueError(
            f"{file} is not a {noun}, or was damaged or edited: {words}; make it again."
        ) from None
