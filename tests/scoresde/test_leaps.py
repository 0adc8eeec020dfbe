r"""Under tolerances no step leaps over the flow, and errors are held against where steps end."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.processes.process import Process
from scoresde.reverse.reverse import Reverse
from solvers import ODE

from .cases import PROCESSES

SOLVERS = [
    name
    for name in solvers.available()
    if solvers.get(name).adaptive and not solvers.get(name).stochastic and "scipy" not in name
]
FIRST = ("exponential", "dopri5", "torchdiffeq/dopri5")  # at every commit
STANDARD = ("VP", "VP-cosine", "SubVP", "VE", "EDM", "Interpolant")
WIDE = ss.EDM(ss.Karras(0.002, 1e5))
FEW = [(1.0, 1e-1), (0.5, 1e-3), (0.2, 1e-2)]  # deviations and tolerances
ALLOWED = 20  # times the tolerance of a step, at the end of all steps


def flow(process: Process, std: float, x: Tensor, times: Tensor) -> Tensor:
    r"""The probability flow of N(0, std^2) between two times, in closed form."""

    alpha, sigma = process.scales(times)
    size = torch.sqrt(alpha**2 * std**2 + sigma**2)
    return x * size[1] / size[0]


def misses(
    process: Process,
    std: float,
    tolerance: float,
    up: bool,
    mean: float = 0.0,
    known: bool = True,
    **options: Any,
) -> float:
    r"""The largest error of a run, relative to its tolerance."""

    oracle = ss.GaussianOracle(torch.tensor([mean]).double(), std, process=process)
    model: ss.ScoreModel = oracle
    if not known:
        model = ss.NetworkScore(oracle.denoise, process, "data", shape=(1,))
        model.data_scale = oracle.data_scale
    options |= {"rtol": tolerance, "atol": tolerance}
    if up:
        x = oracle.data(12)
        made = ss.encode(model, x, **options)
        x = x * process.scales(made.times[0])[0]
    else:
        x = process.prior_sample((12, 1), dtype=torch.float64)
        made = ss.decode(model, x, denoise=False, **options)
    means = process.scales(made.times)[0] * mean
    right = means[-1] + flow(process, std, x - means[0], made.times[[0, -1]])
    return float(((made.x - right).abs() / (tolerance * (1 + right.abs()))).max())


@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
@pytest.mark.parametrize(
    ("solver", "process"),
    [
        pytest.param(solver, process, marks=() if solver in FIRST else pytest.mark.slow)
        for process in STANDARD
        for solver in SOLVERS
    ]
    + [("exponential", process) for process in PROCESSES if process not in STANDARD],
)
def test_gaussians_come_out_at_loose_tolerances(solver: str, process: str, up: bool) -> None:
    for std, tolerance in FEW:
        assert misses(PROCESSES[process], std, tolerance, up, solver=solver) < ALLOWED


@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
@pytest.mark.parametrize("solver", ["exponential", "dopri5", "torchdiffeq/dopri5", "dpm_adaptive"])
def test_very_large_noise_excuses_no_error_in_the_data(solver: str, up: bool) -> None:
    for std, tolerance in [(0.05, 1e-2), (0.02, 1e-4)]:
        assert misses(WIDE, std, tolerance, up, solver=solver) < ALLOWED


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize(
    "solver",
    [
        pytest.param(solver, marks=() if solver in FIRST else pytest.mark.slow)
        for solver in SOLVERS
        if solver != "torchdiffeq/adaptive_heun"
    ],
)
def test_far_means_excuse_no_error_on_the_way_to_noise(solver: str, known: bool) -> None:
    for process in (ss.VP(), ss.EDM()):
        for mean, std, tolerance in [(3.0, 0.02, 1e-3), (-100.0, 0.2, 1e-2)]:
            for up in (False, True):
                found = misses(process, std, tolerance, up, mean, known, solver=solver)
                assert found < ALLOWED


@pytest.mark.parametrize("solver", FIRST)
def test_far_modes_and_means_of_entries_excuse_none(solver: str) -> None:
    means = torch.tensor([[5.0, -0.2, 40.0], [-5.0, 0.1, 40.0]], dtype=torch.float64)
    mixture = ss.MixtureOracle(means, 0.02)
    network = ss.NetworkScore(mixture.denoise, mixture.process, "data", shape=(3,))
    network.moments = mixture.moments  # in which the modes are no points
    options: dict[str, Any] = {"t_min": 2e-3, "solver": solver}
    right = ss.encode(mixture, mixture.data(6), rtol=1e-9, atol=1e-9, **options).x
    for model in (mixture, network):
        made = ss.encode(model, mixture.data(6), rtol=1e-3, atol=1e-3, **options).x
        assert float(((made - right).abs() / (1 + right.abs())).max()) < ALLOWED * 1e-3


def test_the_deviation_of_a_gaussian_is_told_by_its_steps() -> None:
    oracle = ss.GaussianOracle(torch.tensor([3.0, -50.0]).double(), 0.3, process=ss.VP())
    problem = Reverse(oracle, ODE, 0.0, "log_snr").problem()
    x, ends = oracle.data(5), [0.05, 0.06]
    times = torch.tensor(ends, dtype=torch.float64)
    alpha, sigma = oracle.process.scales(times)
    x = alpha[0] * x
    y = oracle.flow(x, *ends)
    sizes = problem.sizes(oracle.process.log_snr(times)[:, None].expand(2, 5))
    least = 0.03 * torch.sqrt(alpha[1] ** 2 * 0.3**2 + sigma[1] ** 2)
    want = (y - alpha[1] * oracle.means[0]).abs().clamp(min=float(least))
    torch.testing.assert_close(problem.deviation(sizes, x, y), want, rtol=1e-8, atol=0)


def test_an_absolute_tolerance_is_what_the_flow_makes_of_it_at_the_end() -> None:
    oracle = ss.GaussianOracle(torch.tensor([3.0]).double(), 0.3, process=ss.EDM())
    problem = Reverse(oracle, ODE, 0.0, "log_snr").problem()
    times, x = torch.tensor([0.1, 80.0], dtype=torch.float64), oracle.data(5)
    ends = [problem.sizes(t) for t in oracle.process.log_snr(times)]
    allowed = problem.tolerance(*ends)
    error = oracle.flow(x + allowed, 0.1, 80.0) - oracle.flow(x, 0.1, 80.0)
    torch.testing.assert_close(error, torch.ones_like(error), rtol=1e-8, atol=0)


@pytest.mark.parametrize("solver", ["dopri5", "bosh3", "torchdiffeq/dopri5"])
@pytest.mark.parametrize("process", [ss.VP(), ss.VE()], ids=["VP", "VE"])
def test_steps_in_t_are_bounded_in_log_snr_too(solver: str, process: Process) -> None:
    for up in (False, True):
        assert misses(process, 0.2, 1e-2, up, solver=solver, clock="t") < ALLOWED


@pytest.mark.parametrize("solver", ["dopri5", "exponential", "torchdiffeq/bosh3"])
@pytest.mark.parametrize("clock", ["t", "log_snr"])
def test_no_step_is_longer_than_the_largest(solver: str, clock: str) -> None:
    options: dict[str, Any] = {} if solver == "exponential" else {"clock": clock}
    model = ss.GaussianOracle(torch.zeros(1, dtype=torch.float64), 1.0, process=ss.VP())
    times = [torch.tensor([1.0], dtype=torch.float64)]
    ss.sample(
        model,
        1,
        solver=solver,
        rtol=0.5,
        atol=0.5,
        max_step=0.3,
        first_step=0.1,
        callback=lambda event: times.append(event.time.reshape(1)),
        **options,
    )
    steps = model.process.log_snr(torch.cat(times)).diff()
    assert math.isclose(steps[0].item(), 0.1, rel_tol=1e-3)
    assert float(steps.max()) < 0.3 * (1 + 1e-5)
    assert float(steps.max()) > 0.2


def test_a_process_without_noise_levels_has_a_largest_step_in_its_time() -> None:
    process = ss.NonlinearProcess(lambda x, t: -x, lambda t: 1.4 * torch.ones_like(t), t_max=3.0)
    model = ss.NetworkScore(lambda x, t: -x, process, predicts="score", shape=(2,))
    made = ss.sample(model, 2, solver="dopri5", rtol=0.5, atol=0.5, denoise=False)
    assert int(made.accepted.min()) >= 10


@pytest.mark.parametrize("name", ["max_step", "first_step"])
def test_lengths_of_steps_are_for_tolerances(name: str) -> None:
    model = ss.GaussianOracle(torch.zeros(1), 1.0)
    with pytest.raises(ValueError, match=f"{name}= has no effect on the steps of a grid"):
        ss.sample(model, 2, steps=5, **{name: 0.1})
    with pytest.raises(ValueError, match=f"{name} must be a number > 0, but is 0"):
        ss.sample(model, 2, rtol=1e-3, **{name: 0.0})


def test_an_estimate_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fehlberg2.*adaptive_heun"):
        solvers.get("torchdiffeq/fehlberg2")
