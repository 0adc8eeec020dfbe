r"""Inverse problems: operators are taken as they are, up to first order, or refused by name."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde import guidance

MATRIX = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
COVARIANCE = torch.tensor(
    [[0.4, 0.1, 0.0], [0.1, 0.3, 0.05], [0.0, 0.05, 0.5]], dtype=torch.float64
)
MEAN = torch.tensor([3.0, -2.0, 2.5], dtype=torch.float64)


def linear(x: Tensor) -> Tensor:
    return x @ MATRIX.T


def affine(x: Tensor) -> Tensor:
    return x @ MATRIX.T + torch.tensor([5.0, -3.0], dtype=torch.float64)


def curved(x: Tensor) -> Tensor:
    return torch.stack([x[:, 0] * x[:, 1], x[:, 2].exp()], 1)


def slopes(D: Tensor) -> Tensor:
    r"""The derivative of `curved`, by hand, with shape (B, 2, 3)."""

    zero = torch.zeros(len(D), dtype=D.dtype)
    return torch.stack(
        [torch.stack([D[:, 1], D[:, 0], zero], 1), torch.stack([zero, zero, D[:, 2].exp()], 1)], 1
    )


def oracle() -> ss.GaussianOracle:
    return ss.GaussianOracle(MEAN, COVARIANCE, ss.EDM())


def states(t: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""States, their time, and the mean and covariance of data given them."""

    x = MEAN + t * torch.randn(4, 3, dtype=torch.float64)
    gain = COVARIANCE @ torch.linalg.inv(COVARIANCE + t**2 * torch.eye(3, dtype=torch.float64))
    return x, torch.tensor(t), MEAN + (x - MEAN) @ gain.T, COVARIANCE - gain @ COVARIANCE


WAYS: dict[str, Callable[..., ss.ScoreModel]] = {
    "pseudoinverse": lambda A, y: guidance.pseudoinverse(oracle(), A, y, noise=0.2),
    "moment matching": lambda A, y: guidance.moment_matching(oracle(), A, y, noise=0.2),
    "posterior sampling": lambda A, y: guidance.posterior_sampling(oracle(), A, y),
    "replacement": lambda A, y: guidance.replacement(oracle(), A, y),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_constant_in_an_operator_changes_nothing(way: str) -> None:
    x, t, _, _ = states(0.6)
    y = torch.randn(4, 2, dtype=torch.float64)
    shift = affine(torch.zeros(1, 3, dtype=torch.float64))
    want, found = (
        WAYS[way](A, y + c).denoise(x, t) for A, c in ((linear, 0 * shift), (affine, shift))
    )
    assert torch.allclose(found, want, atol=1e-9)


def test_samples_of_an_affine_measurement_are_those_of_the_posterior() -> None:
    y, noise = torch.tensor([[9.0, -6.5]], dtype=torch.float64), 0.3
    guided = guidance.moment_matching(oracle(), affine, y, noise=noise, iterations=3)
    s = ss.sample(guided, 3000, solver="ancestral", steps=100, seed=1)
    gain = (
        COVARIANCE
        @ MATRIX.T
        @ torch.linalg.inv(MATRIX @ COVARIANCE @ MATRIX.T + noise**2 * torch.eye(2))
    )
    assert torch.allclose(s.x.mean(0), MEAN + (y - affine(MEAN[None]))[0] @ gain.T, atol=0.04)
    assert torch.allclose(torch.cov(s.x.T), COVARIANCE - gain @ MATRIX @ COVARIANCE, atol=0.04)


def test_others_are_taken_by_their_derivative() -> None:
    x, t, D, V = states(0.6)
    y, J = torch.randn(4, 2, dtype=torch.float64), slopes(D)
    system = J @ V @ J.mT + 0.2**2 * torch.eye(2)
    step = torch.linalg.solve(system, (y - curved(D))[..., None])
    guided = guidance.moment_matching(oracle(), curved, y, noise=0.2, iterations=8)
    assert torch.allclose(guided.denoise(x, t), D + (V @ J.mT @ step)[..., 0], atol=1e-7)
    variance = (
        0.4 * 0.6**2 / (0.4 + 0.6**2)
    )  # the mean variance of the data is 0.4, whatever its mean
    normal = variance * J.mT @ J + 0.2**2 * torch.eye(3)
    step = V @ torch.linalg.solve(normal, J.mT @ (y - curved(D))[..., None])
    guided = guidance.pseudoinverse(oracle(), curved, y, noise=0.2, iterations=30)
    assert torch.allclose(guided.denoise(x, t), D + step[..., 0], atol=1e-6)
    with pytest.raises(ValueError, match="'curved' is not linear; use guidance.pseudoinverse"):
        guidance.replacement(oracle(), curved, y).denoise(x, t)


def rounded(x: Tensor) -> Tensor:
    return x[:, :2].round()


def nothing(x: Tensor) -> Tensor:
    return 0 * x[:, :2]


def jittered(x: Tensor) -> Tensor:
    return linear(x) + 0.01 * torch.randn(len(x), 2, dtype=x.dtype)


def dropped(x: Tensor) -> Tensor:
    return torch.nn.functional.dropout(x, 0.5)[:, :2]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("operator", "words"),
    [
        (rounded, "'rounded' has no gradient: it rounds"),
        (nothing, "'nothing' does not depend on the data"),
        (jittered, "'jittered' is random: it measured the same data twice"),
        (dropped, "'dropped' is random"),
    ],
)
def test_operators_that_cannot_serve_are_refused(
    way: str, operator: Callable[[Tensor], Tensor], words: str
) -> None:
    y = torch.ones(1, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=words):
        ss.sample(WAYS[way](operator, y), 3, solver="ancestral", steps=3)


