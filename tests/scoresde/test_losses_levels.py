r"""Distributions of noise levels: inverse, density and share belong together, for every process."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.losses import levels
from scoresde.losses.levels import (
    Between,
    Importance,
    Levels,
    LogNormal,
    LogUniform,
    TimeLogitNormal,
    TimeUniform,
    importance,
)

from .cases import PROCESSES

LAWS: dict[str, Levels] = {
    "LogNormal": LogNormal(),
    "LogNormal, far": LogNormal(3.0, 0.7),
    "LogUniform": LogUniform(),
    "LogUniform, cut": LogUniform(0.05, 5.0),
    "TimeUniform": TimeUniform(),
    "TimeLogitNormal": TimeLogitNormal(-0.5, 1.3),
    "Between": Between(LogNormal(-0.5, 1.2), (0.1, 2.0)),
    "Importance": Importance([1.0, 4.0, 2.0, 0.5], TimeUniform()),
}
CASES = [
    (law, process)
    for law in LAWS
    for process, known in PROCESSES.items()
    if law != "TimeLogitNormal" or known.t_max <= 1
]
SHARES = (torch.arange(40, dtype=torch.float64) + 0.4) / 40


@pytest.mark.parametrize(("law", "name"), CASES)
def test_shares_are_the_inverse_of_levels_and_the_density_their_slope(law: str, name: str) -> None:
    found, process = LAWS[law], PROCESSES[name]
    level = found.log_snr(process, SHARES.reshape(4, 10))
    assert level.shape == (4, 10)
    assert level.dtype == torch.float64
    level = level.flatten()
    assert (level.diff() < 0).all()  # towards noise
    assert torch.allclose(found.share(process, level), SHARES, atol=1e-6)
    h = 1e-4
    slope = (found.share(process, level - h) - found.share(process, level + h)) / (2 * h)
    assert torch.allclose(found.density(process, level), slope, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("law", "name"), CASES)
def test_levels_stay_inside_the_process(law: str, name: str) -> None:
    found, process = LAWS[law], PROCESSES[name]
    ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
    low, high = process.log_snr(ends).flip(0).tolist()
    level = found.log_snr(process, [0.0, 1e-12, 1 - 1e-12, 1.0])
    assert ((level >= low - 1e-9) & (level <= high + 1e-9)).all()
    beyond = torch.tensor([high + 1, low - 1], dtype=torch.float64)
    assert found.density(process, beyond).tolist() == [0, 0]
    assert torch.allclose(
        found.share(process, beyond), torch.tensor([0.0, 1.0]).double(), atol=1e-6
    )


def test_the_log_normal_law_is_that_of_the_logarithm_of_the_level() -> None:
    wide, (mean, std) = ss.VE(ss.Geometric(1e-9, 1e9)), (-1.2, 1.2)
    law = torch.distributions.Normal(torch.tensor(-mean).double(), torch.tensor(std).double())
    level = LogNormal(mean, std).log_snr(wide, SHARES)
    assert torch.allclose(law.cdf(level), 1 - SHARES)
    assert torch.allclose(LogNormal(mean, std).density(wide, level), law.log_prob(level).exp())


def test_the_logit_of_the_time_of_a_linear_path_is_the_log_of_its_level() -> None:
    path = ss.Interpolant()
    one, other = TimeLogitNormal(0.3, 0.8), LogNormal(0.3, 0.8)
    level = one.log_snr(path, SHARES)
    assert torch.allclose(level, other.log_snr(path, SHARES))
    assert torch.allclose(one.density(path, level), other.density(path, level))


@pytest.mark.parametrize("name", PROCESSES)
def test_uniform_levels_are_times_in_proportion_to_the_weight_of_the_bound(name: str) -> None:
    process = PROCESSES[name]
    t = torch.linspace(process.t_min, process.t_max, 7, dtype=torch.float64)[1:-1]
    sigma, slope = process.scales(t)[1], process.rates(t)[1]
    of_time = LogUniform().density(process, process.log_snr(t)) * slope.abs()
    ratio = of_time / (process.diffusion(t) ** 2 / sigma**2)
    assert torch.allclose(ratio, ratio[0].expand_as(ratio), rtol=1e-6)


def test_uniform_times_are_uniform() -> None:
    process = ss.VP()
    t = process.time(TimeUniform().log_snr(process, SHARES))
    assert torch.allclose(t, process.t_min + (process.t_max - process.t_min) * SHARES)


# ---- from past losses


def size(level: Tensor) -> Tensor:
    return 0.2 + torch.exp(-((level - 1) ** 2))


def test_importance_changes_no_expectation() -> None:
    process, base = ss.EDM(), LogNormal()
    share = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    plain = base.log_snr(process, share)
    law = importance(process, plain[::50], size(plain[::50]), base=base)
    level = law.log_snr(process, share)
    weighted = law.ratio(process, level) * size(level)
    assert math.isclose(float(weighted.mean()), float(size(plain).mean()), rel_tol=1e-4)
    assert weighted.var() < size(plain).var() / 10


def test_levels_in_proportion_to_a_loss_make_it_even() -> None:
    process, bins = ss.EDM(), 8
    share = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    level = LogUniform().log_snr(process, share)
    loss = 1.0 + (share * bins).floor()
    law = importance(process, level, loss, bins=bins, floor=0.0)
    assert torch.allclose(torch.tensor(law.chances), torch.arange(1.0, 9.0) / 36)
    even = law.ratio(process, level) * loss
    assert torch.allclose(even, even[0].expand_as(even))


def test_the_size_of_losses_is_their_root_mean_square_and_bins_without_take_neighbours() -> None:
    process = ss.VE(ss.Geometric(0.01, 100.0))
    level = LogUniform().log_snr(process, [0.1, 0.1, 0.9])
    law = importance(process, level, [3.0, 4.0, 0.5], bins=3, floor=0.0)
    first, last = (25 / 2) ** 0.5, 0.5
    sizes = torch.tensor([first, (first + last) / 2, last])
    assert torch.allclose(torch.tensor(law.chances), sizes / sizes.sum())
    even = importance(process, level, [3.0, 4.0, 0.5], bins=3, floor=1.0)
    assert torch.allclose(torch.tensor(even.chances), torch.full((3,), 1 / 3))
    silent = importance(process, level, [0.0, 0.0, 0.0], bins=3)
    assert torch.allclose(torch.tensor(silent.chances), torch.full((3,), 1 / 3))


# ---- what is refused

EDM: Any = ss.EDM()
FREE: Any = ss.NonlinearProcess(lambda x, t: -x, 1.0)
REFUSED = {
    "std must be positive": lambda: LogNormal(std=0.0),
    "mean must be a finite number": lambda: LogNormal(mean=math.inf),
    "sigma_min must be below sigma_max, but they are 2.0 and 1.0": lambda: LogUniform(2.0, 1.0),
    "sigma_min=90.0 and sigma_max=None leave no level": lambda: LogUniform(90.0).log_snr(EDM, 0.5),
    "mean=40 and std=0.1 put no level inside": lambda: LogNormal(40.0, 0.1).log_snr(EDM, 0.5),
    "process must have times in \\[0, 1\\] for TimeLogitNormal, but t_max=80": lambda: (
        TimeLogitNormal().log_snr(EDM, 0.5)
    ),
    "process must be a process such as ss.VP()": lambda: LogUniform().log_snr("EDM", 0.5),  # type: ignore
    "process must have noise levels": lambda: LogUniform().log_snr(FREE, 0.5),  # type: ignore
    "share must lie between 0 and 1, but is 1.5": lambda: LogUniform().log_snr(EDM, 1.5),  # type: ignore
    "chances must be positive, but one is 0": lambda: Importance([1.0, 0.0], LogUniform()),
    "base must be a Levels": lambda: Importance([1.0], 3),  # type: ignore
    "loss must have one number per log_snr, 2, but has 1": lambda: importance(
        EDM, [0.0, 1.0], [1.0]
    ),  # type: ignore
    "floor must be a finite number >= 0, at most 1": lambda: importance(
        EDM, [0.0], [1.0], floor=2.0
    ),  # type: ignore
    "bins must be at least 1": lambda: importance(EDM, [0.0], [1.0], bins=0),  # type: ignore
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_is_wrong_gets_a_sentence(sentence: str) -> None:
    call: Any = REFUSED[sentence]
    with pytest.raises((ValueError, TypeError), match=sentence.replace("()", "\\(\\)")):
        call()


def test_the_names_are_those_of_the_room() -> None:
    assert {type(law).__name__ for law in LAWS.values()} | {
        "Levels",
        "importance",
        "time_warp",
    } == {*levels.__all__}
