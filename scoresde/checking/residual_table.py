r"""The residuals of a model by noise level, as a table and a picture."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from solvers.doors.signatures import checked

from ..doors.tables import html_table

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = {
    "change": "change",
    "martingale": "martingale",
    "flow": "flow",
    "fokker_planck": "Fokker-Planck",
    "curl": "curl",
    "continued": "continued",
}
DRAWN = ("martingale", "flow", "fokker_planck", "curl")


class Squared(NamedTuple):
    r"""A mean square over samples and entries.

    Arguments:
        mean: The mean, which is unbiased, so it can be negative if it is small.
        stderr: Its standard error over samples.
    """

    mean: float
    stderr: float

    @staticmethod
    def of(squares: Tensor) -> "Squared":
        r"""Returns the mean of squares, with shape (B,), and its standard error."""

        return Squared(float(squares.mean()), float(squares.std()) / math.sqrt(len(squares)))

    @property
    def root(self) -> float:
        r"""The root of the mean, or 0 if that is negative."""

        return math.sqrt(max(self.mean, 0.0))

    @property
    def noise(self) -> float:
        r"""The largest root that is not told from 0: that of two standard errors."""

        return math.sqrt(2 * self.stderr)

    def __str__(self) -> str:
        if self.mean <= 2 * self.stderr:
            return f"< {self.noise + self.root:.2g}"
        return f"{self.root:.3g} ± {self.stderr / (2 * self.root):.1g}"


@dataclass(frozen=True)
class LevelResiduals:
    r"""The mean squares of the residuals at a noise level, in squared units of the data per unit of log-SNR.

    Arguments:
        noise_level: The noise level :math:`\sigma / \alpha`.
        t: The time.
        continued: That of the martingale residual by continuations, without derivatives.
        change: That of the derivative of the estimate by the log-SNR, for scale.
        martingale: That of the martingale residual.
        flow: That of the flow residual.
        fokker_planck: That of the Fokker-Planck residual.
        curl: That of the difference of the martingale and the Fokker-Planck residual.
    """

    noise_level: float
    t: float
    continued: Squared
    change: Squared | None = None
    martingale: Squared | None = None
    flow: Squared | None = None
    fokker_planck: Squared | None = None
    curl: Squared | None = None


@dataclass(frozen=True)
class Residuals:
    r"""The residuals of a model, by noise level. Tables show roots of mean squares.

    Arguments:
        model: The model in words.
        levels: The mean squares at each noise level.

    Examples:
        >>> found = ss.residuals(model, model.data(16), levels=[0.5])
        >>> list(found.entries[0])[:3]
        ['noise level', 't', 'change']
    """

    model: str
    levels: tuple[LevelResiduals, ...]

    @property
    def entries(self) -> list[dict[str, str]]:
        r"""The rows of the table, in words."""

        return [_entry(level) for level in self.levels]

    def table(self) -> "Table":
        r"""Returns the table for a terminal, as rich prints it."""

        from rich.table import Table  # of the extra "cli"

        table = Table(box=None)
        for name in self.entries[0]:
            table.add_column(name)
        for entry in self.entries:
            table.add_row(*entry.values())
        return table

    @checked
    def plot(self, file: str | Path) -> Path:
        r"""Draws the residuals, relative to the change of the estimate, by noise level.

        Arguments:
            file: The file to write.
        """

        from .. import plots  # which asks for matplotlib

        lines = {}
        for name in DRAWN:
            points = []
            for level in self.levels:
                found, scale = getattr(level, name), level.change
                if found is None or scale is None:
                    raise ValueError(
                        "the picture is of residuals with derivatives; leave out derivatives=False."
                    )
                if found.mean > 0 and scale.mean > 0:
                    points.append((level.noise_level, found.root / scale.root))
            lines[COLUMNS[name]] = points
        plots.curves(file, lines, "noise level", "residual / change of the estimate")
        return Path(file)

    def __str__(self) -> str:
        rows = [list(self.entries[0]), *(list(entry.values()) for entry in self.entries)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(word.rjust(width) for word, width in zip(row, widths, strict=True))
            for row in rows
        ]
        return "\n".join([self.model, *lines])

    def __repr__(self) -> str:
        return (
            f"Residuals({self.model}, {len(self.levels)} noise levels; print(found) for the table)"
        )

    def _repr_html_(self) -> str:
        return html_table(self.entries, self.model)


def _entry(level: LevelResiduals) -> dict[str, str]:
    found = {"noise level": f"{level.noise_level:.3g}", "t": f"{level.t:.4g}"}
    for name, words in COLUMNS.items():
        value = getattr(level, name)
        if value is not None:
            found[words] = f"{value.root:.3g}" if name == "change" else str(value)
    return found
