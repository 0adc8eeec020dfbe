r"""Much noise, and noise under tolerances: the laws they must leave."""

import math
import warnings
from typing import Any

import pytest
import torch

import scoresde as ss
import solvers
from solvers.methods.weights import exact, weights
from solvers.problem import ConstantRate

from .cases import PROCESSES, mixture

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
    found = weights(linear, *ends, linear.decay(*ends), nodes, exact)
    assert found.sum().item() == pytest.approx(-math.expm1(-step), rel=1e-12)
    first = found[0, :, 0] @ nodes[0]  # the integral of e^(u - t) u du
    assert first.item() == pytest.approx(step - 1 + math.exp(-step), rel=1e-9, abs=1e-12)


def _modes(process: ss.Process, size: int) -> ss.MixtureOracle:
    means = torch.tensor([[2.0], [-1.0]], dtype=torch.float64).expand(2, size)
    shares = torch.tensor([0.25, 0.75], dtype=torch.float64)
    return ss.MixtureOracle(means, 0.3, weights=shares, process=process)


def _check_modes(model: ss.MixtureOracle, count: int, tolerance: float) -> None:
    r"""Holds weights within 3 standard errors, and the deviation around means within 1 %."""

    x = ss.sample(model, count, solver="exponential_sde", rtol=tolerance, atol=tolerance, seed=1).x
    right = x.mean(1) > 0.5
    spread = math.sqrt(0.25 * 0.75 / count)
    assert right.double().mean().item() == pytest.approx(0.25, abs=3 * spread)
    centres = torch.where(right, x[right].mean(), x[~right].mean())[:, None]
    assert (x - centres).square().mean().sqrt().item() == pytest.approx(0.3, rel=0.01)
    for mode in (right, ~right):
        allowed = 0.3 * (0.01 + 3 / math.sqrt(2 * int(mode.sum()) * x.shape[1]))
        assert x[mode].std().item() == pytest.approx(0.3, abs=allowed)


def test_adaptive_noise_leaves_the_width_of_modes() -> None:
    _check_modes(_modes(ss.VP(), 256), 250, 0.01)  # many entries tell a deviation by few samples


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [0.01, 0.001])
@pytest.mark.parametrize("process", ["VP", "EDM", "Interpolant", "VE", "VP-cosine"])
def test_adaptive_noise_leaves_the_weights_and_widths_of_modes(
    process: str, tolerance: float
) -> None:
    _check_modes(_modes(PROCESSES[process], 2), 16_000, tolerance)


@pytest.mark.parametrize("level", [0.5, 5.0])
@pytest.mark.parametrize("size", [1, 2, 16])
def test_langevin_steps_leave_the_law_of_any_dimension(size: int, level: float) -> None:
    model = ss.GaussianOracle(torch.zeros(size, dtype=torch.float64), 1.0, process=ss.EDM())
    count, ratio = 8000 // size, 0.16
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(count, size, dtype=torch.float64, generator=draw) * math.hypot(1, level)
    steps = solvers.Langevin("steps", None, corrections=200, ratio=ratio)
    times = torch.tensor([level * (1 + 1e-6), level], dtype=torch.float64)
    y = ss.decode(model, x, solver=steps, times=times, t_max=float(times[0]), denoise=False).x
    tau, noisy = 2 * ratio**2, level**2 / (1 + level**2)
    right = (1 + level**2) / (1 - tau * noisy / 2)  # where steps of this size have their balance
    assert y.var().item() == pytest.approx(right, rel=3.5 * math.sqrt(2 / (count * size)))


FLOW = (
    "deis_3",
    "dpm_2m",
    "ipndm_4",
    "lms_4",
    "dpm_2",
    "em",
    "torchsde/reversible_heun",
    "unipc_4",
    "sa",
)


@pytest.mark.filterwarnings("ignore:at ")
@pytest.mark.parametrize(
    "process",
    [
        "VP",
        *(
            pytest.param(p, marks=pytest.mark.slow)
            for p in ("EDM", "VE", "VP-cosine", "Interpolant")
        ),
    ],
)
@pytest.mark.parametrize("solver", FLOW)
def test_noise_that_a_solver_multiplies_is_told(solver: str, process: str) -> None:
    r"""The second moment of data is known, so that what comes out shows who had to warn."""

    model = mixture(PROCESSES[process])
    right = model.data(4000).square().mean().sqrt().item()
    for eta, steps in ((1.0, 5), (2.0, 20), (1.0, 50)):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            options: dict[str, Any] = {"solver": solver, "steps": steps, "eta": eta, "seed": 1}
            s = ss.sample(model, 200, on_failure="partial", **options)
        told = any("noisy steps" in str(w.message) for w in heard)
        gain = s.x.square().mean().sqrt().item() / right
        assert told or not s.ok or gain < 1.8
        assert gain > 1.2 or not told
