r"""The result of a comparison: tables, a report, and its file."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from solvers.doors.signatures import checked

from ..doors.tables import html_table
from ..files import damaged, read_json, write_json
from ..models.conditions import Condition
from ..models.score_model import ScoreModel
from ..runs.continued import check_same
from .content import check_content
from .measured import Measured
from .row import Row
from .tables import entries, notes

if TYPE_CHECKING:
    from rich.table import Table

KIND = "comparison of scoresde"


@dataclass(frozen=True)
class Comparison(Measured):
    r"""The result of a comparison.

    Arguments:
        setup: Model, process, data, samples, seed, metrics and options.
        references: How the exact samples were made, and the distance of a looser run from them.
        floors: The distances between parts of the data, with standard deviations.
        exact: The distances of the exact flow's samples from the data, with standard errors.
        rows: The measurements, one for each solver, grid and budget.

    Examples:
        >>> c = ss.compare(model, ["ddim", "dpmpp_2m"], [4], samples=4, progress=False)
        >>> [row.solver for row in c.rows], c.best(budget=4).solver.name
        (['ddim', 'dpmpp_2m'], 'dpmpp_2m')
    """

    def table(self) -> "Table":
        r"""Returns the table for a terminal, as a rich table."""

        from rich.table import Table  # from the extra "cli"

        table = Table(box=None, caption="\n".join(notes(self)), caption_justify="left")
        for name in entries(self)[0] if self.rows else ():
            table.add_column(name, no_wrap=name != "note")
        for entry in entries(self):
            table.add_row(*entry.values())
        return table

    def markdown(self) -> str:
        r"""Returns the table as Markdown."""

        head = list(entries(self)[0]) if self.rows else []
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(entry.values()) + " |" for entry in entries(self)]
        return "\n".join([*lines, "", *(f"- {words}" for words in notes(self))]) + "\n"

    def __repr__(self) -> str:
        failed = sum(row.status != "ok" for row in self.rows)
        return (
            f"Comparison({len(self.rows)} runs{f', {failed} failed' if failed else ''}, of "
            f"{self.setup.get('samples')} samples, by {', '.join(self.setup.get('metrics', ()))}; "
            "print(c.markdown()) for the table)"
        )

    def _repr_html_(self) -> str:
        return html_table(entries(self), repr(self).split(";")[0] + ")", notes(self))

    def _repr_markdown_(self) -> str:
        return self.markdown()

    @checked
    def html(
        self, file: str | Path, model: ScoreModel | None = None, **condition: Condition
    ) -> Path:
        r"""Writes a self-contained HTML report.

        Arguments:
            file: The file to write.
            model: The model, to show samples of each solver: images, or points of two or three entries.
            condition: Its conditions, each with leading size 1.
        """

        from .report import write_report  # which asks for matplotlib

        return write_report(self, Path(file), model, **condition)

    @checked
    def save(self, file: str | Path) -> Path:
        r"""Writes the comparison as JSON, whole or not at all."""

        own = {
            row.solver for row in self.rows if not isinstance(row.options.get("solver", ""), str)
        }
        if own:
            raise ValueError(
                f"a file holds only names of solvers, and {', '.join(sorted(own))} differs from the "
                "solver of that name in the catalogue; leave its rows out, or keep markdown()."
            )
        return write_json(file, KIND, dataclasses.asdict(self))

    @staticmethod
    @checked
    def load(file: str | Path) -> "Comparison":
        r"""Reads a comparison.

        Raises:
            ValueError: If the file does not hold a comparison.
        """

        content = read_json(file, KIND)
        with damaged(file, "comparison"):
            check_content(content)
            rows = content.pop("rows")
            return Comparison(**content, rows=tuple(Row(**row) for row in rows))

    @staticmethod
    def resume(file: str | Path | None, asked: "Comparison", model: ScoreModel) -> "Comparison":
        r"""Returns the stored rows of a comparison, after checking that the file belongs to it."""

        if file is None or not Path(file).exists():
            return asked
        if Path(file).is_dir():
            raise ValueError(f"file must be the name of a JSON file, but {file} is a folder.")
        known = Comparison.load(file)
        check_same(file, "comparison", known.setup, asked.setup, model)
        return dataclasses.replace(known, setup=asked.setup)
