r"""Objectives that are equal, as numbers: denoising, score matching, and bounds."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

import scoresde as ss
from scoresde import losses
from scoresde.losses.levels import Levels, LogNormal, LogUniform, TimeUniform

from .exact import (
    Bent,
    M,
    V,
    at,
    hermite,
    legendre,
    mean,
    mixed,
    mixture_oracle,
    normal,
    normal_oracle,
    product,
)

LEVELS = {"VP": (ss.VP(), 0.3), "EDM": (ss.EDM(), 0.6), "Interpolant": (ss.Interpolant(), 0.4)}
WEIGHTED = ["noise", "edm", "min_snr:1"]
Loss = Callable[..., Tensor]


# ---- score matching


@pytest.mark.parametrize("weight", WEIGHTED)
@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("a", [0.7, -0.4])
def test_denoising_and_implicit_matching_are_explicit_matching_up_to_a_constant(
    name: str, weight: str, a: float
) -> None:
    (process, time), (x, z, w) = LEVELS[name], mixed()
    model, oracle, level = Bent(process, a), mixture_oracle(process), at(process, time, len(x))
    oracle.data_std = model.data_std
    t = torch.tensor(time, dtype=torch.float64)
    noisy = process.perturb(x, t, z)
    alpha, sigma = process.scales(t)
    error = (model.score(noisy, t) - oracle.score(noisy, t)).square()[:, 0]
    snr = (alpha / sigma) ** 2
    factor = {"noise": snr, "edm": snr + 4, "min_snr:1": snr.clamp(max=1)}[weight]
    explicit = mean(factor * sigma**4 / alpha**2 * error, w)
    known = mean(factor * sigma**4 / alpha**2 * oracle.score(noisy, t).square()[:, 0], w)

    def of(loss: Loss, model: ss.ScoreModel) -> float:
        return mean(loss(model, x, level, z, weight=weight), w)

    least = of(losses.denoising, oracle)
    assert math.isclose(of(losses.denoising, model), explicit + least, rel_tol=1e-7)
    for loss in (losses.implicit_score, losses.sliced_score):  # signs are exact in one dimension
        assert math.isclose(of(loss, model), explicit - known, rel_tol=1e-7)


@pytest.mark.parametrize("reduced", [True, False])
def test_slices_are_the_trace_on_average(reduced: bool) -> None:
    model = Bent(ss.EDM())
    x = torch.tensor([[0.3, -0.5, 0.2], [0.9, 0.1, -1.1]], dtype=torch.float64)
    call: Any = (model, x, torch.tensor([1.0, -0.5]), x.flip(0))
    exact = losses.implicit_score(*call)
    one = partial(losses.sliced_score, *call, reduced=reduced)
    each = torch.stack([one(seed=seed, probes=16) for seed in range(50)])
    error = each.std(0) / len(each) ** 0.5
    assert ((each.mean(0) - exact).abs() < 4 * error).all()
    many = one(seed=7, probes=20_000)
    assert ((many - exact).abs() < 4 * each.std(0) * (16 / 20_000) ** 0.5).all()


def test_the_expectation_of_the_first_term_reduces_the_variance() -> None:
    x = torch.tensor([[0.3, -0.5, 0.2]], dtype=torch.float64)
    found = {}
    for reduced in (True, False):
        each = [
            losses.sliced_score(
                Bent(ss.EDM()), x, torch.tensor([0.5]), 2 * x + 1, reduced=reduced, seed=seed
            )
            for seed in range(100)
        ]
        found[reduced] = float(torch.stack(each).var())
    assert found[True] < found[False] / 2


def test_slices_are_keyed_by_seed_and_row() -> None:
    x = torch.tensor([[0.3, -0.5, 0.2], [0.9, 0.1, -1.1]], dtype=torch.float64)
    call = partial(losses.sliced_score, Bent(ss.EDM()), z=x, log_snr=torch.tensor(0.5))
    assert torch.equal(call(x=x, seed=3), call(x=x, seed=3))
    assert not torch.equal(call(x=x, seed=3), call(x=x, seed=4))


# ---- bounds


def over(
    loss: Loss, model: ss.ScoreModel, levels: Levels, count: int = 200, axis: int = 4
) -> float:
    r"""The expectation of a loss over levels, normal data and noise."""

    (share, xi, z), w = product(legendre(count), hermite(axis), hermite(axis))
    log_snr = levels.log_snr(model.process, share)
    return mean(loss(model, M + V**0.5 * xi[:, None], log_snr, z[:, None]), w)


def wrong(process: ss.Process) -> ss.ScoreModel:
    r"""The model of other normal data."""

    mean, variance = torch.tensor([M + 0.3]).double(), torch.tensor([[1.6 * V]]).double()
    return ss.GaussianOracle(mean, variance, process)


def variances(process: ss.Process) -> tuple[float, float, float]:
    r"""The squared noise levels of the ends, and the variance of the prior in units of the data."""

    ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
    alpha, sigma = process.scales(ends)
    first, last = ((sigma / alpha) ** 2).tolist()
    return first, last, float(sigma[1] / alpha[1]) ** 2


BOUNDED: dict[str, ss.Process] = {
    "VP": ss.VP(t_min=0.05),
    "VE": ss.VE(ss.Geometric(0.05, 20.0)),
    "Interpolant": ss.Interpolant(t_min=0.05, t_max=0.95),
}


@pytest.mark.filterwarnings("ignore:at t_max")
@pytest.mark.parametrize("name", BOUNDED)
def test_the_bound_of_the_exact_model_is_the_entropy_and_the_gap_of_the_prior(name: str) -> None:
    process = BOUNDED[name]
    first, last, prior = variances(process)
    entropy = math.log(2 * math.pi * math.e * (V + first)) / 2
    ratio = (V + last) / prior
    gap = (ratio - 1 - math.log(ratio) + M**2 / prior) / 2
    found = over(losses.continuous_elbo, normal_oracle(process), LogUniform())
    assert math.isclose(found, entropy + gap, rel_tol=1e-6)


@pytest.mark.parametrize("name", BOUNDED)
def test_bounds_are_one_integral_for_all_levels_and_weights(name: str) -> None:
    process = BOUNDED[name]
    model = wrong(process)
    bound = over(losses.continuous_elbo, model, LogUniform())
    for levels in (TimeUniform(), LogNormal(-0.5, 2.0)):
        loss = partial(losses.continuous_elbo, levels=levels)
        assert math.isclose(over(loss, model, levels), bound, rel_tol=1e-6)
    first, last, prior = variances(process)
    noise = math.log(2 * math.pi * prior) / 2 + (V + M**2 + last) / (2 * prior)
    constant = noise - math.log(last / first) / 2
    even, by_time = (
        over(partial(losses.denoising, weight=weight), model, levels)
        for weight, levels in (("noise", LogUniform()), ("likelihood", TimeUniform()))
    )
    assert math.isclose(even * math.log(last / first) / 2 + constant, bound, rel_tol=1e-6)
    span = process.t_max - process.t_min
    assert math.isclose(by_time * span + constant, bound, rel_tol=1e-6)


@pytest.mark.parametrize("name", BOUNDED)
def test_the_likelihood_weight_is_half_the_squared_diffusion_on_scores(name: str) -> None:
    process, (x, z, _) = BOUNDED[name], normal()
    t = torch.tensor(0.3 * process.t_max, dtype=torch.float64)
    model, sigma = wrong(process), process.scales(t)[1]
    error = (model.score(process.perturb(x, t, z), t) + z / sigma).square()[:, 0]
    found = losses.denoising(model, x, process.log_snr(t), z, weight="likelihood")
    assert torch.allclose(found, process.diffusion(t) ** 2 / 2 * error)


def all_steps(model: ss.ScoreModel, steps: int) -> float:
    r"""The mean of the discrete bound, each of whose steps has its turn."""

    process = model.process
    middle = (torch.arange(steps).double() + 0.5) / steps, torch.full((steps,), 1 / steps).double()
    (share, xi, z), w = product(middle, hermite(4), hermite(4))
    log_snr = TimeUniform().log_snr(process, share)
    x = M + V**0.5 * xi[:, None]
    return mean(losses.discrete_elbo(model, x, log_snr, z[:, None], steps=steps), w)


@pytest.mark.parametrize("name", BOUNDED)
def test_the_bound_of_steps_falls_to_that_of_continuous_time(name: str) -> None:
    model = wrong(BOUNDED[name])
    limit = over(losses.continuous_elbo, model, LogUniform())
    gaps = [all_steps(model, steps) - limit for steps in (128, 256, 512)]
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert math.isclose(gaps[1] / gaps[2], 2, rel_tol=0.1)  # of order 1 in the step


@pytest.mark.filterwarnings("ignore:at t_max")
@pytest.mark.parametrize("name", BOUNDED)
def test_the_bound_of_steps_is_the_divergence_of_the_laws_of_paths(name: str) -> None:
    process, steps = BOUNDED[name], 6
    model, (first, _, prior) = wrong(process), variances(process)
    times = torch.linspace(process.t_min, process.t_max, steps + 1, dtype=torch.float64)
    alpha, sigma = process.scales(times)
    s2 = (sigma / alpha) ** 2  # of states in units of the data
    forward = MultivariateNormal(torch.full_like(s2, M), V + torch.minimum(s2[:, None], s2))
    # the sampler: from the prior, X_{k-1} = share D(X_k) + (1 - share) X_k + noise, and D is linear
    maps, shift = torch.zeros(steps + 1, steps + 1).double(), torch.zeros(steps + 1).double()
    maps[steps, steps] = prior**0.5
    for k in range(steps, 0, -1):
        ends = torch.tensor([[0.0], [1.0]]).double() * alpha[k]
        zero, one = (float(D) for D in model.denoise(ends, times[k])[:, 0])
        share = 1 - s2[k - 1] / s2[k]
        gain = share * (one - zero) + 1 - share
        maps[k - 1], shift[k - 1] = gain * maps[k], share * zero + gain * shift[k]
        maps[k - 1, k - 1] = (s2[k - 1] * share) ** 0.5
    backward = MultivariateNormal(shift, maps @ maps.T)
    entropy = math.log(2 * math.pi * math.e * (V + first)) / 2
    expected = entropy + float(kl_divergence(forward, backward))
    assert math.isclose(all_steps(model, steps), expected, rel_tol=1e-9)


@pytest.mark.filterwarnings("ignore:at t_max")
@pytest.mark.parametrize("name", ["VP", "VE"])
def test_the_loss_is_the_bound_of_likelihoods_at_noisy_data(name: str) -> None:
    process = BOUNDED[name]
    model, (nodes, w) = wrong(process), hermite(5)
    found = over(losses.continuous_elbo, model, LogUniform())
    noisy = M + (V + variances(process)[0]) ** 0.5 * nodes[:, None]
    bound = ss.elbo(model, noisy, nodes=32, draws=4, t_min=process.t_min, seed=0)
    error = float((bound.stderr * w).square().sum().sqrt())
    assert error < 0.01
    assert abs(found + mean(bound.nats, w)) < 4 * error + 1e-6
