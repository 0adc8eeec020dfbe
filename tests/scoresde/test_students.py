r"""Twice a stated error of few numbers holds the truth in 95 % of cases, whatever their number and skewness."""

import math

import pytest
import torch

import scoresde as ss
from scoresde.likelihood.students import error_of_mean, freedom, widening

SINGULAR = torch.tensor([[[1.0, 0.0], [0.0, 1e-3]], [[0.5, 0.3], [0.3, 0.1801]]]).double()


def test_the_factor_is_the_quantile_of_the_t_distribution() -> None:
    # t_1 is Cauchy's law, and t_2 has a quantile in closed form
    chance = 0.5 + math.erf(2 / math.sqrt(2)) / 2
    of_two = (2 * chance - 1) * math.sqrt(2 / (1 - (2 * chance - 1) ** 2))
    want = [math.tan(math.pi * (chance - 0.5)) / 2, of_two / 2, 1.0]
    found = widening(torch.tensor([1.0, 2.0, math.inf]))
    assert torch.allclose(found, torch.tensor(want).double(), rtol=1e-6)
    assert widening(torch.tensor([0.2])) == widening(torch.tensor([1.0]))


def test_even_shares_have_the_freedom_of_all_and_a_single_one_its_own() -> None:
    shares = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert freedom(shares, 3).tolist() == [12.0, 3.0, math.inf]


@pytest.mark.parametrize("count", [2, 4, 8, 16, 64])
@pytest.mark.parametrize("skewed", [False, True])
def test_twice_the_error_of_a_mean_holds_it(count: int, skewed: bool) -> None:
    z = torch.randn(count, 20000, generator=torch.Generator().manual_seed(count)).double()
    values = (0.7 * z).exp() if skewed else z
    mean = math.exp(0.7**2 / 2) if skewed else 0.0
    inside = ((values.mean(0) - mean).abs() < 2 * error_of_mean(values)).double().mean()
    assert (0.93 if skewed else 0.945) < inside < 0.99
    plain = values.std(0) / math.sqrt(count)
    without = ((values.mean(0) - mean).abs() < 2 * plain).double().mean()
    assert without < inside


def test_one_number_tells_no_error() -> None:
    assert error_of_mean(torch.ones(1, 3)).isnan().all()
    assert error_of_mean(torch.ones(5, 3)).tolist() == [0.0] * 3


def inside_of(draws: int, processes: tuple[ss.Process, ...], repeats: int) -> float:
    found = []
    for process in processes:
        oracle = ss.MixtureOracle(
            torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double(), SINGULAR, process=process
        )
        x = oracle.data(8, seed=3).repeat_interleave(repeats, 0)
        bound = ss.elbo(oracle, x, draws=draws)
        error = bound.nats - oracle.log_density(x, process.start_of("likelihood"))
        found.append((error.abs() < 2 * bound.stderr).double().mean().item())
    return min(found)


def test_twice_the_error_of_eight_draws_holds_the_bound() -> None:
    assert inside_of(8, (ss.VP(),), 20) > 0.92


@pytest.mark.slow
@pytest.mark.parametrize("draws", [8, 16, 64])
def test_twice_the_error_of_draws_holds_the_bound(draws: int) -> None:
    assert inside_of(draws, (ss.VP(), ss.EDM(), ss.Interpolant()), 100) > 0.94


@pytest.mark.slow
@pytest.mark.parametrize("probes", [1, 2])
def test_the_total_holds_for_few_probes_at_a_narrow_band(probes: int) -> None:
    angles = torch.arange(60).double() * 2 * math.pi / 60
    means = torch.stack([angles.cos(), angles.sin()], 1)
    oracle = ss.KernelOracle(means, 0.05, ss.VP())
    x = oracle.data(12, seed=3).repeat_interleave(40, 0)
    found = ss.log_likelihood(oracle, x, divergence="hutchinson", probes=probes)
    error = (found.nats - oracle.log_density(x.double(), found.t_min)).abs()
    assert (error <= found.total).double().mean() > 0.94
    assert (error / found.total).max() < 5
