r"""Noise levels in place of times: grids and ends, in every verb, are those of the times with these levels."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as ss

PROCESSES = {"EDM": ss.EDM(), "VP": ss.VP()}
LEVELS = [20.0, 3.0, 0.5, 0.1]
FIRST, LAST = 10.0, 0.1
KNOWN = torch.tensor([True, False])
Verb = Callable[..., object]


def pair(process: ss.Process) -> ss.MixtureOracle:
    return ss.MixtureOracle(torch.tensor([[-1.0, 0.5], [1.0, 0.0]]), 0.3, process=process)


def data(process: ss.Process) -> Tensor:
    return pair(process).data(3, seed=1).double()


def times_of(process: ss.Process, levels: list[float]) -> Tensor:
    times = process.time(-torch.tensor(levels, dtype=torch.float64).log())
    return torch.where(times > process.t_max * (1 - 1e-9), process.t_max, times)


def latents(m: ss.ScoreModel, **options: Any) -> Tensor:
    return ss.decode(m, torch.ones(3, 2).double(), **options).x


DOWN: dict[str, Verb] = {
    "sample": lambda m, x, **o: ss.sample(m, 3, seed=0, **o).x,
    "decode": lambda m, x, **o: latents(m, **o),
    "encode_noise": lambda m, x, **o: ss.encode_noise(m, x, **o).normals,
    "inpaint": lambda m, x, **o: ss.inpaint(m, x, KNOWN, seed=0, **o).x,
    "follow": lambda m, x, **o: ss.geometry.follow(m, 3, seed=0, **o).states,
    "draw": lambda m, x, **o: ss.inference.draw(m, 3, seed=0, **o).samples,
}
UP: dict[str, Verb] = {
    "encode": lambda m, x, **o: ss.encode(m, x, **o).x,
    "reconstruct": lambda m, x, **o: ss.reconstruct(m, x, **o).x,
    "log_likelihood": lambda m, x, **o: ss.log_likelihood(m, x, **o).nats,
    "classify": lambda m, x, **o: ss.classify(m, x, [0, 1], **o),
}
STARTS: dict[str, Verb] = {
    **{name: verb for name, verb in DOWN.items() if name != "follow"},
    **UP,
    "edit": lambda m, x, **o: ss.edit(m, m, x, noise_level=3.0, **o).x,
    "edit, noise": lambda m, x, **o: ss.edit(m, m, x, noise_level=3.0, method="noise", seed=0, **o).x,
    "edit, flow": lambda m, x, **o: ss.edit(m, m, x, noise_level=3.0, method="flow", steps=4, **o).x,
    "elbo": lambda m, x, **o: ss.elbo(m, x, **o).nats,
    "path_density": lambda m, x, **o: ss.path_density(m, x, steps=8, **o).nats,
    "views": lambda m, x, **o: ss.views(m, x, **o)["flow"].nats,
    "find_modes": lambda m, x, **o: ss.find_modes(m, x, **o).x,
    "discrete_log_likelihood": lambda m, x, **o: ss.discrete_log_likelihood(
        m, torch.zeros(2, 2).double(), levels=3, low=-1.0, high=1.0, **o
    ).nats,
}  # fmt: skip
TOPS = {
    name: {**DOWN, **UP}[name]
    for name in ("decode", "encode_noise", "inpaint", "encode", "reconstruct")
}


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("name", [*DOWN, *UP])
def test_levels_are_the_times_that_have_them(name: str, process: ss.Process) -> None:
    whole = name in ("log_likelihood", "classify", "inpaint", "decode")  # which start at the prior
    levels = [process.noise_level(process.t_max), *LEVELS] if whole else LEVELS
    model, x, times = pair(process), data(process), times_of(process, levels)
    ends: dict[str, Any] = (
        {"t_min": float(times[-1])} if name in ("log_likelihood", "classify") else {}
    )
    by_time = {**DOWN, **UP}[name](model, x, times=times.flip(0) if name in UP else times, **ends)
    assert torch.equal({**DOWN, **UP}[name](model, x, levels=levels), by_time)
    assert torch.equal(
        {**DOWN, **UP}[name](model, x, levels=torch.tensor(levels, dtype=torch.float64)), by_time
    )


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("name", STARTS)
def test_the_level_of_the_data_is_its_time(name: str, process: ss.Process) -> None:
    model, x = pair(process), data(process)
    by_time = STARTS[name](model, x, t_min=process.at_noise_level(LAST))
    assert torch.equal(STARTS[name](model, x, sigma_min=LAST), by_time)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("name", TOPS)
def test_the_level_of_the_latents_is_their_time(name: str, process: ss.Process) -> None:
    model, x = pair(process), data(process)
    by_time = TOPS[name](model, x, t_max=process.at_noise_level(FIRST), steps=4)
    assert torch.equal(TOPS[name](model, x, sigma_max=FIRST, steps=4), by_time)
    assert not torch.equal(TOPS[name](model, x, steps=4), by_time)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_latents_of_normal_data_scale_as_the_flow_between_the_levels(process: ss.Process) -> None:
    model, x = ss.GaussianOracle(torch.zeros(2), 0.5, process=process), torch.ones(1, 2).double()
    z = ss.encode(model, x, sigma_min=LAST, sigma_max=FIRST, rtol=1e-8, atol=1e-8)
    alpha = process.signal(z.times[-1])
    right = math.sqrt((0.25 + FIRST**2) / (0.25 + LAST**2))  # the ratio of standard deviations
    assert torch.allclose(z.x, alpha * right * x, rtol=1e-6)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_what_was_encoded_comes_back_down_the_same_levels(process: ss.Process) -> None:
    model, x = pair(process), data(process)
    z = ss.encode(model, x, solver="lattice_heun", levels=LEVELS)
    back = ss.decode(model, z, denoise=False).x / process.signal(z.times[0]).item()
    assert torch.allclose(back, x, rtol=0, atol=1e-10)
    ends = ss.decode(model, ss.encode(model, x, rtol=1e-8, atol=1e-8), sigma_min=LAST)
    assert float(ends.times[-1]) == pytest.approx(process.at_noise_level(LAST), rel=1e-12)
    other = ss.decode(model, z, levels=[*LEVELS, 0.0], solver="heun")
    assert torch.equal(other.times, times_of(process, LEVELS))


X = torch.zeros(2, 2)
GAUSS = ss.GaussianOracle(torch.zeros(2), 0.5)
GRIDDED = ss.encode(GAUSS, X, steps=3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ss.encode(GAUSS, X, levels=[0.1, 1.0]), "levels must be noise levels from high to low"),
        (lambda: ss.encode(GAUSS, X, levels=[1.0, 0.1, 0.0]), "levels must be positive, but end in 0, which"),
        (lambda: ss.log_likelihood(GAUSS, X, levels=[80.0, 1.0, 0.0]), "levels must be positive, but end in 0"),
        (lambda: ss.encode_noise(GAUSS, X, levels=[80.0, 1.0, 0.0]), "levels must be positive, but end in 0"),
        (lambda: ss.encode(GAUSS, X, levels=[800.0, 0.1]), "levels go from noise level 800 to 0.1, but"),
        (lambda: ss.encode(GAUSS, X, levels=[1.0, 0.1], steps=3), "steps= has no effect with levels="),
        (lambda: ss.encode(GAUSS, X, levels=[1.0, 0.1], sigma_max=3), "sigma_max= has no effect with levels="),
        (lambda: ss.encode(GAUSS, X, levels=[1.0, 0.1], t_max=3.0), "must end at t_max=3, but end at 1"),
        (lambda: ss.encode(GAUSS, X, sigma_max=1.0, t_max=1.0), "sigma_max= has no effect with t_max="),
        (lambda: ss.encode(GAUSS, X, sigma_min=1.0, t_min=1.0), "t_min= has no effect with sigma_min="),
        (lambda: ss.encode(GAUSS, X, sigma_min=2.0, sigma_max=1.0), "sigma_max must be above sigma_min, but they"),
        (lambda: ss.encode(GAUSS, X, sigma_min=1e-9), "sigma_min must be a noise level of EDM"),
        (lambda: ss.encode(GAUSS, X, sigma_max=1e9), "sigma_max must be a noise level of EDM"),
        (lambda: ss.log_likelihood(GAUSS, X, levels=[10.0, 0.1]), "levels must start at noise level 80, that"),
        (lambda: ss.log_likelihood(GAUSS, X, levels=17), "levels must be noise levels from high to low"),
        (lambda: ss.log_likelihood(GAUSS, X, levels=[80, 1], rtol=0.1), "levels= has no effect with tolerances"),
        (lambda: ss.log_likelihood(GAUSS, X, sigma_max=10.0), "sigma_max= has no effect on a likelihood"),
        (lambda: ss.elbo(GAUSS, X, levels=[10.0, 0.1]), "levels= has no effect here, since no path is solved"),
        (lambda: ss.edit(GAUSS, GAUSS, X, strength=0.5, levels=[1.0, 0.1]), "levels= has no effect on an edit"),
        (lambda: ss.edit(GAUSS, GAUSS, X, strength=0.5, sigma_max=1.0), "sigma_max= has no effect on an edit"),
        (lambda: ss.edit(GAUSS, GAUSS, X, noise_level=1.0, sigma_min=2.0), r"noise_level must lie in \(2, 80\]"),
        (lambda: ss.edit(GAUSS, GAUSS, X, strength=1, sigma_min=1, t_min=1), "t_min= has no effect with"),
        (lambda: ss.decode(GAUSS, GRIDDED, sigma_max=1.0), "sigma_max= has no effect on a solution"),
        (lambda: ss.decode(GAUSS, GRIDDED, sigma_min=0.1), "sigma_min= has no effect on the grid of a solution"),
    ],
)  # fmt: skip
def test_levels_without_a_meaning_are_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_a_run_up_its_levels_goes_on_where_it_stopped() -> None:
    model, x = pair(ss.VP()), data(ss.VP())
    whole = ss.encode(model, x, levels=LEVELS, solver="heun", path=True)
    part = ss.encode(
        model, x, levels=LEVELS, solver="heun", path=True, callback=lambda e: e.fraction > 0.3
    )
    assert part.status == ("stopped",) * 3
    rest = ss.resume(model, part)
    assert torch.equal(rest.x, whole.x)
    assert torch.equal(rest.path, whole.path)


def test_steps_of_a_likelihood_need_no_solver() -> None:
    few, many = (ss.log_likelihood(GAUSS, X, steps=steps) for steps in (40, 80))
    exact = -math.log(2 * math.pi * (0.25 + few.noise_level**2))
    assert few.provenance["solver"] == "exponential_3"
    assert float((many.nats - exact).abs().max()) < 1e-3
    assert few.calls.tolist() == [40, 40]
