r"""Losses of pairs: flow matching, reflow, optimal transport, restoration, and interpolants."""

import itertools
import math
import re
from functools import partial
from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import scoresde as ss
from scoresde import losses

from .exact import Features, at, hermite, minimiser, normal_oracle, product

PATH = ss.Interpolant()
T = 0.3
SLOPE, NOISE, OFFSET = 0.6, 0.5, -0.2  # of the partner given the data
M, V = 0.4, 0.3


def pairs() -> tuple[Tensor, Tensor, Tensor]:
    r"""Data, partners that depend on them linearly, and weights: exact for squares."""

    (xi, noise), w = product(hermite(3), hermite(3))
    x = M + V**0.5 * xi[:, None]
    return x, SLOPE * x + OFFSET + NOISE * noise[:, None], w


def of_pairs(alpha: float, sigma: float, own: float = 0.0) -> tuple[float, float, float, float]:
    r"""The moments of a state of the pairs: mean, variance, and covariances with the data and the partner."""

    var_z, both = SLOPE**2 * V + NOISE**2, SLOPE * V
    mean = alpha * M + sigma * (SLOPE * M + OFFSET)
    variance = alpha**2 * V + 2 * alpha * sigma * both + sigma**2 * var_z + own**2
    return mean, variance, alpha * V + sigma * both, alpha * both + sigma * var_z


def test_restoration_by_inversion_learns_the_clean_given_the_blended_image() -> None:
    x, z, w = pairs()
    level = at(PATH, T, len(x))

    def value(theta: Tensor) -> Tensor:
        model = Features(PATH, theta, learned="bridge")
        return (losses.denoising(model, x, level, z, weight="data") * w).sum()

    best, least = minimiser(value)
    mean, variance, with_x, _ = of_pairs(1 - T, T)
    gain = with_x / variance
    assert torch.allclose(best, torch.tensor([gain, M - gain * mean]).double())
    assert math.isclose(float(least), V - gain * with_x)


@pytest.mark.parametrize("loss", ["denoising", "interpolant"])
def test_deblending_learns_the_mean_difference_given_the_blend(loss: str) -> None:
    x, z, w = pairs()
    call: Any = {
        "denoising": partial(losses.denoising, weight="velocity"),
        "interpolant": partial(losses.interpolant, gamma=0.0),
    }[loss]

    def value(theta: Tensor) -> Tensor:
        return (call(Features(PATH, theta, learned="bridge"), x, at(PATH, T, 9), z) * w).sum()

    best, least = minimiser(value)
    mean, variance, with_x, with_z = of_pairs(1 - T, T)
    noisy = torch.tensor([[-1.0], [0.5]]).double()
    slope = (with_z - with_x) / variance
    expected = (SLOPE - 1) * M + OFFSET + slope * (noisy - mean)
    model = Features(PATH, best, learned="bridge")
    assert torch.allclose(model.velocity(noisy, torch.tensor(T)), expected)
    spread = (SLOPE - 1) ** 2 * V + NOISE**2
    assert math.isclose(float(least), spread - slope * (with_z - with_x))


# ---- interpolants with noise of their own


@pytest.mark.parametrize("gamma", [1.3, lambda t: 0.8 * torch.sin(math.pi * t) ** 2])
@pytest.mark.parametrize("name", ["Interpolant", "VP"])
def test_the_minimisers_of_interpolants_are_their_velocity_and_noise(
    name: str, gamma: Any
) -> None:
    process = {"Interpolant": PATH, "VP": ss.VP()}[name]
    (xi, noise), w = product(hermite(3), hermite(3))
    rows, repeats = len(xi), 20_000
    x = (M + V**0.5 * xi[:, None]).repeat(repeats, 1)
    z = SLOPE * x + OFFSET + NOISE * noise[:, None].repeat(repeats, 1)
    w = w.repeat(repeats) / repeats
    t, h = torch.tensor(T, dtype=torch.float64), 1e-6
    alpha, sigma = (float(v) for v in process.scales(t))

    def scaled(t: Tensor) -> Tensor:
        a, s = process.scales(t)
        return torch.stack([a, s, gamma(t) if callable(gamma) else gamma * (a * s).sqrt()])

    own = float(scaled(t)[2])
    d_alpha, d_sigma, d_own = ((scaled(t + h) - scaled(t - h)) / (2 * h)).tolist()
    mean, variance, with_x, with_z = of_pairs(alpha, sigma, own)
    noisy = torch.tensor([[-1.0], [0.5]]).double()
    mean_z = SLOPE * M + OFFSET
    slope = (d_alpha * with_x + d_sigma * with_z + d_own * own) / variance
    exact = {
        "velocity": d_alpha * M + d_sigma * mean_z + slope * (noisy - mean),
        "noise": own / variance * (noisy - mean),
    }
    level = at(process, T, rows * repeats)
    for target in ("velocity", "noise"):
        loss: Any = partial(losses.interpolant, gamma=gamma, target=target, seed=3)
        best, _ = minimiser(
            lambda theta, loss=loss: (loss(Features(process, theta), x, level, z) * w).sum()
        )
        model = Features(process, best)
        found = getattr(model, target)(noisy, t)
        assert torch.allclose(found, exact[target], atol=0.02)


def test_the_default_own_noise_of_a_linear_path_is_that_of_the_paper() -> None:
    x, z, _ = pairs()
    model = Features(PATH, torch.tensor([0.3, 0.1]).double())
    level = torch.linspace(-3, 3, len(x)).double()
    named = losses.interpolant(model, x, level, z, gamma=lambda t: (2 * t * (1 - t)).sqrt())
    assert torch.allclose(losses.interpolant(model, x, level, z), named)


