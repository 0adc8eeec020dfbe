r"""The result of a check: a table, and what is wrong in sentences."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from solvers.doors.signatures import checked

from ..doors.tables import html_table
from ..runs.health import Health
from .meanings import Meaning
from .statistics import Level

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class ScoreCheck:
    r"""The result of a check of a model on data.

    Arguments:
        model: The model in words.
        levels: The figures at each noise level.
        findings: What is wrong, in sentences that say what to write instead.
        health: How answers to the same rows differ.
        meanings: What the network may mean, the best fit first and the declared meaning last; empty for models
            that are not those of a network.

    Examples:
        >>> check = ss.check_score(model, model.data(64))
        >>> check.ok, check.findings
        (True, ())
    """

    model: str
    levels: tuple[Level, ...]
    findings: tuple[str, ...]
    health: Health | None = None
    meanings: tuple[Meaning, ...] = ()

    @property
    def ok(self) -> bool:
        r"""Whether nothing was found to be wrong."""

        return not self.findings

    @property
    def entries(self) -> list[dict[str, str]]:
        r"""The rows of the table, in words."""

        compared = any(level.other is not None for level in self.levels)
        return [_entry(level, compared) for level in self.levels]

    def table(self) -> "Table":
        r"""Returns the table for a terminal, as rich prints it."""

        from rich.table import Table  # of the extra "cli"

        table = Table(box=None, caption=self._said, caption_justify="left")
        for name in self.entries[0] if self.levels else ():
            table.add_column(name)
        for entry in self.entries:
            table.add_row(*entry.values())
        return table

    @checked
    def plot(self, file: str | Path) -> Path:
        r"""Draws the error against that of the best linear denoiser, by noise level.

        Arguments:
            file: The file to write.
        """

        from .. import plots  # which asks for matplotlib

        lines = {"model": [(level.noise_level, level.error) for level in self.levels]}
        others = [(one.noise_level, one.other) for one in self.levels if one.other is not None]
        if others:
            lines["against"] = others
        plots.errors(Path(file), {name: _finite(points) for name, points in lines.items()})
        return Path(file)

    def __str__(self) -> str:
        rows = [list(self.entries[0]), *(list(entry.values()) for entry in self.entries)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(word.rjust(width) for word, width in zip(row, widths, strict=True))
            for row in rows
        ]
        return "\n".join([self.model, *lines, self._said])

    def __repr__(self) -> str:
        found = "nothing is wrong" if self.ok else f"{len(self.findings)} findings"
        return f"ScoreCheck({self.model}, {found}; print(check) for the table)"

    def _repr_html_(self) -> str:
        return html_table(self.entries if self.levels else [], self.model, self._said.splitlines())

    @property
    def _said(self) -> str:
        return "\n".join(self.findings) if self.findings else "Nothing is wrong."


def _entry(level: Level, compared: bool) -> dict[str, str]:
    found = {
        "noise level": f"{level.noise_level:.3g}",
        "t": f"{level.t:.4g}",
        "error / linear": _shown(level.error),
    }
    if compared:
        found["against"] = _shown(math.nan if level.other is None else level.other)
    return {
        **found,
        "slope of data": _shown(level.slope.value),
        "slope of noise": _shown(level.noise_slope),
        "error / derivative": _shown(level.tweedie.value),
    }


def _shown(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _finite(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [point for point in points if math.isfinite(point[1])]
