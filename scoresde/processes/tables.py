r"""Processes as tables: polynomials between edges in time, which files hold in place of code."""

import math
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from .process import Process, Use
from .schedules import invert

POINTS = 12  # coefficients of the polynomial on each piece
PIECES, MOST = 16, 2**15  # pieces at first, and at most
WANTED, ALLOWED = (
    1e-10,
    1e-8,
)  # errors of log alpha and log sigma: where halving ends, and of a table
CHECKED = 4096  # random times at which a table is compared with its process


@dataclass(frozen=True, eq=False, repr=False)
class TabulatedProcess(Process, constant=True):
    r"""Creates the process whose :math:`\log \alpha` and :math:`\log \sigma` are polynomials on pieces of time.

    Arguments:
        edges: The ends of the n pieces in ascending order, with shape (n + 1,), in float64.
        coefficients: The Chebyshev coefficients of :math:`\log \alpha` and :math:`\log \sigma` on each piece,
            with shape (2, n, k), in float64.
        words: The process that it stands for, in words.
        usual_grid: The default grid.
        levels: The smallest and the largest noise level, where the user set them.
    """

    edges: Tensor
    coefficients: Tensor
    words: str = "a process"
    usual_grid: str = "logistic"
    levels: tuple[float | None, float | None] = (None, None)

    def __post_init__(self) -> None:
        edges, table = self.edges, self.coefficients
        for name, value in (("edges", edges), ("coefficients", table)):
            if value.dtype != torch.float64 or not bool(value.isfinite().all()):
                raise ValueError(f"{name} must be finite numbers in float64.")
        if edges.ndim != 1 or len(edges) < 2 or not bool((edges.diff() > 0).all()):
            raise ValueError("edges must be at least two times in ascending order.")
        if table.ndim != 3 or table.shape[:2] != (2, len(edges) - 1) or not table.shape[2]:
            raise ValueError(
                f"coefficients must have shape (2, {len(edges) - 1}, k), but have {tuple(table.shape)}."
            )
        for name, end in (("t_min", edges[0]), ("t_max", edges[-1]), ("grid", self.usual_grid)):
            object.__setattr__(self, name, end if isinstance(end, str) else float(end))
        self._check()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TabulatedProcess)
            and torch.equal(self.edges, other.edges)
            and torch.equal(self.coefficients, other.coefficients)
        )

    def __hash__(self) -> int:
        return hash((self.t_min, self.t_max, float(self.coefficients.sum())))

    def __repr__(self) -> str:
        return f"TabulatedProcess({self.words}, {len(self.edges) - 1} pieces)"

    @property
    def said_levels(self) -> tuple[float | None, float | None]:
        return self.levels

    def log_scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        edges, table = self.edges.to(t.device), self.coefficients.to(t.device)
        piece = torch.searchsorted(edges, t.detach().double().contiguous(), right=True) - 1
        piece = piece.clamp(0, len(edges) - 2)
        low, high = edges[piece], edges[piece + 1]
        u = (2 * t.double() - low - high) / (high - low)
        log_alpha, log_sigma = _chebyshev(table[:, piece], u)
        return log_alpha.to(t.dtype), log_sigma.to(t.dtype)

    def time(self, log_snr: Tensor) -> Tensor:
        return invert(self.log_snr, log_snr, (self.t_min, self.t_max))


