r"""Grids with numbers, and runs whose steps or ends are given as noise levels."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.runs.grids import grid_times

GAUSS = ss.GaussianOracle(torch.zeros(2, dtype=torch.float64), 0.5)
FLAT = ss.GaussianOracle(torch.zeros(2, dtype=torch.float64), 0.5, process=ss.VP())


def spaced(grid: str, steps: int = 5, *, low: float = 0.1, high: float = 10.0) -> Tensor:
    return grid_times(ss.EDM(), grid, high, low, steps)


# k_diffusion.sampling.get_sigmas_karras(6, 0.1, 10, rho=5.0), get_sigmas_exponential(6, 0.1, 10) and
# get_sigmas_polyexponential(6, 0.1, 10, rho=1.3) of k-diffusion 0.1.1.post1, without their final 0; and
# EulerDiscreteScheduler(use_beta_sigmas=True)._convert_to_beta([10.0, 0.1], 6) of diffusers 0.42.1
PEERS = {
    "rho:5": [10.0, 5.26597786, 2.52292061, 1.06424904, 0.37470031, 0.1],
    "exponential": [10.0, 3.98107171, 1.58489323, 0.63095731, 0.25118864, 0.1],
    "polyexponential:1.3": [10.0, 3.13615489, 1.07028806, 0.40525296, 0.17652798, 0.1],
    "beta:0.6,0.6": [10.0, 8.783074670462504, 6.4092601915431775, 3.6907398084568195, 1.3169253295374952, 0.1],
}  # fmt: skip


@pytest.mark.parametrize("grid", PEERS)
def test_grids_are_those_of_other_libraries(grid: str) -> None:
    torch.testing.assert_close(spaced(grid), torch.tensor(PEERS[grid]).double(), rtol=1e-6, atol=0)


def test_grids_are_their_formulas() -> None:
    i = torch.arange(6, dtype=torch.float64) / 5
    for rho in (1.0, 3.0, 7.0):
        want = (10 ** (1 / rho) + i * (0.1 ** (1 / rho) - 10 ** (1 / rho))) ** rho
        torch.testing.assert_close(spaced(f"rho:rho={rho}"), want, rtol=1e-12, atol=0)
        want = torch.exp((1 - i) ** rho * math.log(100) + math.log(0.1))
        torch.testing.assert_close(spaced(f"polyexponential:{rho}"), want, rtol=1e-12, atol=0)
    for words, quantile in {  # distributions whose quantiles are elementary
        "beta:1,1": lambda q: q,
        "beta:2,1": lambda q: q.sqrt(),
        "beta:b=3:a=1": lambda q: 1 - (1 - q) ** (1 / 3),
        "beta:0.5,0.5": lambda q: torch.sin(math.pi * q / 2) ** 2,
    }.items():
        want = 0.1 + 9.9 * quantile(1 - i)
        torch.testing.assert_close(spaced(words), want, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(spaced("sgm_uniform"), 10 - 9.9 * torch.arange(6).double() / 6)


@pytest.mark.parametrize(
    ("one", "other"),
    [("karras", "rho"), ("rho:7", "rho"), ("exponential", "log_snr"), ("polyexponential", "log_snr"),
     ("karras:5", "rho:rho=5"), ("beta", "beta:0.6,0.6"), ("beta:b=0.6", "beta:a=0.6"), ("beta:1,1", "t")],
)  # fmt: skip
def test_grids_with_two_names(one: str, other: str) -> None:
    options: dict[str, Any] = {"solver": "ddim", "steps": 4}
    a, b = (ss.sample(GAUSS, 2, grid=grid, **options) for grid in (one, other))
    torch.testing.assert_close(a.times, b.times, rtol=1e-12, atol=0)


def test_a_solver_may_end_with_its_grid() -> None:
    s = ss.sample(GAUSS, 2, solver="DPM++ 2M Beta", steps=4)
    assert (s.provenance["solver"], s.provenance["grid"]) == ("dpmpp_2m", "beta")
    assert torch.equal(s.times, ss.sample(GAUSS, 2, grid="beta", steps=4).times)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ("rho:-1", "rho of grid 'rho:-1' must be a positive number, but is '-1'"),
        ("rho:x", "rho of grid 'rho:x' must be a positive number"),
        ("beta:0.6,inf", "b of grid 'beta:0.6,inf' must be a positive number"),
        ("tan:3", "grid 'tan:3' has no '3'; tan takes no numbers"),
        ("rho:a=3", "grid 'rho:a=3' has no 'a=3'; rho takes rho"),
        ("beta:1,2,3", "grid 'beta:1,2,3' has no '1,2,3'; beta takes a, b"),
        ("rhoo:5", "grid 'rhoo:5' is unknown; did you mean 'rho'"),
    ],
)
def test_grids_that_are_none_are_refused(grid: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ss.sample(GAUSS, 2, steps=3, grid=grid)
    with pytest.raises(ValueError, match=words):
        ss.compare(GAUSS, ["ddim"], [4], grids=[grid], samples=4)


def test_open_grids_only_lead_to_data() -> None:
    with pytest.raises(ValueError, match="'sgm_uniform' only leads to data"):
        ss.encode(GAUSS, torch.zeros(2, 2), solver="ddim", steps=3, grid="sgm_uniform")


@pytest.mark.parametrize("model", [GAUSS, FLAT], ids=["EDM", "VP"])
@pytest.mark.parametrize("options", [{"steps": 4, "solver": "ddim"}, {"rtol": 0.01}])
def test_ends_by_level_are_those_by_time(model: ss.ScoreModel, options: dict[str, Any]) -> None:
    process = model.process
    first, last = (process.at_noise_level(level) for level in (10.0, 0.1))
    z = process.scales(torch.tensor(first).double())[1] * torch.linspace(
        -1, 1, 6
    ).double().reshape(3, 2)
    by_time = ss.decode(model, z, t_max=first, t_min=last, **options)
    by_level = ss.decode(model, z, sigma_max=10.0, sigma_min=0.1, **options)
    assert torch.equal(by_time.x, by_level.x)
    assert torch.equal(by_time.times, by_level.times)
    drawn = ss.sample(model, 4000, sigma_max=10.0, sigma_min=0.1, **options)
    assert float(drawn.times[0]) == pytest.approx(first, rel=1e-12)
    if "rtol" in options:
        want = 0.5 * math.sqrt(100 / 100.25)  # since noise of level 10 contains no data
        want *= math.sqrt(0.25 / 0.26)  # and the last denoising is from 0.1
        assert float(drawn.x.std()) == pytest.approx(want, rel=0.03)


def test_a_largest_level_that_is_said_is_not_cut() -> None:
    flow = ss.GaussianOracle(torch.zeros(2), 0.5, process=ss.Interpolant())
    levels = torch.exp(-flow.process.log_snr(ss.sample(flow, 2, steps=6, grid="rho").times))
    said = torch.exp(
        -flow.process.log_snr(ss.sample(flow, 2, steps=6, grid="rho", sigma_max=900.0).times)
    )
    assert levels[1] <= 80 < said[1] < said[0]
    assert float(said[0]) == pytest.approx(900.0, rel=1e-6)


@pytest.mark.parametrize("model", [GAUSS, FLAT], ids=["EDM", "VP"])
def test_levels_are_a_grid(model: ss.ScoreModel) -> None:
    levels = [20.0, 3.0, 0.5, 0.1]
    times = model.process.time(-torch.tensor(levels).double().log())
    want = ss.sample(model, 3, solver="heun", times=times)
    for said in (levels, [*levels, 0], torch.tensor([*levels, 0.0])):
        found = ss.sample(model, 3, solver="heun", levels=said)
        torch.testing.assert_close(found.times, want.times, rtol=1e-6, atol=0)
        torch.testing.assert_close(found.x, want.x, rtol=1e-5, atol=1e-6)
        assert torch.equal(found.calls, want.calls)
    state = ss.sample(model, 3, solver="heun", levels=levels, denoise=False)
    assert torch.equal(state.calls, want.calls - 1)
    clean = model.denoise(state.x, times[-1:].expand(3))
    torch.testing.assert_close(clean, want.x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"levels": [1.0, 2.0]}, "levels must be noise levels from high to low"),
        ({"levels": [2.0, 1.0, 0.0, 0.0]}, "of which only the last may be 0"),
        ({"levels": [2.0, 0.0]}, "at least two of them positive"),
        ({"levels": [[2.0, 1.0]]}, "levels must be noise levels"),
        ({"levels": [1000.0, 1.0]}, "levels go from noise level 1000 to 1, but"),
        ({"levels": [2.0, 1.0, 0.0], "denoise": False}, "ends in 0, which is the last denoising"),
        ({"levels": [2.0, 1.0], "steps": 3}, "steps= has no effect with levels="),
        ({"levels": [2.0, 1.0], "times": [2.0, 1.0]}, "times= has no effect with levels="),
        ({"levels": [2.0, 1.0], "sigma_max": 2.0}, "sigma_max= has no effect with levels="),
        ({"levels": [2.0, 1.0], "t_min": 1.0}, "t_min= has no effect with levels="),
        ({"sigma_min": 0.1, "t_min": 0.1}, "t_min= has no effect with sigma_min="),
        ({"sigma_max": 2.0, "times": [2.0, 1.0]}, "sigma_max= has no effect with times="),
        ({"sigma_min": 0.0}, "sigma_min must be a noise level of EDM"),
        ({"sigma_max": 1e5}, "sigma_max must be a noise level of EDM"),
        ({"sigma_max": -1.0}, "sigma_max must be a finite number >= 0"),
        ({"sigma_min": 3.0, "sigma_max": 2.0}, "sigma_max must be above sigma_min, but they are 2 and 3"),
        ({"levels": [2.0, 1.0], "plan": ss.Plan({"solver": "ddim"})}, "levels= is already set by plan="),
    ],
)  # fmt: skip
def test_levels_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ss.sample(GAUSS, 2, **options)


def test_latents_have_one_start() -> None:
    with pytest.raises(ValueError, match="sigma_max= has no effect with t_max="):
        ss.decode(GAUSS, torch.ones(2, 2), t_max=10.0, sigma_max=10.0)
    with pytest.raises(ValueError, match="times must start at t_max=20"):
        ss.decode(GAUSS, torch.ones(2, 2), t_max=20.0, levels=[10.0, 1.0])
