r"""Measured orders on two processes, against the exact flow of data that is not Gaussian."""

import math

import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from solvers import ExponentialMultistep, SemiLinear, Solver
from solvers.noise.path import MESH

from ..families import family_first
from .cases import MEANS, PROCESSES, mixture, quantile

ON_EVEN_GRIDS = [
    name
    for name in solvers.available()
    if solvers.get(name).fixed
    and not solvers.get(name).stochastic
    and not solvers.get(name).even
    and name != "dopri5"  # which goes from too few steps to round-off
]


def times(process: ss.Process, solver: Solver, start: float, stop: float, steps: int) -> Tensor:
    r"""A grid even in log-SNR, which starts with ever longer steps where methods need a past."""

    ends = torch.tensor([start, stop])
    clock = torch.linspace(*process.log_snr(ends).tolist(), steps + 1)
    if isinstance(solver, ExponentialMultistep):
        ramp = clock[0] + (clock[1] - clock[0]) * 2.0 ** -torch.arange(12, 0, -1)
        clock = torch.cat([clock[:1], ramp, clock[1:]])
    found = process.time(clock)
    found[[0, -1]] = ends
    return found


@pytest.mark.parametrize("process", ["VP", "EDM"])
@pytest.mark.parametrize("name", family_first(ON_EVEN_GRIDS))
def test_order_is_the_catalogues(name: str, process: str) -> None:
    solver, oracle, errors = solvers.get(name), quantile(PROCESSES[process]), []
    start, stop = (oracle.process.at_noise_level(level) for level in (5.0, 0.2))
    sigma = oracle.process.scales(torch.tensor(start))[1]
    z = sigma * torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
    clock = {} if solver.solves is SemiLinear else {"clock": "log_snr"}
    few = 160 if solver.order > 3 else 80
    for steps in (few, 2 * few):
        grid = times(oracle.process, solver, start, stop, steps)
        x = ss.decode(oracle, z, solver=name, times=grid, t_max=start, denoise=False, **clock).x
        errors.append((x - oracle.flow(z, start, stop)).square().mean().sqrt())
    multistep = isinstance(solver, ExponentialMultistep)  # whose grid starts with short steps
    order = solver.order if multistep else solver.cold_order
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.2


MULTISTEP = [n for n in ON_EVEN_GRIDS if isinstance(solvers.get(n), ExponentialMultistep)]
CAPPED = [n for n in ON_EVEN_GRIDS if solvers.get(n).cold_order < solvers.get(n).order]
# whose first steps err so little here that the orders of their other steps still show at 320 steps
GENTLE = {"unipc_3": 4, "lms_3": 2.5, "deis_time_3": 2.5}


def cold_slope(name: str, process: str) -> float:
    r"""The order on a grid even in log-SNR, from pure noise of the level 6 to the level 0.08."""

    oracle, errors = ss.MixtureOracle(MEANS, 0.5, process=PROCESSES[process]), []
    start, stop = (oracle.process.at_noise_level(level) for level in (6.0, 0.08))
    ends = torch.tensor([start, stop], dtype=torch.float64)
    z = oracle.process.scales(ends)[1][0] * torch.randn(
        16, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )

    def run(solver: str, steps: int) -> Tensor:
        clock = torch.linspace(*oracle.process.log_snr(ends).tolist(), steps + 1).double()
        grid = oracle.process.time(clock)
        grid[[0, -1]] = ends
        options = {} if solvers.get(solver).solves is SemiLinear else {"clock": "log_snr"}
        return ss.decode(
            oracle, z, solver=solver, times=grid, t_max=start, denoise=False, **options
        ).x

    truth = run("rk4", 1500)
    errors = [(run(name, steps) - truth).square().mean().sqrt() for steps in (160, 320)]
    return math.log2(errors[0] / errors[1])


def check_cold_order(name: str, process: str) -> None:
    found, cold = cold_slope(name, process), solvers.get(name).cold_order
    assert cold - 0.15 < found < GENTLE.get(name, cold) + 0.35


def test_first_steps_cap_the_order_on_an_even_grid() -> None:
    check_cold_order("exponential_3", "EDM")


@pytest.mark.slow
@pytest.mark.parametrize("process", ["VP", "EDM", "Interpolant"])
@pytest.mark.parametrize("name", sorted({*MULTISTEP, *CAPPED}))
def test_cold_order_is_the_catalogues(name: str, process: str) -> None:
    check_cold_order(name, process)


STRONG = [
    name
    for name in solvers.available()
    if solvers.get(name).fixed
    and solvers.get(name).stochastic
    and not solvers.get(name).own_noise
    and solvers.get(name).unstable != "over long spans"  # as those of this process are
]


@pytest.mark.parametrize("name", STRONG)
def test_strong_order_on_one_path(name: str) -> None:
    oracle, solver = mixture(ss.EDM()), solvers.get(name)
    clock = {} if solver.solves is SemiLinear else {"clock": "log_snr"}
    z = math.e * torch.randn(300, 2, generator=torch.Generator().manual_seed(0))

    def run(steps: int) -> Tensor:
        log_snr = -1 + torch.linspace(0, 256 * MESH, steps + 1)
        options = {"times": torch.exp(-log_snr), "t_max": math.e, "denoise": False}
        return ss.decode(oracle, z, solver=name, noise="path", seed=1, **options, **clock).x

    truth = run(256)
    errors = [(run(steps) - truth).square().mean().sqrt() for steps in (8, 32)]
    slack = 0.4 if name == "dpmpp_sde" else 0.2  # whose 256 steps are not much truer than its 32
    assert math.log2(errors[0] / errors[1]) / 2 > solver.order - slack