def tabulated(process: Process) -> TabulatedProcess:
    r"""Returns the table of a process with scales.

    Pieces are halved until the polynomials are right within :data:`WANTED`. At a kink, pieces end up as short as
    this takes. Then the table is compared with the process at random times.

    Raises:
        ValueError: If the table is wrong by more than :data:`ALLOWED`, or by more than 1e-6 in what follows from
            the scales.
    """

    low, high = process.t_min, process.t_max
    edges = torch.linspace(low, high, PIECES + 1, dtype=torch.float64)
    left, right = edges[:-1], edges[1:]
    done: list[tuple[Tensor, Tensor]] = []
    count = 0
    while len(left):
        table = _fitted(process, left, right)
        u = torch.linspace(-1, 1, 2 * POINTS + 1, dtype=torch.float64).expand(len(left), -1)
        times = left[:, None] + (u + 1) / 2 * (right - left)[:, None]
        gap = (_chebyshev(table[:, :, None], u) - _log_scales(process, times)).abs()
        middle = (left + right) / 2
        split = (middle > left) & (middle < right)  # as float64 resolves
        settled = (gap.amax((0, 2)) <= WANTED) | ~split
        done.append((left[settled], table[:, settled]))
        count += int(settled.sum())
        left, middle, right = (value[~settled] for value in (left, middle, right))
        if count + 2 * len(left) > MOST or not bool(gap.isfinite().all()):
            raise ValueError(_missed(process, "takes more than 32768 pieces"))
        left, right = torch.cat([left, middle]), torch.cat([middle, right])
    starts = torch.cat([start for start, _ in done])
    order = starts.argsort()
    found = TabulatedProcess(
        torch.cat([starts[order], edges[-1:]]),
        torch.cat([table for _, table in done], 1)[:, order].contiguous(),
        repr(process),
        process.grid,
        process.said_levels,
    )
    _compare(process, found)
    return found


def _fitted(process: Process, left: Tensor, right: Tensor) -> Tensor:
    r"""The coefficients of the polynomials through the values at the Chebyshev nodes, with shape (2, n, k)."""

    angles = (torch.arange(POINTS, dtype=torch.float64) + 0.5) * math.pi / POINTS
    times = left[:, None] + (angles.cos() + 1) / 2 * (right - left)[:, None]
    waves = torch.cos(torch.arange(POINTS, dtype=torch.float64)[:, None] * angles)
    waves[0] /= 2
    return _log_scales(process, times) @ waves.T * (2 / POINTS)


def _log_scales(process: Process, times: Tensor) -> Tensor:
    r"""The logarithms of both scales, with shape (2, n, k), for times with shape (n, k)."""

    flat = times.reshape(-1).clamp(process.t_min, process.t_max)
    return torch.stack(process.log_scales(flat)).detach().reshape(2, *times.shape)


def _chebyshev(coefficients: Tensor, u: Tensor) -> Tensor:
    r"""The sums of Chebyshev polynomials with the given coefficients, along the last axis, by Clenshaw's rule."""

    above = beyond = torch.zeros_like(u)
    for k in range(coefficients.shape[-1] - 1, 0, -1):
        above, beyond = coefficients[..., k] + 2 * u * above - beyond, above
    return coefficients[..., 0] + u * above - beyond


def _compare(process: Process, table: TabulatedProcess) -> None:
    r"""Refuses a table that differs from its process."""

    draw = torch.Generator().manual_seed(0)
    shares = torch.rand(2, CHECKED, generator=draw, dtype=torch.float64)
    span = process.t_max - process.t_min
    times = torch.cat([process.t_min + span * shares[0], process.t_min + span * shares[1] ** 6])
    times = times.clamp(process.t_min, process.t_max)
    gap = torch.stack(table.log_scales(times)) - torch.stack(process.log_scales(times))
    if not float(gap.abs().max()) <= ALLOWED:
        raise ValueError(_missed(process, f"is wrong by {float(gap.abs().max()):.2g}"))
    few = times[:: CHECKED // 32]
    drift = process.drift(torch.ones_like(few)[:, None], few)[:, 0]
    table.check_rates(drift, process.diffusion(few), few)
    for words, mine, its in (
        ("the prior", table.prior_std(), process.prior_std()),
        *((use, table.start_of(use), process.start_of(use)) for use in get_args(Use)),
    ):
        if not math.isclose(mine, its, rel_tol=1e-6):
            raise ValueError(
                f"a table of {process} has {mine:.9g} for {words}, but the process says {its:.9g}"
            )


def _missed(process: Process, words: str) -> str:
    return f"a table of log alpha and log sigma of {process} {words} at an error of {ALLOWED:g}"
