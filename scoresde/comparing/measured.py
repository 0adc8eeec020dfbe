r"""The measurements of a comparison, and the best of them."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from solvers.doors.signatures import checked

from ..models.checks import check_finite
from ..runs.plan import Plan
from .row import Row


class Point(NamedTuple):
    r"""The calls of a run, the value of a metric, and the row that it comes from."""

    calls: float
    value: float
    row: Row


@dataclass(frozen=True)
class Measured:
    r"""The runs of a comparison, with their references.

    Arguments:
        setup: Model, process, data, samples, seed, metrics and options.
        references: How the exact samples were made, and the distance of a looser run from them.
        floors: The distances between parts of the data, with standard deviations.
        exact: The distances of the exact flow's samples from the data, with standard errors.
        rows: The measurements.
    """

    setup: dict[str, Any]
    references: dict[str, Any] = field(default_factory=dict)
    floors: dict[str, tuple[float, float]] = field(default_factory=dict)
    exact: dict[str, tuple[float, float]] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    @checked
    def points(self, metric: str | None = None) -> list[Point]:
        r"""Returns calls and values of a metric, as in :meth:`metric`, for all successful runs."""

        metric, points = self.metric(metric), []
        for row in self.rows:
            value = row.value(metric)
            if row.status == "ok" and row.calls is not None and value is not None:
                least = self.resolution(row) if metric == "error" else -math.inf
                points.append(Point(row.calls, max(value, least), row))
        return points

    def resolution(self, row: Row) -> float:
        r"""Returns the smallest error that can be told apart.

        It is the distance of the reference from a looser run or, if that is larger, from the flow of a network in
        half precision.
        """

        known = self.references.get("sde" if row.stochastic else "flow", {})
        return float(max(known.get("median", 0), known.get("floor", 0)))

    @checked
    def best(
        self,
        *,
        budget: float | None = None,
        error: float | None = None,
        distance: float | None = None,
        metric: str | None = None,
    ) -> Plan:
        r"""Returns the plan with the smallest error within a budget, or the fewest calls for an error or
        distance.

        Arguments:
            budget: The maximum number of calls per sample, on average.
            error: The largest median error of samples. Errors below the resolution of the reference count as
                that.
            distance: The largest distance to the data.
            metric: The metric to minimise within the budget: "error", or a distance. By default, "error", unless
                only distances were measured. With `distance=`, the name of that distance, which may be left out
                if there is only one.

        Raises:
            ValueError: If not exactly one of the three limits is given, the metric was not measured, or no run
                meets the limit.
        """

        limits = {"budget": budget, "error": error, "distance": distance}
        given = {name: limit for name, limit in limits.items() if limit is not None}
        if len(given) != 1:
            raise ValueError("best needs exactly one of budget=, error= and distance=.")
        ((name, limit),) = given.items()
        check_finite(name, limit)
        points = [p for p in self.points(self._meant(name, metric)) if p.row.grid != "plan"]
        if name == "budget":
            fit = [(p.value, p.calls, p.row) for p in points if p.calls <= limit + 1e-9]
            least = min((p.calls for p in points), default=None)
        else:
            fit = [(p.calls, p.value, p.row) for p in points if p.value <= limit]
            least = min((p.value for p in points), default=None)
        if not fit:
            known = (
                "no run that succeeded has any" if least is None else f"the least is {least:.4g}"
            )
            raise ValueError(f"nothing that was compared meets {name}={limit:g}: {known}.")
        return self.plan(min(fit, key=lambda entry: entry[:2])[2])

    def _meant(self, limit: str, metric: str | None) -> str:
        r"""The metric that a limit refers to, after checking that it can."""

        if limit == "budget":
            return self.metric(metric)
        if limit == "error":
            if metric not in (None, "error"):
                raise ValueError(
                    f"error= is the median error of samples, not {metric!r}; write distance= beside "
                    f"metric={metric!r}."
                )
            return self.metric("error")
        names = [name for name in self.setup["metrics"] if name != "error"]
        if metric == "error" or not names:
            raise ValueError(
                "distance= is a distance to data, and none was measured; pass error= for the error of "
                "samples."
            )
        if metric is None and len(names) > 1:
            raise ValueError(f"distance= needs metric=, one of {', '.join(names)}.")
        return self.metric(metric or names[0])

    @checked
    def plan(self, row: Row) -> Plan:
        r"""Returns the plan of a row."""

        if row.grid == "plan":
            raise ValueError(
                f"the row already belongs to a plan, {row.options.get('plan')}; pass that."
            )
        t_min = self.setup.get("t_min")
        options = row.options if t_min is None else {**row.options, "t_min": float(t_min)}
        figures = {
            "calls": row.calls,
            "error": row.error,
            "distances": row.distances,
            "samples": self.setup["samples"],
            "seed": self.setup["seed"],
        }
        return Plan(options, model=self.setup["model"], figures=figures)

    @checked
    def front(self, metric: str | None = None) -> list[Point]:
        r"""Returns the points that no other beats at the same number of calls or fewer (the Pareto front)."""

        front: list[Point] = []
        for point in sorted(self.points(metric), key=lambda p: (p.calls, p.value)):
            if not front or point.value < front[-1].value:
                front.append(point)
        return front

    @checked
    def plot(self, file: str | Path, metric: str | None = None) -> Path:
        r"""Draws the metric against calls, with a curve per solver and grid, and marks the front.

        Arguments:
            file: The file to write.
            metric: "error", or a distance. By default, as in :meth:`metric`.
        """

        from .. import plots  # which asks for matplotlib

        metric = self.metric(metric)
        lines: dict[str, list[tuple[float, float, float]]] = {}
        for p in sorted(self.points(metric), key=lambda p: p.calls):
            error = p.row.distances[metric][1] if metric != "error" else 0.0
            lines.setdefault(p.row.curve, []).append((p.calls, p.value, error))
        front = [(p.calls, p.value) for p in self.front(metric)]
        base = self.exact[metric][0] if metric in self.exact else None
        label = "median error of a sample" if metric == "error" else metric
        plots.work_precision(Path(file), lines, front, label, base)
        return Path(file)

    def metric(self, metric: str | None) -> str:
        r"""Returns the name of a measured metric; by default, "error" or, without errors, the first distance."""

        names: list[str] = self.setup["metrics"]
        if metric is None:
            return "error" if "error" in names else names[0]
        if metric not in names:
            raise ValueError(f"metric {metric!r} was not measured; there are {', '.join(names)}.")
        return metric
