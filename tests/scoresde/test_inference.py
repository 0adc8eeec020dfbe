r"""Posteriors of several observations, within bounds, and their calibration, where the truth is known."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import truncnorm
from torch import Tensor

import scoresde as ss
from scoresde import inference
from scoresde.inference.bands import Uniformity
from scoresde.inference.composition import _covariance, _precisions

A = torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=torch.float64)  # observations: A theta + NOISE z
NOISE = 0.8
FIRST = torch.tensor([[1.0, 0.3], [0.3, 2.0]], dtype=torch.float64)
MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
PRIOR = ss.GaussianOracle(MEAN, FIRST)
TRUTH = torch.tensor([1.0, 0.0], dtype=torch.float64)
ACCURATE: dict[str, Any] = {"solver": "unipc_3", "steps": 30, "dtype": torch.float64, "seed": 0}


def exact(observations: Tensor) -> tuple[Tensor, Tensor]:
    r"""The mean and covariance of the posterior of all observations, with shape (n, 2)."""

    precision = torch.linalg.inv(FIRST) + len(observations) * A.T @ A / NOISE**2
    covariance = torch.linalg.inv(precision)
    pull = torch.linalg.inv(FIRST) @ MEAN + observations.sum(0) @ A / NOISE**2
    return covariance @ pull, covariance


def denoised(x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
    r"""The exact denoised data of the posterior of one observation in each row."""

    _, covariance = exact(observation[:1])
    means = (torch.linalg.inv(FIRST) @ MEAN + observation.to(A) @ A / NOISE**2) @ covariance
    values, axes = torch.linalg.eigh(covariance)
    gain = values / (values + t[:, None] ** 2)
    return (means + gain * ((x - means) @ axes) @ axes.T).to(x)


POSTERIOR = ss.NetworkScore(denoised, ss.EDM(), "data", conditions=["observation"], shape=(2,))
POSTERIOR.data_scale = 1.5
SINGLE = exact(torch.zeros(1, 2).double())[1]


def observed(n: int) -> Tensor:
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    return TRUTH @ A.T + NOISE * z


# ---- several observations


@pytest.mark.parametrize("n", [1, 3, 10, 100])
@pytest.mark.parametrize("at_once", [None, 7])
def test_composed_normal_posteriors_are_exact(n: int, at_once: int | None) -> None:
    observations = observed(n)
    composed = inference.iid(
        POSTERIOR, PRIOR, covariances=SINGLE[None], at_once=at_once, observation=observations
    )
    right = ss.GaussianOracle(*exact(observations))
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for level in (0.01, 0.3, 2.0, 50.0):
        t = torch.tensor(level)
        noisy = TRUTH + level * x
        torch.testing.assert_close(
            composed.denoise(noisy, t), right.denoise(noisy, t), rtol=1e-8, atol=1e-9
        )
    assert composed.cost == (1 if n == 1 else n + 1)


@pytest.mark.parametrize("process", [ss.VP(), ss.SubVP(), ss.Interpolant()])
def test_each_observation_has_its_own_covariance_under_every_process(process: ss.Process) -> None:
    draw = torch.Generator().manual_seed(2)
    roots = torch.randn(3, 4, 4, generator=draw, dtype=torch.float64)
    means = torch.randn(3, 4, generator=draw, dtype=torch.float64)
    covariances = torch.linalg.inv(torch.linalg.inv(FIRST.kron(FIRST)) + roots @ roots.mT)
    prior = ss.GaussianOracle(torch.zeros(4, 1).double(), FIRST.kron(FIRST), process)
    each = ss.MixtureOracle(means[..., None], covariances, process=process)
    label = torch.tensor([2, 0, 1])
    composed = inference.iid(each, prior, covariances=covariances[label], label=label)
    precisions = torch.linalg.inv(covariances)
    whole = torch.linalg.inv(precisions.sum(0) - 2 * torch.linalg.inv(FIRST.kron(FIRST)))
    mean = whole @ torch.einsum("nde,ne->d", precisions, means)
    right = ss.GaussianOracle(mean[:, None], whole, process)
    assert composed.finest == pytest.approx(float(torch.linalg.eigvalsh(whole)[0]) ** 0.5)
    x = torch.randn(5, 4, 1, generator=draw, dtype=torch.float64)
    for level in (0.02, 0.5, 3.0):
        t = torch.tensor(process.at_noise_level(level))
        torch.testing.assert_close(composed.denoise(x, t), right.denoise(x, t))


@pytest.mark.parametrize("n", [3, 10, 100])
def test_samples_of_composed_posteriors_have_the_right_moments(n: int) -> None:
    observations, count = observed(n), 500
    mean, covariance = exact(observations)
    composed = inference.iid(POSTERIOR, PRIOR, covariances=SINGLE[None], observation=observations)
    s = ss.sample(composed, count, **ACCURATE)
    assert s.calls.tolist() == [31 * (n + 1)] * count
    root = torch.linalg.cholesky(covariance)
    z = torch.linalg.solve_triangular(root, (s.x - mean).T, upper=False)
    assert float(z.mean(1).abs().max()) < 4 / math.sqrt(count)
    assert float((torch.cov(z) - torch.eye(2)).abs().max()) < 4 * math.sqrt(2 / count)
    again = ss.sample(composed, 20, batch_size=7, **ACCURATE)
    torch.testing.assert_close(again.x, s.x[:20], rtol=0, atol=1e-9)


def test_covariances_are_estimated_from_samples() -> None:
    observations = observed(10)
    mean, covariance = exact(observations)
    rough = ss.NetworkScore(PRIOR.denoise, ss.EDM(), "data", shape=(2,))  # without moments
    rough.data_scale = 1.5
    for prior in (PRIOR, rough):
        composed = inference.iid(POSTERIOR, prior, draws=400, observation=observations)
        s = ss.sample(composed, 500, **ACCURATE)
        spread = torch.cov(s.x.T).diag() / covariance.diag()
        assert float((s.x.mean(0) - mean).abs().max()) < 5 * math.sqrt(
            float(covariance.max()) / 500
        )
        assert float((spread - 1).abs().max()) < 0.35


def test_covariances_of_known_moments_act_along_their_axes() -> None:
    draw = torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(torch.randn(6, 6, generator=draw, dtype=torch.float64))[0]
    variances = torch.tensor([3.0, 0.5], dtype=torch.float64)
    known = ss.Moments(torch.zeros(2, 3).double(), axes[:, :2], variances, rest=0.2)
    along = torch.cat([variances, torch.full((4,), 0.2)])
    torch.testing.assert_close(_covariance(known) @ axes, axes * along)
    plain = ss.Moments(torch.zeros(2).double(), None, variances)
    torch.testing.assert_close(_covariance(plain), torch.diag(variances))


def test_naive_sum_of_scores_is_biased() -> None:
    observations = observed(10)
    models, exponents = inference.factors(POSTERIOR, PRIOR, observation=observations)
    assert exponents == [-9.0, *[1.0] * 10]
    naive = ss.sample(ss.guidance.product(PRIOR, models[1:]), 300, **ACCURATE)
    assert float((torch.cov(naive.x.T).diag() / exact(observations)[1].diag()).max()) < 0.2


def test_weighted_samples_of_the_factors_have_the_right_law() -> None:
    observations = observed(3)
    mean, covariance = exact(observations)
    weighted = ss.weighted_sample(
        *inference.factors(POSTERIOR, PRIOR, observation=observations), 2000, steps=100
    )
    error = (weighted.mean(lambda x: x) - mean) / covariance.diag().sqrt()
    assert weighted.effective > 100
    assert float(error.abs().max()) < 4 / math.sqrt(weighted.effective)
    # the normaliser: prior^(1 - n) prod p(theta | x_i) = p(x_1..n) / prod p(x_i) p(theta | x_1..n)
    each = torch.distributions.MultivariateNormal(
        A @ MEAN, A @ FIRST @ A.T + NOISE**2 * torch.eye(2)
    )
    whole = torch.distributions.MultivariateNormal(
        (A @ MEAN).repeat(3),
        torch.kron(torch.ones(3, 3), A @ FIRST @ A.T) + NOISE**2 * torch.eye(6).double(),
    )
    right = float(whole.log_prob(observations.flatten()) - each.log_prob(observations).sum())
    assert abs(weighted.log_normaliser - right) < 4 * weighted.stderr + 0.1  # and steps


def test_variances_beyond_those_of_the_prior_are_cut() -> None:
    wide = inference.iid(POSTERIOR, PRIOR, covariances=9 * FIRST[None], observation=observed(3))
    same = inference.iid(POSTERIOR, PRIOR, covariances=FIRST[None], observation=observed(3))
    x, t = torch.ones(2, 2).double(), torch.tensor(1.0)
    torch.testing.assert_close(wide.denoise(x, t), same.denoise(x, t))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prior": ss.GaussianOracle(MEAN, FIRST, ss.VP())}, "prior must have the process of the posterior"),
        ({"prior": ss.GaussianOracle(torch.zeros(3), 1.0)}, r"prior must have samples of shape \(2,\)"),
        ({"observation": None}, "observations are missing: .*observation="),
        ({"covariances": [[[1.0, 0.0], [0.0, -1.0]]]}, "covariances must be symmetric and positive"),
        ({"covariances": torch.eye(2).repeat(2, 1, 1)}, r"covariances must have shape \(3, 2, 2\)"),
        ({"covariances": None, "draws": 4}, "draws must be at least 5 for 2 parameters, but is 4"),
        ({"model": POSTERIOR.given(observation=observed(3))}, "observation= is already bound"),
    ],
)  # fmt: skip
def test_what_cannot_be_composed_is_refused(change: dict[str, Any], words: str) -> None:
    given = {
        "model": POSTERIOR,
        "prior": PRIOR,
        "covariances": SINGLE[None],
        "observation": observed(3),
    }
    given = {name: value for name, value in {**given, **change}.items() if value is not None}
    with pytest.raises((ValueError, TypeError), match=words):
        inference.iid(**given)


# ---- bounds

LOW, HIGH = torch.tensor([-0.5, -1.0]), torch.tensor([0.5, math.inf])
NORMAL = ss.GaussianOracle(torch.zeros(2).double(), 1.0)
WITHIN = 0.3829249 * 0.8413447  # of the standard normal


def test_samples_lie_within_the_bounds_with_the_right_law() -> None:
    d = inference.draw(NORMAL, 1500, low=LOW, high=torch.tensor([0.5, 100.0]), **ACCURATE)
    x = d.samples[0]
    assert d.samples.shape == (1, 1500, 2)
    assert bool(((x >= LOW) & (x <= HIGH)).all())
    assert abs(float(d.acceptance[0]) / WITHIN - 1) < 4 * float(d.stderr[0])
    assert abs(float(d.stderr[0]) - math.sqrt((1 - WITHIN) / 1500)) < 1e-3
    law = truncnorm(-1.0, math.inf)
    assert abs(float(x[:, 1].mean()) - law.mean()) < 4 * law.std() / math.sqrt(1500)
    assert d.calls[0] >= 31 * d.proposals[0]


def test_draws_depend_on_seed_observation_and_number_alone() -> None:
    options: dict[str, Any] = {"low": -1.0, "high": 1.2, "steps": 4, "dtype": torch.float64}
    whole = inference.draw(POSTERIOR, 30, observation=observed(3), seed=1, **options)
    parts = inference.draw(POSTERIOR, 30, observation=observed(3), seed=1, batch_size=7, **options)
    alone = inference.draw(POSTERIOR, 30, observation=observed(3)[:1], seed=1, **options)
    other = inference.draw(POSTERIOR, 30, observation=observed(3), seed=2, **options)
    assert int(whole.proposals.max()) > 30  # some were rejected
    torch.testing.assert_close(parts.samples, whole.samples, rtol=0, atol=1e-12)
    torch.testing.assert_close(alone.samples[0], whole.samples[0], rtol=0, atol=1e-12)
    assert parts.proposals.tolist() == whole.proposals.tolist()
    assert not bool((other.samples == whole.samples).any())
    assert len(whole.samples.flatten(0, 1).unique(dim=0)) == 90


EXACTLY = ss.Likelihood(
    nats=torch.zeros(3).double(),
    stderr=torch.zeros(3).double(),
    latent=torch.zeros(3, 2).double(),
    calls=torch.ones(3),
    derivatives=torch.ones(3),
    dimension=2,
    t_min=0.01,
    noise_level=0.01,
    budget={"probes": torch.zeros(3).double()},
)


def test_density_within_bounds_is_renormalised() -> None:
    d = inference.draw(NORMAL, 1000, low=LOW, high=[0.5, 100.0], **ACCURATE)
    x = torch.tensor([[0.2, 0.0], [0.2, 3.0], [0.7, 0.0]], dtype=torch.float64)
    plain = ss.log_likelihood(NORMAL, x, solver="exponential_3", steps=20)
    cut = d.renormalised(plain, x)
    assert cut.nats[2] == -math.inf
    right = -(x[:2] ** 2).sum(1) / 2 - math.log(2 * math.pi) - math.log(WITHIN)
    assert float((cut.nats[:2] - right).abs().max()) < 4 * float(d.stderr) + 0.02
    torch.testing.assert_close(cut.stderr[:2], d.stderr.expand(2))
    assert "acceptance is the largest part of the error" in repr(d.renormalised(EXACTLY, x))
    noisy = replace(
        EXACTLY, stderr=torch.full((3,), 0.3), budget={"probes": torch.full((3,), 0.3)}
    )
    both = torch.hypot(torch.full((3,), 0.3), d.stderr)
    torch.testing.assert_close(d.renormalised(noisy, x).stderr, both)
    torch.testing.assert_close(d.renormalised(noisy, x).total, 2 * both)  # two standard errors
    with pytest.raises(ValueError, match="x must have 3 rows"):
        d.renormalised(plain, x[:2])


def test_too_few_samples_within_the_bounds_are_refused() -> None:
    words = r"only \d of 1000 samples lie within .*acceptance of 0\), since 100% of entry 1 are below low=3"
    with pytest.raises(ValueError, match=words):
        inference.draw(NORMAL, 10, low=[-9.0, 3.0], steps=4)
    with pytest.raises(ValueError, match="low must be below high, but entry 0 goes from 1 to 0"):
        inference.draw(NORMAL, 10, low=1.0, high=0.0)
    with pytest.raises(
        ValueError, match=r"low must be a number or have the shape of a sample, \(2,\)"
    ):
        inference.draw(NORMAL, 10, low=[1.0, 2.0, 3.0])


@pytest.mark.parametrize("level", [0.002, 0.1, 1.0, 80.0])
def test_uniform_prior_is_exact(level: float) -> None:
    low, high = torch.tensor([0.0, -3.0]).double(), torch.tensor([2.0, 1.0]).double()
    box = ss.UniformOracle(low, high)
    x = torch.tensor([[0.5, 0.9], [2.0, -3.0]]).double()
    x = torch.cat([x, x + 3 * level]).requires_grad_()
    t = torch.tensor(level)
    a, b = ((bound - x.detach()) / level for bound in (low, high))
    right = truncnorm.mean(a.numpy(), b.numpy(), loc=x.detach().numpy(), scale=level)
    torch.testing.assert_close(box.denoise(x, t).detach(), torch.tensor(right), rtol=0, atol=1e-9)
    (slope,) = torch.autograd.grad(box.log_prob(x, t).sum(), x)
    torch.testing.assert_close(slope, box.score(x, t).detach(), rtol=1e-6, atol=1e-9)
    inside = torch.tensor([[1.0, -1.0]]).double()
    if level < 0.2:
        assert abs(float(box.log_density(inside, 0.002)) + math.log(8)) < 1e-9


# ---- calibration

N, L = 200, 50


def pairs(seed: int) -> tuple[Tensor, Tensor]:
    r"""Samples of exact posteriors, with shape (N, L, 2), and the parameters."""

    generator = torch.Generator().manual_seed(seed)
    theta = (
        MEAN
        + torch.randn(N, 2, generator=generator, dtype=torch.float64)
        @ torch.linalg.cholesky(FIRST).T
    )
    x = theta @ A.T + NOISE * torch.randn(N, 2, generator=generator, dtype=torch.float64)
    means = (torch.linalg.inv(FIRST) @ MEAN + x @ A / NOISE**2) @ SINGLE
    z = torch.randn(N, L, 2, generator=generator, dtype=torch.float64)
    return means[:, None] + z @ torch.linalg.cholesky(SINGLE).T, theta


def altered(samples: Tensor, factor: float, shift: float) -> Tensor:
    mean = samples.mean(1, keepdim=True)
    return mean + factor * (samples - mean) + shift


def test_exact_posteriors_pass_at_the_stated_level() -> None:
    found = []
    for seed in range(40):
        samples, theta = pairs(seed)
        ranks, coverage = inference.sbc(samples, theta), inference.tarp(samples, theta, seed=seed)
        found.append([*ranks.p_values.tolist(), float(coverage.p_values)])
    p = torch.tensor(found)
    assert int((p < 0.05).sum()) <= 14  # of 120: 6 are expected, and these only once in a thousand
    assert 0.35 < float(p.mean()) < 0.6  # p-values are conservative


@pytest.mark.parametrize(
    ("factor", "shift", "words", "of_coverage"),
    [
        (0.7, 0.0, "over-confident", "over-confident or biased"),
        (1.5, 0.0, "under-confident", "under-confident"),
        (1.0, 0.5, "the samples are too high", None),
        (1.0, -0.5, "the samples are too low", None),
        (1.0, 2.0, "the samples are too high", "biased"),
    ],
)
def test_wrong_posteriors_fail_in_words(
    factor: float, shift: float, words: str, of_coverage: str | None
) -> None:
    samples, theta = pairs(0)
    wrong = altered(samples, factor, shift)
    ranks, coverage = inference.sbc(wrong, theta), inference.tarp(wrong, theta)
    assert not bool(ranks.calibrated.any())
    assert len(ranks.findings) == 2
    assert all(one.startswith(f"entry {k}: {words}") for k, one in enumerate(ranks.findings))
    if of_coverage is not None:
        assert coverage.findings[0].startswith(f"coverage: {of_coverage}")
        assert not coverage.ok


def test_entries_are_judged_apart() -> None:
    samples, theta = pairs(0)
    samples = torch.stack([samples[..., 0], samples[..., 1] + 1], -1)
    assert inference.sbc(samples, theta).calibrated.tolist() == [True, False]


def test_a_column_passes_if_its_distribution_function_lies_within_the_band() -> None:
    for seed in range(8):
        samples, theta = pairs(seed)
        found = inference.sbc(altered(samples, 1.0, 0.1 * seed / 2), theta)
        shares, low, high = found.band
        below = (found.ranks[None] < (shares * (L + 1)).round()[:, None, None]).double().mean(1)
        within = ((below >= low[:, None] - 1e-9) & (below <= high[:, None] + 1e-9)).all(0)
        assert within.tolist() == found.calibrated.tolist()


def test_ties_are_broken_at_random() -> None:
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(0, 3, (N, L + 1, 1), generator=generator).double()
    found = inference.sbc(whole[:, 1:], whole[:, 0])
    assert found.ok
    assert found.ranks.min() < 4
    assert found.ranks.max() > L - 4


def test_ranks_among_equal_samples_are_uniform_up_to_both_ends() -> None:
    c = inference.sbc(torch.zeros(3000, 10, 1), torch.zeros(3000, 1))
    counts = c.ranks[:, 0].bincount(minlength=11)
    assert len(counts) == 11
    assert float((counts / 3000 - 1 / 11).abs().max()) < 5 * math.sqrt(1 / 11 / 3000)


def test_level_of_the_test_is_that_of_simulated_ranks() -> None:
    ranks = torch.randint(0, 21, (60, 2000), generator=torch.Generator().manual_seed(0))
    test = Uniformity(60, 20, 0.1)
    assert abs(float((test.p_values(ranks) < 0.1).double().mean()) - 0.1) < 0.035


def test_references_may_depend_on_observations() -> None:
    samples, theta = pairs(0)
    aside = samples.mean(1) + 5
    assert inference.tarp(samples, theta, references=aside).ok
    shifted = inference.tarp(altered(samples, 1.0, 0.5), theta, references=aside)
    assert not shifted.ok


def test_calibration_of_samples_of_a_model() -> None:
    _, theta = pairs(3)
    z = torch.randn(N, 2, generator=torch.Generator().manual_seed(1003), dtype=torch.float64)
    draws = inference.draw(
        POSTERIOR, 40, observation=theta @ A.T + NOISE * z, solver="unipc_3", steps=15
    )
    assert inference.sbc(draws, theta).ok
    assert inference.tarp(draws, theta).ok


def test_pictures_are_drawn(tmp_path: Path) -> None:
    samples, theta = pairs(0)
    for found in (inference.sbc(samples, theta), inference.tarp(samples, theta)):
        file = found.plot(tmp_path / f"{type(found).__name__}.png")
        assert file.stat().st_size > 5000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parameters": torch.zeros(N, 3)}, r"samples must have shape \(200, L, 3\)"),
        ({"samples": torch.zeros(N, 2)}, r"samples must have shape \(200, L, 2\)"),
        (
            {"samples": torch.zeros(N, 5, 2)},
            "samples must be at least 10 for each observation, but are 5",
        ),
        ({"level": 1.0}, r"level must lie in \(0, 1\), but is 1"),
    ],
)
def test_samples_that_do_not_fit_are_refused(change: dict[str, Any], words: str) -> None:
    samples, theta = pairs(0)
    for test in (inference.sbc, inference.tarp):
        with pytest.raises(ValueError, match=words):
            test(**{"samples": samples, "parameters": theta, **change})


def test_precisions_from_few_draws_have_no_bias() -> None:
    many = torch.zeros(300, dtype=torch.long)
    model = ss.MixtureOracle(torch.zeros(1, 2), 0.5)
    found = _precisions(model, 12, 0, {"label": many})
    assert torch.allclose(found.mean(0), 4 * torch.eye(2).double(), atol=0.4)  # 6 with the bias


def test_expected_coverage_of_uniform_ranks_is_the_credibility() -> None:
    ranks = torch.arange(5)[:, None]
    c = inference.Coverage(ranks, 4, 0.05, ("posterior",), torch.ones(1), ())
    assert c.expected.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_the_band_holds_what_the_p_value_accepts_and_fails_at_its_level() -> None:
    test = Uniformity(60, 19, 0.1)
    ranks = torch.randint(0, 20, (60, 1500), generator=torch.Generator().manual_seed(5))
    shares = test.below(ranks).double() / 60
    assert 0 < float(test.p_values(torch.zeros(60, 1).long())) < 0.01  # no test says 0
    low, high = (end[:, None] for end in test.band)
    outside = ((shares < low - 1e-9) | (shares > high + 1e-9)).any(0)
    assert torch.equal(outside, test.p_values(ranks) < 0.1)
    assert float(outside.double().mean()) == pytest.approx(0.1, abs=0.03)
