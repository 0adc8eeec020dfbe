r"""What the page shows: the picture and the figures that the lines of a view make."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .choices import Choices
from .lines import VIEWS, check_view, command_lines, last_state, model_lines, script, view_lines
from .stopping import Stoppable
from .warned import heard

KEPT = 16  # measurements, of which only the drawing is done again


@dataclass(frozen=True)
class View:
    r"""A view of one set of choices.

    Arguments:
        picture: The file of the picture.
        figures: The figures by name.
        model: The content of model.py, which the command reads.
        script: The Python lines that make the same picture and figures.
        command: The command that makes them.
        last: The number of the last state.
        warnings: The warnings of the measurement.
    """

    picture: Path
    figures: dict[str, float | None]
    model: str
    script: str
    command: str
    last: int
    warnings: tuple[str, ...] = ()


def view(choices: Choices, folder: Path) -> View:
    r"""Returns a view, whose picture is drawn into a folder.

    Raises:
        ValueError, TypeError: If the choices do not fit together.
        SolverError: If the run fails.
        Stopped: If the user stops it.
    """

    check_view(choices)
    picture, model = folder / VIEWS[choices.show].name, model_lines(choices)
    run, draw = view_lines(choices, str(picture))
    names = {**_measured(model, run)}
    exec(draw, names)
    return View(
        picture=picture,
        figures=names["figures"],
        model=model,
        script=script(choices),
        command=command_lines(choices),
        last=last_state(choices),
        warnings=names["warnings"],
    )


@lru_cache(maxsize=KEPT)
def _measured(model: str, run: str) -> dict[str, Any]:
    r"""The names that the lines of a model and a measurement define, and its warnings."""

    names: dict[str, Any] = {}
    exec(model, names)  # lines of ours, with numbers and quoted words of the user
    names["model"] = Stoppable(names["model"])
    with heard() as words:
        exec(run, names)
    return {**names, "warnings": tuple(words)}