def test_own_noise_is_keyed_by_seed_and_row_and_is_none_of_the_other_noises() -> None:
    x = torch.zeros(4, 3).double()
    z = PATH.prior_sample((4, 3), seed=5, dtype=torch.float64)
    still = ss.NetworkScore(lambda x, t: 0 * x, PATH, "noise")

    def of(seed: int, rows: int = 4) -> Tensor:
        return losses.interpolant(
            still, x[:rows], torch.zeros(rows), z[:rows], target="noise", seed=seed
        )

    assert torch.equal(of(5)[:2], of(5, 2))
    assert not torch.equal(of(5), of(6))
    assert not torch.allclose(of(5), PATH.standardised(z).square().mean(1))


# ---- optimal transport


def cost(x: Tensor, z: Tensor) -> float:
    return float((x - z).square().sum())


def drawn(count: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, d, 1)
    return (
        torch.rand(shape, generator=generator).double(),
        torch.randn(shape, generator=generator).double(),
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_pairs_cost_the_least_and_use_each_row_once(seed: int) -> None:
    x, z = drawn(6, 2, seed)
    found = losses.pair(x, z)
    least = min(cost(x, z[list(order)]) for order in itertools.permutations(range(6)))
    assert math.isclose(cost(x, found), least)
    x, z = drawn(64, 3, seed)
    found = losses.pair(x, z)
    rows, columns = linear_sum_assignment(torch.cdist(x.flatten(1), z.flatten(1)).square())
    assert rows.tolist() == list(range(64))
    assert torch.equal(found, z[torch.from_numpy(columns)])
    assert torch.equal(found.flatten().sort().values, z.flatten().sort().values)
    assert cost(x, found) < 0.7 * cost(x, z)


def test_pairs_on_a_line_are_in_order() -> None:
    x, z = (part.flatten()[:, None] for part in drawn(50, 1, 3))
    found = losses.pair(x, z)
    assert torch.equal(found[x[:, 0].argsort()], z.sort(0).values)


def test_pairs_stay_inside_their_groups() -> None:
    x, z = drawn(40, 2, 4)
    groups = torch.arange(40) % 3
    found = losses.pair(x, z, groups=groups)
    for value in range(3):
        inside = groups == value
        assert torch.equal(found[inside], losses.pair(x[inside], z[inside]))


def test_equal_rows_are_paired_once_each() -> None:
    x, z = torch.zeros(8, 2), torch.arange(16.0).reshape(8, 2)
    assert torch.equal(losses.pair(x, z).sort(0).values, z)


# ---- reflow


def test_reflow_pairs_are_the_ends_of_the_flow_and_make_a_straight_one() -> None:
    oracle = normal_oracle(PATH)
    x, z = losses.reflow_pairs(oracle, 16, solver="rk4", steps=200, seed=2)
    start = PATH.prior_sample((16, 1), seed=2, dtype=torch.float64)
    assert torch.allclose(z, start / PATH.prior_std())
    exact = M + V**0.5 * (start - M * 1e-3) / (PATH.prior_std() ** 2 + 1e-6 * V) ** 0.5
    assert torch.allclose(x, exact, atol=1e-3)
    some = losses.reflow_pairs(oracle, 4, solver="rk4", steps=200, seed=2, first_index=8)
    assert torch.allclose(some[0], x[8:12])

    level = at(PATH, 0.6, 16)

    def value(theta: Tensor) -> Tensor:
        model = Features(PATH, theta, learned="flow")
        return losses.denoising(model, x, level, z, weight="velocity").mean()

    best, least = minimiser(value)
    assert float(least) < 1e-20  # each state is of one pair
    model = Features(PATH, best, learned="flow")
    middle = PATH.perturb(x, torch.tensor(0.6).double(), z)
    once = middle - (0.6 - PATH.t_min) * model.velocity(middle, torch.tensor(0.6))
    assert torch.allclose(once, PATH.perturb(x, torch.tensor(PATH.t_min).double(), z))


def test_reflow_follows_the_flow_of_a_solver_of_noisy_steps() -> None:
    oracle = normal_oracle(ss.VP())
    x, z = losses.reflow_pairs(oracle, 4, solver="ancestral", steps=50, seed=1)
    again, _ = losses.reflow_pairs(oracle, 4, solver="ancestral", steps=50, seed=1)
    assert torch.equal(x, again)
    assert torch.allclose(x, M + V**0.5 * z, atol=0.05)


# ---- what is refused

X = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
REFUSED = {
    "z must have the shape of x, (2, 2), but has (1, 2)": lambda: losses.pair(X, X[:1]),
    "x must be finite, but has NaN or infinite entries in rows [0]": lambda: losses.pair(
        X / X[:, :1], X
    ),
    "groups must be 2 whole numbers": lambda: losses.pair(X, X, groups=torch.zeros(3).long()),
    "noise is set by its own settings": lambda: losses.reflow_pairs(
        normal_oracle(PATH), 2, solver="edm_churn", steps=3
    ),
    "this model does not know the shape of a sample": lambda: losses.reflow_pairs(
        ss.NetworkScore(lambda x, t: x, PATH, "data"), 2
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_is_wrong_gets_a_sentence(sentence: str) -> None:
    call: Any = REFUSED[sentence]
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)):
        call()
