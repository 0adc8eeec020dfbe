r"""Ascent of log-densities of which only the gradient is known, each row by itself.

Steps are those of L-BFGS, within a radius. As there are no values to compare, a step is accepted unless the slope
at its end says that it went far beyond the maximum along its line; the radius then shrinks to where the secant
puts that maximum. With the direction d and the gradient g, the log-density is expected to gain g d / 2 nats.

Where this is tiny, a row is pushed off by a fraction of the narrowest width seen. From a maximum, it comes back;
from a saddle point, it goes on; along a flat direction, it stays where it is.

References:
    | Updating Quasi-Newton Matrices with Limited Storage (Nocedal, 1980)
    | https://doi.org/10.1090/S0025-5718-1980-0572855-7
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from solvers.divergence import signs
from solvers.shapes import row_where

PAIRS = 8  # steps that are remembered, with their changes of the gradient
FIRST, LARGEST = 0.1, 1.0  # radius, per entry, in units of the scale
OVERSHOT = (
    -0.5
)  # slope at the end of a step, relative to that at its start, below which it is refused
PUSH, BACK = 0.2, 0.1  # the push in units of the narrowest width; and how much of it may remain
PUSHES = 6  # after which a row that does not come back is given up

Gradient = Callable[[Tensor, Tensor], Tensor]  # of states, (B, d), and their rows, (B,)


def dots(a: Tensor, b: Tensor) -> Tensor:
    r"""Returns the inner product of each row, with shape (B,)."""

    return (a * b).sum(-1)


@dataclass
class Climb:
    r"""Creates the state of the rows that still climb.

    Arguments:
        rows: Their indices, with shape (B,).
        x: The states, with shape (B, d).
        g: The gradients there.
        radius: The largest length of the next step, with shape (B,).
        steps: The remembered steps, the newest first, with shape (B, k, d).
        drops: The decreases of the gradient over them.
        anchor: The states from which rows were last pushed off.
        push: The lengths of these pushes, or infinity before the first, with shape (B,).
        pushes: Their numbers.
    """

    rows: Tensor
    x: Tensor
    g: Tensor
    radius: Tensor
    steps: Tensor = field(init=False)
    drops: Tensor = field(init=False)
    anchor: Tensor = field(init=False)
    push: Tensor = field(init=False)
    pushes: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.steps = self.x.new_zeros(len(self.x), PAIRS, self.x.shape[1])
        self.drops = torch.zeros_like(self.steps)
        self.anchor, self.push = self.x.clone(), torch.full_like(self.radius, torch.inf)
        self.pushes = torch.zeros_like(self.rows)

    def keep(self, mask: Tensor) -> None:
        r"""Keeps some of the rows."""

        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name)[mask])

    @property
    def widths(self) -> Tensor:
        r"""The squared widths along the remembered steps, with shape (B, k), or NaN where there is none."""

        products = dots(self.steps, self.drops)
        return torch.where(products > 0, products / dots(self.drops, self.drops), torch.nan)

    def direction(self) -> Tensor:
        r"""Returns the gradient times the approximate inverse Hessian of minus the log-density."""

        products = dots(self.steps, self.drops)  # positive, or 0 where there is no pair
        inverse = torch.where(products > 0, 1 / products, 0.0)
        q, shares = self.g, []
        for i in range(PAIRS):
            shares.append(inverse[:, i] * dots(self.steps[:, i], q))
            q = q - shares[i][:, None] * self.drops[:, i]
        first = self.radius / self.g.norm(dim=1).clamp(min=torch.finfo(q.dtype).tiny)
        q = torch.where(products[:, 0] > 0, self.widths[:, 0].nan_to_num(), first)[:, None] * q
        for i in reversed(range(PAIRS)):
            back = inverse[:, i] * dots(self.drops[:, i], q)
            q = q + (shares[i] - back)[:, None] * self.steps[:, i]
        return q

    def move(self, step: Tensor, g: Tensor, longest: float) -> None:
        r"""Takes the steps that do not overshoot, given the gradients at their ends, and sets the radii."""

        before, after, size = dots(self.g, step), dots(g, step), step.norm(dim=1)
        ok = after >= OVERSHOT * before  # false where it is NaN
        grown = torch.where(after > before / 2, 2 * size, self.radius).maximum(self.radius)
        secant = (before / (before - after)).nan_to_num(0.1).clamp(0.1, 0.6)
        self.radius = torch.where(ok, grown.clamp(max=longest), secant * size)
        drop = self.g - g
        bent = ok & (dots(step, drop) > 1e-12 * size * drop.norm(dim=1))
        for name, new in (("steps", step), ("drops", drop)):
            old = getattr(self, name)
            setattr(self, name, row_where(bent, torch.cat([new[:, None], old[:, :-1]], 1), old))
        self.x, self.g = row_where(ok, self.x + step, self.x), row_where(ok, g, self.g)

    def settled(self) -> Tensor:
        r"""Returns which rows came back from a push, with shape (B,)."""

        away = (self.x - self.anchor).norm(dim=1)
        return self.push.isfinite() & (away <= BACK * self.push)

    def push_off(self, some: Tensor, ways: Tensor) -> Tensor:
        r"""Returns the pushes of some rows that seem to be at a maximum, which they then start from."""

        narrowest = self.widths.nan_to_num(torch.inf).amin(1).sqrt()
        size = PUSH * torch.where(narrowest.isfinite(), narrowest, self.radius)
        push = size[:, None] * ways[self.pushes.clamp(max=len(ways) - 1)]
        self.anchor = row_where(some, self.x, self.anchor)
        self.push = torch.where(some, push.norm(dim=1), self.push)
        self.pushes = self.pushes + some
        return push


@dataclass(frozen=True)
class Summit:
    r"""The ends of climbs.

    Arguments:
        x: The states, with shape (B, d).
        gradient: The gradients there.
        gain: The expected gains of a further step in nats, with shape (B,).
        converged: Whether rows came back from a push to where nothing can be gained.
        calls: The number of gradients of each row.
    """

    x: Tensor
    gradient: Tensor
    gain: Tensor
    converged: Tensor
    calls: Tensor


def ascend(
    gradient: Gradient, x: Tensor, scale: float, tolerance: float, rounding: float, calls: int
) -> Summit:
    r"""Climbs from each row to a maximum of its log-density.

    Arguments:
        gradient: The gradient of the log-density, of states with shape (B, d) and their rows.
        x: The starting points, with shape (B, d).
        scale: The typical size of an entry.
        tolerance: The expected gain in nats below which a row is at a maximum.
        rounding: The error of an entry of the gradient, whose effect on the gain is tolerated too.
        calls: The largest number of gradients of each row.
    """

    rows, root = torch.arange(len(x), device=x.device), x.shape[1] ** 0.5
    ways = signs(0, torch.zeros(1, dtype=torch.int64), 0, PUSHES, x.shape[1])[:, 0].to(x)
    climb = Climb(rows, x, gradient(x, rows), torch.full_like(x[:, 0], FIRST * scale * root))
    end = Summit(
        x.clone(), climb.g.clone(), torch.full_like(x[:, 0], torch.inf),
        torch.zeros_like(rows, dtype=torch.bool), torch.ones_like(rows),
    )  # fmt: skip
    for call in range(1, calls + 1):
        direction = climb.direction()
        gain = dots(climb.g, direction) / 2
        noise = climb.widths.nan_to_num(0.0).amax(1) * x.shape[1] * rounding**2
        calm = gain.abs() <= tolerance + noise
        done = calm & climb.settled()
        over = done | (climb.pushes >= PUSHES) & calm | ~climb.g.isfinite().all(1)
        over |= torch.full_like(over, call == calls)
        ended = climb.rows[over]
        end.x[ended], end.gradient[ended] = climb.x[over], climb.g[over]
        end.gain[ended], end.converged[ended], end.calls[ended] = gain[over], done[over], call
        climb.keep(~over)
        if not len(climb.rows):
            break
        direction, calm = direction[~over], calm[~over]
        cut = (climb.radius / direction.norm(dim=1)).clamp(max=1)[:, None]
        step = row_where(calm, climb.push_off(calm, ways), cut * direction)
        there = gradient(climb.x + step, climb.rows)
        pushed = climb.x + step
        climb.move(step, there, LARGEST * scale * root)
        climb.x = row_where(calm, pushed, climb.x)
        climb.g = row_where(calm, there, climb.g)
    return end
