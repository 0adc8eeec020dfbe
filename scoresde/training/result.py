r"""What a training returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from solvers.doors.signatures import checked

from ..checking.result import ScoreCheck
from ..files import Json
from ..models.network import NetworkScore

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 3  # curves of the picture


@dataclass(frozen=True, repr=False)
class Trained:
    r"""The result of a training.

    Arguments:
        model: The score model, with averaged weights.
        history: The entries of the history: the mean loss since the one before, and the loss on held-out data, by
            noise level and on average.
        card: What is known of the model: data, options, measurements.
        folder: The folder that holds all of it, or `None`.
        check: The check of the model on held-out data, or `None`.

    Examples:
        >>> images = torch.linspace(-1, 1, 32 * 16).reshape(32, 1, 4, 4).sin()
        >>> small = {"width": 8, "multipliers": [1], "blocks": 1}
        >>> trained = ss.train("UNet", images, settings=small, steps=4, batch_size=8, validation=0.25)
        >>> trained.history[-1]["step"], len(trained.levels)
        (4, 8)
    """

    model: NetworkScore
    history: Sequence[Json]
    card: Json
    folder: Path | None = None
    check: ScoreCheck | None = None

    @property
    def levels(self) -> list[tuple[float, float]]:
        r"""The noise levels, and the loss on held-out data at each, at the end."""

        known = [entry["levels"] for entry in self.history if "levels" in entry]
        return [(level, loss) for level, loss in known[-1]] if known else []

    def table(self) -> "Table":
        r"""Returns the loss on held-out data by step and noise level, as rich prints it."""

        from rich.table import Table  # of the extra "cli"

        names = ["step", "loss", *(["validation"] if self.levels else [])]
        table = Table(*names, *(f"at {level:.3g}" for level, _ in self.levels), box=None)
        for entry in self.history:
            losses = [loss for _, loss in entry.get("levels", ())]
            known = [entry["loss"], *([entry["validation"]] if losses else []), *losses]
            table.add_row(str(entry["step"]), *(f"{value:.4g}" for value in known))
        return table

    @checked
    def plot(self, file: str | Path) -> Path:
        r"""Draws the loss on held-out data by noise level, at the first, a middle and the last entry.

        Arguments:
            file: The file to write.
        """

        from .. import plots  # which asks for matplotlib

        known = [entry for entry in self.history if "levels" in entry]
        if not known:
            raise ValueError("there is no loss on held-out data to draw; train with validation=.")
        places = sorted({round(i * (len(known) - 1) / (SHOWN - 1)) for i in range(SHOWN)})
        lines = {
            f"step {known[i]['step']}": [(level, loss) for level, loss in known[i]["levels"]]
            for i in places
        }
        plots.losses(Path(file), lines)
        return Path(file)

    def __repr__(self) -> str:
        steps = self.history[-1]["step"] if self.history else 0
        where = "" if self.folder is None else f", in {self.folder}"
        return f"Trained({steps} steps, {self.model!r}{where})"
