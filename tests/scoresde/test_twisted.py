r"""Twisted samples have the posterior's law, whatever leads them there."""

import math

import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde import guidance

PROCESSES = {"EDM": ss.EDM(), "VP": ss.VP(), "Interpolant": ss.Interpolant()}
MEANS = torch.tensor([[-1.5, 1.0], [1.0, -1.0], [1.4, 1.2]], dtype=torch.float64)
STDS = torch.tensor([0.4, 0.3, 0.5], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
Y, NOISE = torch.tensor([0.6], dtype=torch.float64), 0.5


TWO = torch.tensor([0, 1])
MANY = torch.ones(4, 1, dtype=torch.float64)


def mixture(process: ss.Process) -> ss.MixtureOracle:
    return ss.MixtureOracle(MEANS, STDS, WEIGHTS, process)


def posterior() -> tuple[float, Tensor, Tensor]:
    r"""log p(y), the mean and the variances of data of which the first entry was measured."""

    total = STDS**2 + NOISE**2
    log_p = WEIGHTS.log() - (Y - MEANS[:, 0]) ** 2 / (2 * total) - (2 * math.pi * total).log() / 2
    shares, gain = torch.softmax(log_p, 0), STDS**2 / total
    means = torch.stack([MEANS[:, 0] + gain * (Y - MEANS[:, 0]), MEANS[:, 1]], 1)
    variances = torch.stack([STDS**2 * (1 - gain), STDS**2], 1)
    mean = shares @ means
    return float(log_p.logsumexp(0)), mean, shares @ (variances + means**2) - mean**2


def known(D: Tensor, y: Tensor) -> Tensor:
    return D.sum(1)


def log_prob(D: Tensor, level: float, y: Tensor) -> Tensor:
    variance = NOISE**2 + level**2 / (level**2 + 1)
    return -((y - D[:, 0]) ** 2) / (2 * variance) - math.log(2 * math.pi * variance) / 2


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_the_posterior_and_its_normaliser(process: ss.Process) -> None:
    mass, mean, variance = posterior()
    s = ss.twisted_sample(mixture(process), log_prob, 4000, steps=150, y=Y)
    found = s.mean(lambda x: x)
    assert torch.allclose(found, mean, atol=0.06)
    assert torch.allclose(s.mean(lambda x: (x - found) ** 2), variance, atol=0.12)
    assert s.log_normaliser == pytest.approx(mass, abs=0.06)
    assert s.calls.unique().tolist() == [151]
    assert float(s.sizes.min()) > 1000


def test_a_poor_twist_costs_weights_and_no_law() -> None:
    r"""Not led at all until the end, and led too hard: the same posterior."""

    def late(D: Tensor, level: float, y: Tensor) -> Tensor:
        return (level < 0.3) * log_prob(D, level, y) + 0 * D[:, 0]

    _, mean, _ = posterior()
    sizes = {}
    for name, twist in (("good", log_prob), ("late", late)):
        s = ss.twisted_sample(mixture(ss.EDM()), twist, 6000, steps=150, threshold=0.0, y=Y)
        assert torch.allclose(s.mean(lambda x: x), mean, atol=0.08)
        assert s.resampled == 0
        sizes[name] = float(1 / (2 * s.log_weights).exp().sum())
    assert sizes["late"] < 0.8 * sizes["good"]


def test_plain_guidance_is_biased_where_the_twisted_is_not() -> None:
    model, (_, mean, _) = mixture(ss.EDM()), posterior()
    guided = guidance.posterior_sampling(model, lambda x: x[:, :1], Y[None], strength=1.0)
    plain = ss.sample(guided, 4000, solver="ancestral", steps=150).x.mean(0)
    twisted = ss.twisted_sample(model, log_prob, 4000, steps=150, y=Y).mean(lambda x: x)
    assert float((plain - mean).norm()) > 0.1  # of which 0.02 may be chance
    assert float((twisted - mean).norm()) < 0.08


def test_classes_by_a_classifier() -> None:
    r"""A twist by responsibilities draws the component, and knows its weight."""

    model = mixture(ss.VP())

    def of_label(D: Tensor, level: float, label: Tensor) -> Tensor:
        variance = STDS**2 + level**2 / (level**2 + 1)
        gaps = torch.cdist(D, MEANS) ** 2
        log_p = WEIGHTS.log() - gaps / (2 * variance) - variance.log()
        return log_p.log_softmax(1).gather(1, label.expand(len(D))[:, None])[:, 0]

    s = ss.twisted_sample(model, of_label, 4000, steps=400, label=torch.tensor([1]))
    assert torch.allclose(s.mean(lambda x: x), MEANS[1], atol=0.1)
    assert math.exp(s.log_normaliser) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: ss.twisted_sample(m, lambda D, level: D, 4, steps=2), "one number per sample"),
        (lambda m: ss.twisted_sample(m, lambda D, level: D.detach()[:, 0], 4, steps=2), "has no gradient with"),
        (lambda m: ss.twisted_sample(m, log_prob, 1, steps=2, y=Y), "count must be at least 2"),
        (lambda m: ss.twisted_sample(m, log_prob, 4, threshold=2.0, y=Y), "threshold must lie"),
        (lambda m: ss.twisted_sample(m.given(label=TWO), log_prob, 2, y=Y), "same for all"),
        (lambda m: ss.twisted_sample(m, log_prob, 4, y=torch.ones(4, 1)), "same for all samples"),
        (lambda m: ss.twisted_sample(ss.classifier_free(m, MANY[:, 0], label=TWO[:1]), log_prob, 4, y=Y), "same"),
        (lambda m: ss.weighted_sample([guidance.optimised(m, known, 0.1, y=MANY)], [1.0], 4), "the same for"),
        (lambda m: ss.weighted_sample([guidance.pseudoinverse(m, lambda x: x, MANY)], [1.0], 4), "the same"),
        (lambda m: ss.twisted_sample(guidance.universal(m, lambda D: D.sum(1)), log_prob, 2, y=Y), "has no"),
    ],
)  # fmt: skip
def test_bad_twists_are_refused(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(mixture(ss.EDM()))  # type: ignore[operator]


def test_a_twist_is_told_how_it_is_called() -> None:
    with pytest.raises(TypeError, match=r"log_prob is called as log_prob\(D, level\), which"):
        ss.twisted_sample(mixture(ss.EDM()), log_prob, 8)
    with pytest.raises(TypeError, match=r"called as log_prob\(x, t, label=...\)"):
        guidance.classifier(mixture(ss.EDM()), lambda x, label: x, label=Y.long())


def test_samples_may_be_ruled_out() -> None:
    r"""A hard constraint: the first entry is positive."""

    def positive(D: Tensor, level: float) -> Tensor:
        soft = torch.nn.functional.logsigmoid(4 * D[:, 0])
        return soft if level else torch.where(D[:, 0] > 0, 0 * soft, -math.inf)

    s = ss.twisted_sample(mixture(ss.EDM()), positive, 3000, steps=120)
    assert float(s.x[s.log_weights > -math.inf, 0].min()) > -0.1
    normal = torch.distributions.Normal(MEANS[:, 0], STDS)
    mass = WEIGHTS @ (1 - normal.cdf(torch.zeros(3, dtype=torch.float64)))
    assert math.exp(s.log_normaliser) == pytest.approx(float(mass), abs=0.05)

    def early(D: Tensor, level: float) -> Tensor:  # those ruled out on the way stay so
        return torch.where(D[:, 0] > 0, 0 * D[:, 0], -math.inf) if level < 0.5 else 0 * D[:, 0]

    s = ss.twisted_sample(mixture(ss.EDM()), early, 2000, steps=60, threshold=0.0)
    left = (s.log_weights > -math.inf).double().mean()
    assert 0.3 < float(left) < 0.7
    assert math.exp(s.log_normaliser) == pytest.approx(float(left))
    with pytest.raises(solvers.SolverError, match="NaN or infinite"):
        ss.twisted_sample(mixture(ss.EDM()), lambda D, level: D[:, 0] * 0 - math.inf, 8, steps=3)


def test_two_numbers_of_steps_give_the_normaliser_without_their_first_order() -> None:
    r"""Of Gaussian data and its optimal twist the weights are even, so that steps alone err."""

    model = ss.GaussianOracle(torch.zeros(1).double(), 1.0, ss.EDM())

    def exact(D: Tensor, level: float, y: Tensor) -> Tensor:
        variance = NOISE**2 + level**2 / (level**2 + 1)
        return -((y - D[:, 0]) ** 2) / (2 * variance) - math.log(2 * math.pi * variance) / 2

    truth = -(float(Y) ** 2) / (2 * (1 + NOISE**2)) - math.log(2 * math.pi * (1 + NOISE**2)) / 2
    coarse, fine = (ss.twisted_sample(model, exact, 20000, steps=n, seed=n, y=Y) for n in (25, 50))
    corrected = abs(fine.extrapolated(coarse) - truth)
    assert corrected < abs(fine.log_normaliser - truth) / 2
    with pytest.raises(
        ValueError, match="coarse must have fewer steps than the 25 here, but has 50"
    ):
        coarse.extrapolated(fine)
