r"""What was measured of one solver with one grid."""

from dataclasses import dataclass, field

from ..runs.options import Options


@dataclass(frozen=True)
class Row:
    r"""What was measured of one solver with one grid.

    Arguments:
        solver: The solver.
        grid: The grid.
        budget: The budget of calls, or the tolerance.
        options: The options of :func:`scoresde.sample`.
        stochastic: Whether it adds noise.
        calls: The mean network calls of a sample, the last denoising included.
        most_calls: The calls of the sample that took most.
        backward: The network calls through which a gradient flowed back, as guidance may need.
        rejected: The mean number of rejected steps.
        seconds: The time of the run.
        mebibytes: The memory it took at its peak, where the system tells.
        error: Median, quantile of 0.9 and largest of the errors of samples.
        distances: Distances to the data, with standard errors.
        status: "ok", or what went wrong.
    """

    solver: str
    grid: str
    budget: float
    options: Options
    stochastic: bool = False
    calls: float | None = None
    most_calls: int | None = None
    backward: float | None = None
    rejected: float | None = None
    seconds: float | None = None
    mebibytes: float | None = None
    error: dict[str, float] | None = None
    distances: dict[str, tuple[float, float]] = field(default_factory=dict)
    status: str = "ok"

    @property
    def key(self) -> tuple[str, str, float]:
        r"""What tells rows apart."""

        return self.solver, self.grid, float(self.budget)

    def value(self, metric: str) -> float | None:
        r"""Returns the median error, or a distance; none where there is none."""

        if metric == "error":
            return None if self.error is None else self.error["median"]
        return self.distances[metric][0] if metric in self.distances else None

    @property
    def words(self) -> dict[str, str]:
        r"""What a table says of it, but for the metrics."""

        return {"solver": self.solver, "grid": self._grid, "calls": text(self.calls)}

    @property
    def curve(self) -> str:
        r"""What a curve of such rows is called."""

        return self.solver if self.grid in ("plan", "even") else f"{self.solver}, {self.grid}"

    @property
    def _grid(self) -> str:
        return f"{self.grid} {self.budget:g}" if self.grid == "tolerance" else self.grid


def text(value: float | None) -> str:
    r"""Returns a number as tables show it."""

    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def with_error_text(value: float | None, error: float | None) -> str:
    r"""Returns a number and its error as tables show them."""

    return "" if value is None else f"{value:.3g} ± {error:.1g}"
