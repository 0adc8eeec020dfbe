r"""The history of a training: entries in memory, as JSON lines in a file, and for TensorBoard."""

import json
from pathlib import Path
from typing import Any

from ..files import Json, replacing, whole
from .folder import written

FILE, BOARD = "history.jsonl", "tensorboard"


class History:
    r"""The entries of a training, which a file follows if there is a folder.

    Arguments:
        folder: The folder, or `None`.
        board: Whether TensorBoard's files are written into it, too.
    """

    def __init__(self, folder: Path | None, *, board: bool = False) -> None:
        self.file = None if folder is None else folder / FILE
        self.entries: list[Json] = []
        self.board: Any = _writer(folder) if board else None

    def begin_at(self, step: int) -> None:
        r"""Keeps the entries of a file up to a step, from which a training goes on."""

        if self.file is None:
            return
        self.entries = [entry for entry in _read(self.file) if entry["step"] <= step]
        with written(self.file), replacing(self.file) as part:
            part.write_text("".join(json.dumps(entry) + "\n" for entry in self.entries))

    def add(self, entry: Json) -> None:
        r"""Adds an entry."""

        self.entries.append(entry)
        if self.file is not None:
            with written(self.file), self.file.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        if self.board is not None:
            for name, value in entry.items():
                if isinstance(value, float):
                    self.board.add_scalar(name, value, entry["step"])
            self.board.flush()


def _read(file: Path) -> list[Json]:
    r"""The entries in a file, of which the last may be cut.

    Raises:
        ValueError: If another is damaged.
    """

    if not file.exists():
        return []
    try:
        *lines, _ = file.read_text().split("\n")
        known = [json.loads(line) for line in lines]
        fits = all(isinstance(one, dict) and whole(one.get("step")) for one in known)
    except (OSError, ValueError, RecursionError):
        fits = False
    if not fits:
        raise ValueError(
            f"{file} is no history of a training, or is damaged; mend it, or remove it to go on without its "
            "entries."
        )
    return known


def _writer(folder: Path | None) -> Any:
    if folder is None:
        raise ValueError("tensorboard=True needs out=, the folder that its files go to.")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError(
            "TensorBoard's files need tensorboard: pip install 'scoresde[tensorboard]'."
        ) from None
    return SummaryWriter(folder / BOARD)
