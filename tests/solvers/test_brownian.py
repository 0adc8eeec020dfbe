import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import solvers
from solvers import SDE, Brownian, Increments, solve
from solvers.noise.brownian import START, STEPS, keyed_normal, keyed_uniform

STOCHASTIC = [n for n in solvers.available() if solvers.get(n).stochastic]
ON_SDES = [n for n in STOCHASTIC if solvers.get(n).solves is SDE]


@settings(max_examples=30)
@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    first=st.integers(0, 2**40),
    rows=st.integers(1, 40),
    size=st.integers(1, 70),
    counter=st.integers(0, 10**6),
)
def test_a_row_does_not_depend_on_its_batch(
    seed: int, first: int, rows: int, size: int, counter: int
) -> None:
    index = torch.arange(first, first + rows)
    z = keyed_normal(seed, index, STEPS, counter, size)
    for i in {0, rows // 2, rows - 1}:
        assert torch.equal(z[i], keyed_normal(seed, index[i : i + 1], STEPS, counter, size)[0])


def test_large_rows_do_not_depend_on_their_batch_either() -> None:
    index = torch.arange(5)  # large enough for threads to split the work
    z = keyed_normal(1, index, STEPS, 3, 50_001)
    assert torch.equal(z[3:4], keyed_normal(1, index[3:4], STEPS, 3, 50_001))


def test_numbers_are_normal_and_independent() -> None:
    z = keyed_normal(0, torch.arange(1000), START, 0, 301)
    n = z.numel()
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)
    levels = torch.linspace(-3, 3, 25)
    found = torch.stack([(z < level).double().mean() for level in levels])
    assert (found - torch.special.ndtr(levels)).abs().max() < 2 / math.sqrt(n)
    others = (
        keyed_normal(1, torch.arange(1000), START, 0, 301),  # seed
        keyed_normal(0, torch.arange(1000) + 1, START, 0, 301),  # sample
        keyed_normal(0, torch.arange(1000), STEPS, 0, 301),  # stream
        keyed_normal(0, torch.arange(1000), START, 1, 301),  # counter
        z.roll(1, 1),  # entry
    )
    seeds = [keyed_normal(seed, torch.arange(50), START, 0, 1) for seed in range(50)]
    assert len(torch.cat(seeds).unique()) == 2500  # seed a, sample b is not seed b, sample a
    for other in others:
        assert abs((z * other).mean()) < 4.5 / math.sqrt(n)


def test_uniform_numbers_fill_the_interval() -> None:
    u = keyed_uniform(0, torch.arange(500), START, 0, 400)
    assert 0 < u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert abs(u.mean() - 0.5) < 4 / math.sqrt(12 * u.numel())


def test_increment_and_integral_have_their_joint_moments() -> None:
    h = 0.7
    noise = Increments(0, torch.arange(200_000), torch.zeros(200_000, 1))
    ends = torch.tensor(0.1), torch.tensor(0.1 + h)
    w, u = (part[:, 0] for part in noise.increment_and_integral(4, *ends))
    cov = torch.stack([w, u]).cov()
    want = torch.tensor([[h, h**2 / 2], [h**2 / 2, h**3 / 3]])
    assert (cov / want - 1).abs().max() < 0.02
    assert torch.equal(w, noise.increment(4, *ends)[:, 0])


class FinePath(Brownian):
    r"""One Brownian path, fine enough that its integral is known, seen by any step count."""

    def __init__(self, rows: int, fine: int, span: float) -> None:
        self.h = span / fine
        steps = math.sqrt(self.h) * keyed_normal(7, torch.arange(rows), STEPS, 0, fine)
        zero = torch.zeros(rows, 1)
        self.w = torch.cat([zero, steps.cumsum(1)], dim=1)
        area = (self.w[:, 1:] + self.w[:, :-1]) / 2 * self.h
        self.area = torch.cat([zero, area.cumsum(1)], dim=1)

    def increment(self, step: int, t0: Tensor, t1: Tensor) -> Tensor:
        i, j = (round(float(t) / self.h) for t in (t0, t1))
        return self.w[:, j : j + 1] - self.w[:, i : i + 1]

    def increment_and_integral(self, step: int, t0: Tensor, t1: Tensor) -> tuple[Tensor, Tensor]:
        i, j = (round(float(t) / self.h) for t in (t0, t1))
        area = self.area[:, j : j + 1] - self.area[:, i : i + 1] - (t1 - t0) * self.w[:, i : i + 1]
        return self.increment(step, t0, t1), area


@pytest.mark.parametrize("name", ON_SDES)
def test_strong_order_on_one_path(name: str) -> None:
    rows, fine, span = 300, 2**12, 2.0
    problem = SDE(lambda t, x: torch.sin(x) - x, lambda t: 0.5 + 0.2 * torch.cos(t))
    noise, x = FinePath(rows, fine, span), torch.full((rows, 1), 0.5)

    def run(steps: int, solver: str) -> Tensor:
        return solve(problem, x, torch.linspace(0, span, steps + 1), solver, noise=noise).x

    truth = run(fine, "torchsde/srk")
    errors = [(run(steps, name) - truth).square().mean().sqrt() for steps in (32, 128)]
    order = math.log2(errors[0] / errors[1]) / 2
    assert order > solvers.get(name).order - 0.25


@pytest.mark.parametrize("name", ON_SDES)
def test_moments_of_ornstein_uhlenbeck(name: str) -> None:
    problem = SDE(lambda t, x: -x, lambda t: torch.full_like(t, math.sqrt(2.0)))
    x = solve(problem, torch.zeros(40_000, 1), torch.linspace(0, 1.5, 61), name, seed=3).x
    variance = 1 - math.exp(-3.0)
    assert abs(x.mean()) < 0.02
    assert abs(x.var() / variance - 1) < 0.05


@pytest.mark.parametrize("name", ON_SDES)
def test_rows_of_a_stochastic_run_do_not_depend_on_the_batch(name: str) -> None:
    problem = SDE(lambda t, x: -x, torch.ones_like)
    times, x = torch.linspace(1.0, 0.0, 8), torch.randn(7, 2, 3)
    index = torch.arange(7)
    together = solve(problem, x, times, name, noise=Increments(5, index, x)).x
    for i in range(7):
        row = slice(i, i + 1)
        alone = solve(problem, x[row], times, name, noise=Increments(5, index[row], x[row])).x
        assert torch.equal(alone, together[row])


def test_torchsde_euler_is_our_euler_maruyama() -> None:
    problem = SDE(lambda t, x: -t * x, lambda t: 1 + t)
    times, x = torch.linspace(2.0, 0.5, 12) ** 2, torch.randn(3, 4)
    runs = [
        solve(problem, x, times, name, seed=1).x
        for name in ("em", "torchsde/euler", "torchsde/milstein")
    ]
    assert torch.allclose(runs[0], runs[1], atol=1e-14)
    assert torch.allclose(runs[0], runs[2], atol=1e-14)
