r"""Files that are written whole or not at all, and JSON files that say what they hold."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    r"""Gives a file to write, which takes the other's place once all of it is written."""

    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    yield part
    part.replace(file)


def write_json(file: str | Path, kind: str, content: Mapping[str, Any]) -> Path:
    r"""Writes a JSON file of some kind."""

    with replacing(Path(file)) as part:
        part.write_text(json.dumps({"kind": kind, **content}, indent=1) + "\n")
    return Path(file)


def read_json(file: str | Path, kind: str) -> dict[str, Any]:
    r"""Returns the content of a JSON file of some kind.

    Raises:
        ValueError: If the file holds something else.
        FileNotFoundError: If there is none.
    """

    noun = kind.removesuffix(" of scoresde")
    if not Path(file).is_file():
        raise FileNotFoundError(f"there is no {noun} {str(file)!r}.")
    try:
        content = json.loads(Path(file).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError(f"{file} is not a {noun}: it is not JSON text.") from None
    if not isinstance(content, dict) or content.pop("kind", None) != kind:
        raise ValueError(f"{file} is not a {noun}, as scoresde writes it; pass another file.")
    return content
