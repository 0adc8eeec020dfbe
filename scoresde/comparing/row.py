r"""The measurements of one solver with one grid."""

from dataclasses import dataclass, field

from ..runs.options import Options


@dataclass(frozen=True)
class Row:
    r"""The measurements of one solver with one grid.

    Arguments:
        solver: The solver.
        grid: The grid.
        budget: The budget of calls, or the tolerance.
        options: The options of :func:`scoresde.sample`.
        stochastic: Whether it adds noise.
        calls: The mean number of network calls per sample, the last denoising included.
        most_calls: The largest number of calls of a sample.
        backward: The network calls through which a gradient flowed back, as some guidance needs.
        rejected: The mean number of rejected steps.
        seconds: The time of the run.
        mebibytes: The peak memory, if the system reports it.
        error: The median, 0.9 quantile and maximum of the samples' errors.
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
        r"""The key that identifies a row."""

        return self.solver, self.grid, float(self.budget)

    def value(self, metric: str) -> float | None:
        r"""Returns the median error, or a distance, or `None` if it was not measured."""

        if metric == "error":
            return None if self.error is None else self.error["median"]
        return self.distances[metric][0] if metric in self.distances else None

    @property
    def words(self) -> dict[str, str]:
        r"""The entries of a table, without the metrics."""

        return {"solver": self.solver, "grid": self._grid, "calls": text(self.calls)}

    @property
    def curve(self) -> str:
        r"""The name of the curve that the row belongs to."""

        return self.solver if self.grid in ("plan", "even") else f"{self.solver}, {self.grid}"

    @property
    def _grid(self) -> str:
        return f"{self.grid} {self.budget:g}" if self.grid == "tolerance" else self.grid


def text(value: float | None) -> str:
    r"""Returns a number in the format of tables."""

    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def with_error_text(value: float | None, error: float | None) -> str:
    r"""Returns a number and its error in the format of tables."""

    return "" if value is None else f"{value:.3g} ± {error:.1g}"
