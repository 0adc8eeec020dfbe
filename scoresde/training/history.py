r"""The history of a training: entries in memory, as JSON lines in a file, and for TensorBoard."""

import json
from pathlib import Path
from typing import Any

from ..files import Json, replacing

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
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        known = [json.loads(line) for line in lines if line.endswith("}")]  # the last may be cut
        self.entries = [entry for entry in known if entry["step"] <= step]
        with replacing(self.file) as part:
            part.write_text("".join(json.dumps(entry) + "\n" for entry in self.entries))

    def add(self, entry: Json) -> None:
        r"""Adds an entry."""

        self.entries.append(entry)
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        if self.board is not None:
            for name, value in entry.items():
                if isinstance(value, float):
                    self.board.add_scalar(name, value, entry["step"])
            self.board.flush()


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
