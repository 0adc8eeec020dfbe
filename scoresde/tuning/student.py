r"""A plan's error as a function of its noise levels, with the weights that are best for them.

Each step of a :class:`solvers.methods.exponential.ExponentialMultistep` adds learned multiples of the state and of
all values so far to the step of DDIM. Given the noise levels, they follow in one run: at each step, linear least
squares makes the states closest to those of the exact flow, and the last step leads to the samples themselves.

References:
    | Bespoke Non-Stationary Solvers (Shaul et al., 2024), section 3, for weights of all values
    | https://arxiv.org/abs/2403.01329
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from solvers import SemiLinear
from solvers.methods.weights import weights
from solvers.problem import Linear
from solvers.shapes import add_product, factors

from ..comparing.bench import Bench
from ..comparing.reference import rms
from ..reverse.reverse import Reverse
from ..runs.plan import Plan
from .exact_path import Exact, ExactPath

BASES = {"moments": "moment_1", "data": "ddim"}  # of the other forms, all weights are alike
ROUNDS = 3  # of reweighting, which makes least squares of squares those of roots
NOTHING = 1e-3  # of the largest singular value: directions with less amplify round-off


@dataclass(frozen=True)
class Reached:
    r"""A state of the student, and all that led there.

    Arguments:
        X: The states in the coordinates of the problem, with shape (B, *).
        values: The values so far, the newest first.
        additions: The learned numbers of the steps so far.
    """

    X: Tensor
    values: tuple[Tensor, ...]
    additions: tuple[tuple[float, ...], ...] = ()


@dataclass
class Student:
    r"""Creates the function from noise levels to the error of the plan with the best weights for them.

    Levels share their runs as far as they agree.

    Arguments:
        bench: The model and the samples; those with an even index are fitted, the others judge.
        exact: Their exact run.
        form: The linear part, "moments" or "data".
    """

    bench: Bench
    exact: Exact
    form: str
    known: dict[tuple[float, ...], Reached] = field(default_factory=dict)
    asked: int = 0  # calls per sample

    @cached_property
    def reverse(self) -> Reverse:
        r"""The reverse process."""

        return Reverse(self.bench.model, SemiLinear, 0.0, "log_snr", self.form)

    @cached_property
    def path(self) -> ExactPath:
        r"""The exact states."""

        return ExactPath(self.reverse, self.exact)

    @cached_property
    def end(self) -> Tensor:
        r"""The exact samples, in the coordinates of the problem."""

        return self.reverse.enter(self.exact.end, self.exact.times[-1])

    def error(self, x: Tensor) -> float:
        r"""Returns the mean error of samples that judge."""

        return rms(x, self.exact.end)[1::2].mean().item()

    def __call__(self, levels: Tensor) -> float:
        r"""Returns the error for noise levels from t_max to t_min, with shape (n + 2,)."""

        x = self.reverse.leave(self._end(levels).X, self.exact.times[-1])
        value = self.error(x)
        return value if value == value else torch.inf

    def plan(self, levels: Tensor) -> Plan:
        r"""Returns the plan with the best weights."""

        solver = f"{BASES[self.form]}:analytic_first=True"
        options = {"solver": solver, "denoise": False}
        return Plan(options, tuple(levels.tolist()), self._end(levels).additions)

    def _end(self, levels: Tensor) -> Reached:
        *inner, last = (-levels.log()).tolist()
        before = self._at(tuple(inner))
        return self._step(before, inner[-1], last, self.end)

    def _at(self, clocks: tuple[float, ...]) -> Reached:
        r"""The student at the last of some clocks, with its value there."""

        if clocks not in self.known:
            here, t = self._arrive(clocks), torch.tensor(clocks[-1:], dtype=torch.float64)
            value = self._guess(t, here.X) if len(clocks) == 1 else self._value(t, here.X)
            self.known[clocks] = Reached(here.X, (value, *here.values), here.additions)
        return self.known[clocks]

    def _arrive(self, clocks: tuple[float, ...]) -> Reached:
        if len(clocks) == 1:
            return Reached(self.path.like, ())
        target = self.path(torch.tensor(clocks[-1], dtype=torch.float64))
        return self._step(self._at(clocks[:-1]), clocks[-2], clocks[-1], target)

    def _guess(self, t: Tensor, X: Tensor) -> Tensor:
        guess = self._problem.guess
        assert guess is not None
        return guess(t, X)[0](X)

    @torch.no_grad()
    def _value(self, t: Tensor, X: Tensor) -> Tensor:
        self.asked += 1
        rows = torch.arange(len(X)).split(self.bench.options.get("batch_size") or len(X))
        parts = [self._problem.subset(some).at(t, X[some])[0](X[some]) for some in rows]
        return torch.cat(parts)

    @cached_property
    def _problem(self) -> SemiLinear:
        problem = self.reverse.problem()
        assert isinstance(problem, SemiLinear)
        return problem

    def _step(self, here: Reached, t0: float, t1: float, target: Tensor) -> Reached:
        r"""The step between two clocks that comes closest to some states."""

        s, t = torch.tensor([[t0], [t1]], dtype=torch.float64)
        parts = columns(self._problem.linear, s, t, here.X, here.values)
        base = parts[0] + parts[1]
        numbers = fit(torch.stack(parts, -1)[::2], (target - base)[::2])
        for part, number in zip(parts, numbers, strict=True):
            add_product(base, part, number)
        return Reached(base, here.values, (*here.additions, tuple(numbers)))


def columns(
    linear: Linear, t0: Tensor, t1: Tensor, X: Tensor, values: Sequence[Tensor]
) -> list[Tensor]:
    r"""Returns what the learned numbers of a step multiply: the decayed state, and each value times W.

    If coordinates differ, the same times their contrast follow. The step of DDIM is the sum of the first two.

    Arguments:
        linear: The linear part of the problem.
        t0: The clock at which the step starts, with shape (1,).
        t1: The clock at which it ends.
        X: The states there, with shape (B, *).
        values: The values so far, the newest first.
    """

    decay, contrast = linear.decay(t0, t1), linear.contrast
    whole = factors(weights(linear, t0, t1, decay, t0[..., None])[..., 0, :], X)[0]
    parts = [X * factors(decay, X)[0], *(whole * value for value in values)]
    if len(contrast) == 1:
        return parts
    return [*parts, *(part * contrast.to(X) for part in parts)]


def fit(columns: Tensor, wanted: Tensor) -> list[float]:
    r"""Returns the numbers whose combination of columns has the least mean root mean square distance.

    Arguments:
        columns: The columns, with shape (B, *, k).
        wanted: What they should add up to, with shape (B, *).

    References:
        | Iteratively reweighted least squares: Practical Robust Estimates (Holland and Welsch, 1977)
        | https://doi.org/10.1080/03610927708827533
    """

    A, b = columns.flatten(1, -2).double().cpu(), wanted.flatten(1).double().cpu()
    sizes = A.flatten(0, 1).norm(dim=0)
    A = A / sizes.clamp(min=NOTHING * sizes.max().item() or 1.0)
    share = torch.ones(len(b), 1, dtype=torch.float64)
    for _ in range(ROUNDS):
        rows = (share[..., None] * A).flatten(0, 1), (share * b).reshape(-1, 1)
        found = torch.linalg.lstsq(*rows, rcond=NOTHING, driver="gelsd").solution[:, 0]
        gap = (A @ found - b).square().mean(1, keepdim=True).sqrt()
        share = (gap + gap.median()).clamp(min=torch.finfo(gap.dtype).tiny).rsqrt()
        share = share / share.max()
    return (found / sizes.clamp(min=NOTHING * sizes.max().item() or 1.0)).tolist()
