r"""One Brownian path, whoever asks, and what it is good for."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from solvers import SDE, ConstantRate, Path, SemiLinear, solve
from solvers.noise.path import LEVELS, MESH, RESOLUTION


def make(rows: int = 4, seed: int | Tensor = 0, size: int = 3) -> Path:
    return Path(seed, torch.arange(rows), torch.zeros(rows, size))


def at(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(times=st.lists(st.floats(-31.9, 31.9), min_size=1, max_size=6), seed=st.integers(0, 2**40))
def test_the_path_does_not_depend_on_the_order_of_queries(times: list[float], seed: int) -> None:
    forward, backward, fresh = make(seed=seed), make(seed=seed), make(seed=seed)
    values = [forward.at(at(t)) for t in times]
    again = [backward.at(at(t)) for t in reversed(times)]
    for t, x, y in zip(times, values, reversed(again), strict=True):
        assert torch.equal(x, y)
        assert torch.equal(x, fresh.at(at(t).expand(4)))  # each sample asked on its own
    assert torch.equal(values[0], make(seed=seed).at(at(times[0])))


def test_a_row_of_the_path_does_not_depend_on_its_batch() -> None:
    index = torch.tensor([3, 1])
    some = make(5).rows(index)
    assert torch.equal(some.at(at(1.234)), make(5).at(at(1.234))[index])
    times = torch.tensor([0.1, 0.7, -2.0, 5.0, 0.2])
    assert torch.equal(some.at(times[index]), make(5).at(times)[index])
    seeds = torch.tensor([8, 9, 8, 8, 8])
    keyed = Path(seeds, torch.zeros(5, dtype=torch.int64), torch.zeros(5, 3)).at(at(0.3))
    assert torch.equal(keyed[0], keyed[2])
    assert torch.equal(keyed[1], make(1, seed=9).at(at(0.3))[0])


@pytest.mark.parametrize("h", [3.0, 0.1, MESH, MESH / 10, 1e-4, 1e-6, RESOLUTION])
def test_increments_have_the_law_of_brownian_motion(h: float) -> None:
    path = Path(0, torch.arange(40_000), torch.zeros(40_000, 1, dtype=torch.float64))
    times = [at(0.7 + i * h) for i in range(4)]
    w = torch.cat([path.increment(0, s, t) for s, t in zip(times[:-1], times[1:], strict=True)], 1)
    cov = w.T.cov() / h
    assert (cov - torch.eye(3)).abs().max() < 0.03
    kurtosis = (w[:, 0] / w[:, 0].std()).pow(4).mean()
    assert abs(kurtosis - 3) < 0.15


def test_the_variance_is_right_inside_an_interval() -> None:
    path = make(40_000, size=1)
    for length in (MESH, RESOLUTION):
        for theta in (0.1, 0.5, 0.8):
            w = path.increment(0, at(0.0), at(theta * length))
            assert abs(w.var() / (theta * length) - 1) < 0.03


def test_steps_that_a_path_does_not_resolve_are_refused() -> None:
    problem, x = SDE(lambda t, x: -x, torch.ones_like), torch.zeros(4, 3)
    grid = 0.5 + torch.arange(5, dtype=torch.float64) * RESOLUTION
    assert solve(problem, x, grid, "em", noise=make()).status == ("ok",) * 4
    with pytest.raises(ValueError, match=r"differ by 7.5e-09 or more.*pass noise='increments'"):
        solve(problem, x, torch.lerp(grid, grid[2], 0.5), "em", noise=make())


def test_the_integral_is_that_of_the_path() -> None:
    path, (t0, t1) = make(), (at(0.013), at(0.3))
    w, area = path.increment_and_integral(0, t0, t1)
    times = torch.linspace(0.013, 0.3, 4001, dtype=torch.float64)
    values = torch.stack([path.at(t) for t in times]) - path.at(t0)
    assert torch.allclose(area, torch.trapezoid(values, times, dim=0), atol=5e-3)
    assert torch.equal(w, path.increment(0, t0, t1))
    back, reverse = path.increment_and_integral(0, t1, t0)
    assert torch.allclose(back, -w)
    h = t1 - t0
    assert torch.allclose(reverse, -(area - h * w), atol=1e-12)


@pytest.mark.parametrize("h", [8 * MESH, 0.9 * MESH, 1e-5])
def test_the_joint_moments_of_increment_and_integral(h: float) -> None:
    path = make(40_000, size=1)
    w, area = (v[:, 0] for v in path.increment_and_integral(0, at(0.3), at(0.3 + h)))
    want = torch.tensor([[h, h**2 / 2], [h**2 / 2, h**3 / 3]])
    assert (torch.stack([w, area]).cov() / want - 1).abs().max() < 0.03
    bridge = area - h * w / 2  # independent of the increment, with the variance h^3 / 12
    assert abs(bridge.var() / (h**3 / 12) - 1) < 0.05


def test_a_path_ends_somewhere() -> None:
    with pytest.raises(ValueError, match="from -32 to 32"):
        make().at(at(33.0))


@pytest.mark.parametrize(("name", "order"), [("em", 1.0), ("sra1", 1.5), ("torchsde/srk", 1.5)])
def test_strong_order_on_the_path(name: str, order: float) -> None:
    problem = SDE(lambda t, x: torch.sin(x) - x, lambda t: 0.5 + 0.2 * torch.cos(t))
    x = torch.full((200, 1), 0.5)

    def run(steps: int, solver: str) -> Tensor:
        times = torch.linspace(0, 512 * MESH, steps + 1)
        return solve(problem, x, times, solver, noise=make(200, size=1)).x

    truth = run(512, "sra1")
    errors = [(run(steps, name) - truth).square().mean().sqrt() for steps in (8, 32)]
    assert math.log2(errors[0] / errors[1]) / 2 > order - 0.25


class Redrawn(Path):
    r"""What not to do: each attempt at a step sees new noise."""

    tries: list[int] = []

    def increment(self, step: int, t0: Tensor, t1: Tensor) -> Tensor:
        self.tries.append(1)
        return self.fresh(len(self.tries), 0) * (t1 - t0).abs().sqrt()[:, None]

    def rows(self, index: Tensor) -> "Redrawn":
        return Redrawn(self.seed, self.index[index], self.like[index])


class Noisy(ConstantRate):
    def noise_std(self, s: Tensor, t: Tensor) -> Tensor:
        return (0.3 * -torch.expm1(-2 * (t - s))).sqrt()[..., None]


def bias(tolerance: float, kind: type[Path], rows: int = 1500) -> float:
    r"""How far adaptive steps change the mean size of a bistable particle, in shares of it."""

    problem = SemiLinear(lambda t, x: torch.tanh(3 * x), Noisy(-1.0))
    like = torch.zeros(rows, 1)

    def run(times: Tensor, solver: str, noise: Path, **tolerances: float) -> float:
        x = solve(problem, like, times, solver, noise=noise, **tolerances).x
        return x.abs().mean().item()

    truth = run(torch.linspace(0, 6, 1201), "ancestral", Path(5, torch.arange(rows), like))
    adaptive = {"rtol": 0.0, "atol": tolerance}
    noise = kind(5, torch.arange(rows), like)
    return abs(run(torch.tensor([0.0, 6.0]), "exponential_sde", noise, **adaptive) / truth - 1)


@pytest.mark.slow
def test_bias_falls_with_the_tolerance_on_one_path_but_grows_with_new_noise() -> None:
    kept, redrawn = (
        [bias(tolerance, kind) for tolerance in (0.1, 0.01)] for kind in (Path, Redrawn)
    )
    assert kept[1] < 0.6 * kept[0]
    assert kept[1] < 0.03
    assert redrawn[1] > 2 * redrawn[0]
    assert redrawn[1] > 0.15


def test_adaptive_steps_have_the_law_of_a_linear_equation() -> None:
    problem, rows = SemiLinear(lambda t, x: torch.zeros_like(x), Noisy(-1.0)), 40_000
    times, x = torch.tensor([0.0, 0.8]), torch.zeros(rows, 1)
    s = solve(problem, x, times, "exponential_sde", rtol=0.0, atol=0.1, seed=2)
    assert abs(s.x.var() / (0.3 * (1 - math.exp(-1.6))) - 1) < 0.03
    assert abs(s.x.mean()) < 0.01


def test_intervals_fit_the_counter() -> None:
    assert 2**LEVELS * RESOLUTION == 64.0