def test_measurements_without_entries_that_are_measured_say_nothing() -> None:
    x, t, D, _ = states(0.6)
    guided = guidance.pseudoinverse(
        oracle(), nothing, torch.zeros(1, 2, dtype=torch.float64), noise=0.1
    )
    assert torch.allclose(guided.denoise(x, t), D)


def test_joined_operators_may_have_constants() -> None:
    x, t, _, _ = states(0.6)
    y = torch.randn(4, 2, dtype=torch.float64)
    found = []
    for A, c in ((linear, 0.0), (affine, affine(torch.zeros(1, 3, dtype=torch.float64)))):
        operator, both = guidance.joined([A, A], [y + c, y + c], [0.3, 0.5])
        found.append(guidance.moment_matching(oracle(), operator, both, noise=1.0).denoise(x, t))
    assert torch.allclose(*found, atol=1e-9)


@pytest.mark.parametrize(
    "value", [2.0, 2, [2.0], np.array([2.0]), np.float32(2.0), torch.tensor(2.0)]
)
def test_numbers_lists_and_arrays_are_data(value: object) -> None:
    x, t, _, _ = states(0.6)
    model, tensor = oracle(), torch.tensor([2.0], dtype=torch.float64)

    def scaled(D: Tensor, factor: Tensor) -> Tensor:
        return factor[:, None] * D[:, :2]

    def loss(D: Tensor, factor: Tensor) -> Tensor:
        return (D[:, 0] - factor) ** 2

    def log_prob(x: Tensor, t: Tensor, factor: Tensor) -> Tensor:
        return -((x[:, 0] - factor) ** 2)

    y = [[0.3, -0.1]]
    for make in (
        lambda v: guidance.pseudoinverse(model, scaled, y, noise=0.1, factor=v),
        lambda v: guidance.moment_matching(model, scaled, y, noise=0.1, factor=v),
        lambda v: guidance.posterior_sampling(model, scaled, np.array(y), factor=v),
        lambda v: guidance.replacement(model, scaled, torch.tensor(y), factor=v),
        lambda v: guidance.universal(model, loss, factor=v),
        lambda v: guidance.optimised(model, loss, 0.1, factor=v),
        lambda v: guidance.classifier(model, log_prob, factor=v),
    ):
        assert torch.allclose(make(value).denoise(x, t), make(tensor).denoise(x, t), atol=1e-6)


def test_what_is_no_number_is_refused() -> None:
    model = oracle()
    for wrong in (None, "one", {"a": 1}, object()):
        with pytest.raises(
            TypeError, match="factor must be numbers in a tensor, an array or a list"
        ):
            guidance.universal(model, lambda D, factor: D.sum(1), factor=wrong)
        with pytest.raises(TypeError, match="y must be numbers in a tensor, an array or a list"):
            guidance.pseudoinverse(model, linear, wrong)
    with pytest.raises(TypeError, match="posterior_sampling takes no noise=.* pass strength="):
        guidance.posterior_sampling(model, linear, [[0.0, 0.0]], noise=0.1)


def test_replacement_loses_what_others_keep_as_the_docs_say() -> None:
    r"""The mean of a normal entry is r y, given another, y, with the correlation r."""

    covariance = torch.tensor([[1.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    model = ss.GaussianOracle(torch.zeros(2, dtype=torch.float64), covariance, ss.VP())
    x, known = torch.tensor([[1.5, 0.0]]).double().expand(2000, 2), torch.tensor([1.0, 0.0])
    lost, kept = (
        float(ss.inpaint(model, x, known, method=m, seed=1).x[:, 1].mean()) / (0.7 * 1.5)
        for m in ("replacement", "gradient")
    )
    assert 0.4 < lost < 0.65
    assert 0.9 < kept < 1.05
