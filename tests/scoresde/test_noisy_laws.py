r"""Much noise, and noise under tolerances: the laws they must leave."""

import math

import pytest
import torch

import scoresde as ss
from solvers.problem import ConstantRate
from solvers.weights import exact, weights

FULL = (10.0, 100.0, 1e4)  # amounts of noise after which a step starts anew
ONCE = ("ddim", "ancestral", "er_sde", "unipc_1", "dpmpp_2s_ancestral", "recurrent")


def _share(level: float) -> float:
    r"""How much of a deviation from the mean an estimate keeps."""

    return 0.05**2 / (0.05**2 + level**2)


@pytest.mark.parametrize("eta", FULL)
@pytest.mark.parametrize("solver", ONCE)
def test_with_much_noise_each_step_draws_anew_around_the_estimate(solver: str, eta: float) -> None:
    model = ss.GaussianOracle(torch.ones(1, dtype=torch.float64), 0.05, process=ss.VP())
    made = ss.sample(model, 4000, solver=solver, steps=4, eta=eta, dtype=torch.float64)
    levels = model.process.log_snr(made.times).neg().exp().tolist()
    variance = 0.05**2 + levels[0] ** 2  # of x = D + s z, whose D is the estimate a step before
    for before, level in zip(levels[:-1], levels[1:], strict=True):
        variance = _share(before) ** 2 * variance + level**2
    right = _share(levels[-1]) * math.sqrt(variance)
    assert made.x.mean().item() == pytest.approx(1, abs=0.02)
    assert made.x.std().item() == pytest.approx(right, rel=0.05)


@pytest.mark.parametrize("step", [1e-3, 1.0, 40.0, 1e4])
def test_weights_of_any_step_sum_to_one_less_its_decay(step: float) -> None:
    linear = ConstantRate(-1.0)
    ends = torch.tensor([[0.0], [step]], dtype=torch.float64)
    nodes = torch.tensor([[0.0, -1.0]], dtype=torch.float64)
    found = weights(linear, ends[0], ends[1], nodes, exact)
    assert found.sum().item() == pytest.approx(-math.expm1(-step), rel=1e-12)
    first = found[0, :, 0] @ nodes[0]  # the integral of e^(u - t) u du
    assert first.item() == pytest.approx(step - 1 + math.exp(-step), rel=1e-9, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("process", [ss.VP(), ss.Interpolant()], ids=["VP", "Interpolant"])
def test_adaptive_noise_leaves_the_weights_and_widths_of_modes(process: ss.Process) -> None:
    means = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
    shares = torch.tensor([0.25, 0.75], dtype=torch.float64)
    model = ss.MixtureOracle(means, 0.3, weights=shares, process=process)
    count = 4000
    x = ss.sample(model, count, solver="exponential_sde", rtol=1e-2, atol=1e-2, seed=1).x[:, 0]
    right = x > 0.5
    spread = math.sqrt(0.25 * 0.75 / count)
    assert right.double().mean().item() == pytest.approx(0.25, abs=3 * spread)
    for mode in (right, ~right):
        allowed = 0.3 * (0.015 + 3 / math.sqrt(2 * int(mode.sum())))
        assert x[mode].std().item() == pytest.approx(0.3, abs=allowed)
