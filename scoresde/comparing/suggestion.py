r"""Advice before any run: what was best on models that were measured."""

import json
from dataclasses import dataclass
from pathlib import Path

from solvers.doors.signatures import checked

from ..models.score_model import ScoreModel
from ..processes.process import Process
from ..runs.options import Options

MEASURED = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Suggestion:
    r"""A solver with options to try first.

    Arguments:
        options: The options of :func:`scoresde.sample`.
        calls: The network calls of a sample.
        value: The energy distance to the data, times 1000.
        exact: That of the exact flow's samples.
        source: The problem that this was measured on, and the command.

    Both distances are estimates without bias: close to 0 they can be negative.
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
            f"of the exact flow {self.exact:.3g}; measured on {self.source})"
        )


@checked
def suggest(model: ScoreModel | Process, budget: int) -> list[Suggestion]:
    r"""Returns what was best within a budget on each problem that was measured.

    Moment-matched solvers are left out for a model that knows no moments of its data. Nothing is
    run: :func:`scoresde.compare` measures on the model itself.

    Arguments:
        model: The model, or its process.
        budget: The most calls per sample, the last denoising included.

    Raises:
        ValueError: If no measurement is within the budget.

    Examples:
        >>> suggestions = ss.suggest(model, 10)
        >>> all(suggestion.calls <= 10 for suggestion in suggestions)
        True
    """

    moments = isinstance(model, ScoreModel) and model.moments is not None
    content = json.loads(MEASURED.read_text())
    found = []
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
