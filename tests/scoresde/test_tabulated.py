r"""Schedules from tables: exact at their nodes, linear in log-SNR between, and laws hold on them."""

import math

import pytest
import torch

import scoresde as ss

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)


def test_whole_times_have_the_scales_of_the_table() -> None:
    process = ss.VP(ss.Tabulated.from_betas(BETAS))
    signal = (1 - BETAS).cumprod(0)
    alpha, sigma = process.scales(torch.arange(1000, dtype=torch.float64))
    assert torch.allclose(alpha**2, signal, rtol=1e-12)
    assert torch.allclose(sigma**2, 1 - signal, rtol=1e-12)


@pytest.mark.parametrize("t", [0.25, 3.5, 500.75, 998.999])
def test_log_snr_is_linear_between_nodes(t: float) -> None:
    schedule = ss.Tabulated.from_betas(BETAS)
    left, right = (
        float(schedule(torch.tensor(f(t), dtype=torch.float64))) for f in (math.floor, math.ceil)
    )
    found = schedule(torch.tensor(t, dtype=torch.float64))
    share = t - math.floor(t)
    assert float(found) == pytest.approx((1 - share) * left + share * right, rel=1e-12)
    assert float(schedule.inverse(found)) == pytest.approx(t, rel=1e-12)


def test_the_three_tables_of_one_schedule_agree() -> None:
    signal = (1 - BETAS).cumprod(0)
    by_betas = ss.Tabulated.from_betas(BETAS)
    by_signal = ss.Tabulated.from_alphas_cumprod(signal)
    by_levels = ss.Tabulated.from_sigmas(((1 - signal) / signal).sqrt())
    for other in (by_signal, by_levels):
        assert torch.allclose(other.table, by_betas.table, rtol=0, atol=1e-12)
    assert by_betas == ss.Tabulated.from_betas(BETAS)


def test_the_table_of_a_known_schedule_gives_its_law() -> None:
    beta = ss.VP().schedule
    times = torch.linspace(1e-3, 1, 2000, dtype=torch.float64)
    tabulated = ss.VP(ss.Tabulated(beta(times)))
    model = ss.GaussianOracle(torch.tensor([0.5, -1.0]), 0.3, process=tabulated)
    likelihood = ss.log_likelihood(model, torch.zeros(1, 2))
    truth = -(0.5**2 + 1) / 2 / 0.09 - 2 * math.log(0.3 * math.sqrt(2 * math.pi))
    assert abs(float(likelihood.nats[0]) - truth) < float(likelihood.total[0]) < 0.05
    x = ss.sample(model, 4000, rtol=1e-5, atol=1e-5, dtype=torch.float64).x
    assert torch.allclose(x.std(0), torch.tensor([0.3, 0.3], dtype=x.dtype), atol=0.01)


def test_a_zero_terminal_snr_serves_v_and_data_but_not_noise() -> None:
    signal = torch.linspace(0.999, 0.0, 100, dtype=torch.float64)
    process = ss.VP(ss.Tabulated.from_alphas_cumprod(signal))
    assert process.noise_level(99.0) == pytest.approx(2.0**24, rel=1e-6)
    for predicts in ("v", "data"):
        ss.NetworkScore(lambda x, t: x, process, predicts)
    with pytest.raises(ValueError, match="no signal is left"):
        ss.NetworkScore(lambda x, t: x, process, "noise")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ss.Tabulated.from_betas([0.1, 2.0]), "from 0 to 1, but has 2"),
        (lambda: ss.Tabulated.from_betas([0.1, 0.0]), "must decrease"),
        (lambda: ss.Tabulated.from_betas(torch.ones(2, 2)), "shape"),
        (lambda: ss.Tabulated.from_alphas_cumprod([0.1, 0.9]), "must decrease.*order the table"),
        (lambda: ss.Tabulated.from_alphas_cumprod([1.0, 0.9]), "without any noise"),
        (lambda: ss.Tabulated.from_sigmas([2.0, 1.0]), "increase.*from data to noise"),
        (lambda: ss.Tabulated.from_sigmas([0.0, 1.0]), "positive.*leave out a 0"),
        (lambda: ss.Tabulated([1.0]), "at least two"),
        (lambda: ss.Tabulated([1.0, math.nan]), "finite"),
    ],
)
def test_other_tables_are_refused(make: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()  # type: ignore[operator]
