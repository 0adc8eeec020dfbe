r"""Advice before any run, from measurements on other models."""

import json
from dataclasses import dataclass
from pathlib import Path

from solvers.doors.signatures import checked

from ..doors.tables import html_table
from ..models.learned import check_learned
from ..models.score_model import ScoreModel
from ..processes.process import Process
from ..runs.options import Options

NOTE = (
    "Distances were measured on the named problem and not on your model; they compare solvers, and ss.compare "
    "measures them on it."
)
MEASURED = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Suggestion:
    r"""A solver with options to try first, and what was measured with them on another problem.

    Arguments:
        options: The options of :func:`scoresde.sample`.
        calls: The network calls per sample, the last denoising included.
        value: The squared energy distance between samples and data, times 1000, in units of the data of the
            measured problem. It compares rows of one problem, and says nothing of your model.
        exact: The same distance for samples of the exact flow: what no solver of the flow can fall below, but
            for the error of the estimate.
        source: The problem of the measurement, and its command.

    Both distances are unbiased estimates, so close to 0 they can be negative.
    """

    options: Options
    calls: int
    value: float
    exact: float
    source: str

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return (
            f"Suggestion({options}: {self.calls} calls; energy distance to the data x 1000: {self.value:.3g}, "
            f"of the exact flow {self.exact:.3g}; not of your model, but measured on {self.source})"
        )

    @property
    def row(self) -> dict[str, object]:
        r"""The entries of a table, by the names of its columns."""

        return {
            **{name: self.options.get(name, "") for name in ("solver", "grid", "steps", "clock")},
            "calls": self.calls,
            "energy distance to data x 1000": self.value,
            "of the exact flow": self.exact,
            "measured on": self.source,
        }

    def _repr_html_(self) -> str:
        return html_table([self.row], notes=[NOTE])


class Suggestions(list[Suggestion]):
    r"""Suggestions, one for each measured problem, which notebooks show as a table."""

    def _repr_html_(self) -> str:
        return html_table([one.row for one in self], notes=[NOTE])


@checked
def suggest(model: ScoreModel | Process, budget: int) -> Suggestions:
    r"""Returns the best solver within a budget on each measured problem.

    Moment-matched solvers are left out for a model without moments. Nothing is run; :func:`scoresde.compare`
    measures on the model itself.

    Arguments:
        model: The model, or its process.
        budget: The maximum number of calls per sample, the last denoising included.

    Raises:
        ValueError: If no measurement lies within the budget.

    Examples:
        >>> suggestions = ss.suggest(model, 10)
        >>> all(suggestion.calls <= 10 for suggestion in suggestions)
        True
    """

    check_learned(model, "suggest")
    moments = isinstance(model, ScoreModel) and model.moments is not None
    content = json.loads(MEASURED.read_text())
    found = Suggestions()
    for entry in content["problems"]:
        rows = [
            r for r in entry["rows"] if r["budget"] <= budget and (moments or not r["moments"])
        ]
        if not rows:
            least = min(row["budget"] for row in entry["rows"])
            raise ValueError(f"budget must be at least {least} calls, but is {budget}.")
        most = max(row["budget"] for row in rows)
        best = min((r for r in rows if r["budget"] == most), key=lambda row: row["value"])
        options = {"solver": best["solver"], "grid": best["grid"], "steps": best["steps"]}
        if best["clock"] is not None:
            options["clock"] = best["clock"]
        source = f"{entry['words']}; {content['command']}"
        found.append(Suggestion(options, best["calls"], best["value"], entry["exact"], source))
    return found
