r"""Guidance is its formula, exact where exactness is defined, and every sample's own."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde import guidance
from scoresde.models import score_model as score_models

from .cases import MEANS, PROCESSES, mixture

LABEL = torch.tensor([0, 1, 2, 1])


def models(process: ss.Process) -> tuple[ss.MixtureOracle, ss.ScoreModel]:
    free = mixture(process)
    return free, free.given(label=LABEL)


def states(process: ss.Process) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Noisy states and times, and what both models make of them."""

    free, bound = models(process)
    t = torch.linspace(0.2, 0.8, 4) * process.t_max
    x = torch.randn(4, 2) * process.scales(t)[1][:, None]
    return x, t, bound.denoise(x, t), free.denoise(x, t)


def inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)


@pytest.mark.parametrize("process", ["VP", "EDM", "Interpolant"])
def test_differences_of_two_models_follow_their_formulas(process: str) -> None:
    here = PROCESSES[process]
    (free, bound), (x, t, D, other) = models(here), states(here)
    d = D - other
    assert torch.allclose(guidance.autoguidance(bound, free, 3.0).denoise(x, t), other + 3 * d)
    plain = guidance.adaptive_projected(bound, free, 3.0, parallel=1.0)
    assert torch.allclose(plain.denoise(x, t), D + 2 * d)
    across = guidance.adaptive_projected(bound, free, 3.0).denoise(x, t) - D
    assert inner(across, D).abs().max() < 1e-12
    assert torch.allclose(across, 2 * (d - inner(d, D) / inner(D, D) * D))
    short = (
        guidance.adaptive_projected(bound, free, 3.0, parallel=1.0, norm=0.01).denoise(x, t) - D
    )
    assert torch.allclose(short.norm(dim=1), 0.02 * torch.ones(4).clamp(max=1), atol=1e-9)
    alpha, sigma = (s[:, None] for s in here.scales(t))
    X, s = x / alpha, sigma / alpha
    own, free_v = ((X / (1 + s) - p) * (1 + s) / s for p in (D, other))  # of the rectified flow
    v = -2 * inner(own, free_v) / inner(free_v, free_v) * free_v + 3 * own
    fitted = guidance.zero_star(bound, free, 3.0).denoise(x, t)
    assert torch.allclose(fitted, X / (1 + s) - s / (1 + s) * v)
    guided = guidance.autoguidance(bound, free, 3.0)
    again = guidance.rescaled(guided, bound, 1.0).denoise(x, t)
    assert torch.allclose(again.std(1, correction=0), D.std(1, correction=0))
    want = (alpha * (other + 3 * d) - x) / sigma**2
    assert torch.allclose(guided.score(x, t), want)


def test_plus_plus_takes_the_guided_estimate_and_the_free_noise() -> None:
    free, bound = models(ss.VP())
    process, times = free.process, torch.tensor([1.0, 0.7, 0.4, 0.1, 0.01])
    guided = guidance.plus_plus(free, 0.6, times, label=LABEL)
    x = process.prior_sample((4, 2), seed=1)
    s = ss.decode(guided, x, solver="ddim", times=times, denoise=False)
    levels, alphas = torch.exp(-process.log_snr(times)), process.scales(times)[0]
    X = x / alphas[0]
    for i in range(4):
        D, other = (m.denoise(alphas[i] * X, times[i]) for m in (bound, free))
        X = other + 0.6 * (D - other) + levels[i + 1] * (X - other) / levels[i]
    assert torch.allclose(s.x, alphas[-1] * X)
    with pytest.raises(ValueError, match="times must be one grid from noise to data"):
        guidance.plus_plus(free, 0.6, times.flip(0), label=LABEL)


def test_thresholds_are_each_samples_own() -> None:
    model = ss.KernelOracle(4 * MEANS, 0.3, ss.VP())
    x, t = torch.randn(5, 2), torch.full((5,), 0.3)
    D = model.denoise(x, t)
    assert torch.allclose(guidance.thresholded(model).denoise(x, t), D.clamp(-1, 1))
    size = D.abs().amax(1, keepdim=True).clamp(min=1)
    assert torch.allclose(guidance.thresholded(model, 1.0, 1.0).denoise(x, t), D / size)


def test_products_add_what_each_part_adds() -> None:
    (free, _), (x, t, _, other) = models(ss.VP()), states(ss.VP())
    parts = [free.given(label=torch.tensor([k])) for k in (0, 2)]
    found = guidance.product(free, parts, [2.0, -0.5]).denoise(x, t)
    first, second = (part.denoise(x, t) for part in parts)
    assert torch.allclose(found, other + 2 * (first - other) - 0.5 * (second - other))


@pytest.mark.parametrize("solver", ["ddim", "exponential"])
def test_experts_are_asked_one_at_a_time(solver: str) -> None:
    free = mixture(ss.EDM())
    bound = [free.given(label=torch.tensor([k])) for k in (0, 1)]
    both = guidance.experts([bound[0], bound[1]], [1.0])
    x = torch.randn(3, 2)
    for level, model in ((0.5, bound[0]), (3.0, bound[1])):
        t = torch.full((3,), level)
        assert torch.allclose(both.denoise(x, t), model.denoise(x, t))
    options = {"steps": 8} if solver == "ddim" else {"rtol": 1e-4, "atol": 1e-4}
    s = ss.sample(both, 40, solver=solver, seed=2, **options)
    assert s.ok
    if solver == "ddim":
        assert s.calls.tolist() == [9] * 40


def test_an_exact_classifier_gives_the_conditional_score() -> None:
    free, bound = models(ss.VP())
    x, t, D, _ = states(ss.VP())

    def log_prob(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        _, log_joint = free._project(x, *free._scales(x, t))
        return log_joint.log_softmax(1).gather(1, label[:, None])[:, 0]

    guided = guidance.classifier(free, log_prob, label=LABEL)
    assert torch.allclose(guided.denoise(x, t), D)
    assert torch.allclose(guided.score(x, t), bound.score(x, t))
    twice = guidance.classifier(free, log_prob, lambda level: 2 + 0 * level, label=LABEL)
    assert torch.allclose(twice.denoise(x, t), free.denoise(x, t) + 2 * (D - free.denoise(x, t)))
    rows = torch.tensor([3, 0])
    assert torch.allclose(guided.rows(rows).denoise(x[rows], t[rows]), D[rows])


def gaussian(process: ss.Process) -> tuple[ss.GaussianOracle, Tensor, Tensor]:
    mean = torch.tensor([0.3, -0.2, 0.5])
    root = torch.tensor([[0.6, 0.0, 0.0], [0.3, 0.5, 0.0], [-0.2, 0.1, 0.4]])
    return ss.GaussianOracle(mean, root @ root.T, process), mean, root @ root.T


def posterior(
    model: ss.ScoreModel, mean: Tensor, covariance: Tensor, x: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The mean and covariance of Gaussian data given a noisy state."""

    alpha, sigma = model.process.scales(t)
    level = (sigma / alpha) ** 2
    gain = covariance @ torch.linalg.inv(covariance + level * torch.eye(3))
    return mean + (x / alpha - mean) @ gain.T, covariance - gain @ covariance


OPERATOR = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], dtype=torch.float64)


def measure(x: Tensor) -> Tensor:
    return x @ OPERATOR.T


@pytest.mark.parametrize("process", ["VP", "EDM", "Interpolant"])
def test_moment_matching_is_exact_for_normal_data(process: str) -> None:
    model, mean, covariance = gaussian(PROCESSES[process])
    t = torch.tensor(0.3 * model.process.t_max)
    x, y, noise = torch.randn(4, 3) * model.process.scales(t)[1], torch.randn(4, 2), 0.2
    D, V = posterior(model, mean, covariance, x, t)
    system = OPERATOR @ V @ OPERATOR.T + noise**2 * torch.eye(2)
    want = D + (y - D @ OPERATOR.T) @ torch.linalg.inv(system) @ OPERATOR @ V
    guided = guidance.moment_matching(model, measure, y, noise=noise, iterations=3)
    assert torch.allclose(guided.denoise(x, t), want, atol=1e-6)
    rows = torch.tensor([2, 1])
    assert torch.allclose(guided.rows(rows).denoise(x[rows], t), want[rows], atol=1e-6)


def test_pseudoinverse_is_exact_where_its_variance_is() -> None:
    model = ss.GaussianOracle(torch.zeros(3), 0.49 * torch.eye(3), ss.VP())
    model.data_std = 0.7
    t, y, noise = torch.tensor(0.4), torch.randn(4, 2), 0.1
    x = torch.randn(4, 3)
    D, V = posterior(model, torch.zeros(3), 0.49 * torch.eye(3), x, t)
    system = OPERATOR @ V @ OPERATOR.T + noise**2 * torch.eye(2)
    want = D + (y - D @ OPERATOR.T) @ torch.linalg.inv(system) @ OPERATOR @ V
    guided = guidance.pseudoinverse(model, measure, y, noise=noise)
    assert torch.allclose(guided.denoise(x, t), want, atol=1e-8)


def test_losses_and_measurements_pull_through_the_model() -> None:
    model, mean, covariance = gaussian(ss.EDM())
    t, x, y = torch.tensor(0.5), torch.randn(4, 3), torch.randn(4, 3)
    D, V = posterior(model, mean, covariance, x, t)

    def loss(D: Tensor, y: Tensor) -> Tensor:
        return (D - y).square().sum(1) / 2

    found = guidance.universal(model, loss, 0.3, y=y).denoise(x, t)
    assert torch.allclose(found, D - 0.3 * (D - y) @ V)
    gap = y[:, :2] - measure(D)
    found = guidance.posterior_sampling(model, measure, y[:, :2], strength=0.5).denoise(x, t)
    assert torch.allclose(found, D + gap / gap.norm(dim=1, keepdim=True) @ OPERATOR @ V)


def test_samples_of_an_inverse_problem_have_the_posteriors_moments() -> None:
    model, mean, covariance = gaussian(ss.EDM())
    y, noise = torch.tensor([[0.9, -0.4]]), 0.3
    system = OPERATOR @ covariance @ OPERATOR.T + noise**2 * torch.eye(2)
    gain = covariance @ OPERATOR.T @ torch.linalg.inv(system)
    guided = guidance.moment_matching(model, measure, y, noise=noise, iterations=2)
    s = ss.sample(guided, 4000, solver="ancestral", steps=120, seed=1)
    want = covariance - gain @ OPERATOR @ covariance
    assert torch.allclose(s.x.mean(0), mean + (y[0] - OPERATOR @ mean) @ gain.T, atol=0.03)
    assert torch.allclose(torch.cov(s.x.T), want, atol=0.03)


BASES, OTHERS = set(score_models.BASES), set(score_models.OTHERS)
GUIDED: dict[str, Callable[[ss.MixtureOracle, ss.ScoreModel], ss.ScoreModel]] = {
    "autoguidance": lambda free, bound: guidance.autoguidance(bound, free, 2.0),
    "projected": lambda free, bound: guidance.adaptive_projected(bound, free, 2.0, norm=0.5),
    "zero-star": lambda free, bound: guidance.zero_star(bound, free, 2.0),
    "rescaled": lambda free, bound: guidance.rescaled(bound, free),
    "threshold": lambda free, bound: guidance.thresholded(bound, 1.0, 0.9),
    "product": lambda free, bound: guidance.product(free, [bound], [2.0]),
    "experts": lambda free, bound: guidance.experts([free, bound], [1.0]),
    "universal": lambda free, bound: guidance.universal(bound, lambda D: D.square().sum(1)),
    "pseudoinverse": lambda free, bound: guidance.pseudoinverse(
        bound, lambda D: D[:, :1], MEANS[:1, :1]
    ),
    "moment matching": lambda free, bound: guidance.moment_matching(
        bound, lambda D: D[:, :1], MEANS[:1, :1], noise=0.1
    ),
    "posterior sampling": lambda free, bound: guidance.posterior_sampling(
        bound, lambda D: D[:, :1], MEANS[:1, :1]
    ),
    "replacement": lambda free, bound: guidance.replacement(
        bound, lambda D: D[:, :1], MEANS[:1, :1]
    ),
    "optimised": lambda free, bound: guidance.optimised(bound, lambda D: D.square().sum(1), 0.1),
    "classifier": lambda free, bound: guidance.classifier(bound, lambda x, t: -x.square().sum(1)),
    "mixture": lambda free, bound: guidance.mixture([bound, free], lambda x, t: x[:, :2]),
    "feedback": lambda free, bound: guidance.feedback(
        free, lambda x, t, label: x[:, 0], 0.7, label=torch.tensor([1])
    ),
    "classifier-free": lambda free, bound: ss.classifier_free(
        free, 2.0, label=torch.tensor([1]), negative={"label": torch.tensor([0])}
    ),
}


@pytest.mark.parametrize("name", GUIDED)
def test_pictures_know_what_each_guidance_is_made_of(name: str) -> None:
    model = GUIDED[name](*models(ss.VP()))
    free = {"mixture", "experts"}
    pairs = {"autoguidance", "projected", "zero-star", "feedback", "classifier-free"}
    assert bool(BASES & set(model.parts)) == (name not in free)
    assert bool(OTHERS & set(model.parts)) == (name in pairs)


@pytest.mark.parametrize("name", GUIDED)
def test_the_same_sample_in_batches_of_1_4_and_64(name: str) -> None:
    free, bound = models(ss.VP())
    bound = free.given(label=torch.tensor([2]))
    model, t = GUIDED[name](free, bound), torch.tensor(0.4)
    x = torch.randn(64, *MEANS.shape[1:])
    alone = model.denoise(x[:1], t)
    for size in (4, 64):
        assert torch.allclose(model.denoise(x[:size], t)[:1], alone, atol=1e-12), name


@pytest.mark.parametrize("name", GUIDED)
def test_every_sample_is_guided_by_itself(name: str) -> None:
    free, bound = models(ss.VP())
    model = GUIDED[name](free, bound)
    for solver, options in {
        "ddim": {"steps": 5},
        "dpm_adaptive": {"rtol": 1e-2, "atol": 1e-2},
    }.items():
        together = ss.sample(model, 4, solver=solver, seed=3, **options)
        for i in (0, 3):
            rows = torch.tensor([i])
            alone = ss.sample(model.rows(rows), 1, solver=solver, seed=3, first_index=i, **options)
            assert torch.allclose(alone.x[0], together.x[i], atol=1e-9)
    assert math.isfinite(float(together.x.sum()))
    assert model.guided or name == "experts"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda m: guidance.autoguidance(m, mixture(ss.EDM()), 2.0), "must have the same process"),
        (lambda m: guidance.adaptive_projected(m, m, 2.0, norm=-1), "norm must be at least 0"),
        (lambda m: guidance.autoguidance(m, m, math.nan), "scale must be a finite number"),
        (lambda m: guidance.zero_star(m, m, math.inf), "scale must be a finite number"),
        (lambda m: guidance.universal(m, len, math.nan), "scale must be a finite number"),
        (
            lambda m: guidance.pseudoinverse(m, measure, MEANS, noise=math.nan),
            "noise must be a finite",
        ),
        (lambda m: guidance.rescaled(m, m, 2.0), r"share must lie in \[0, 1\]"),
        (lambda m: guidance.thresholded(m, 0.0), "limit must be positive"),
        (lambda m: guidance.product(m, []), "parts must hold at least one model"),
        (lambda m: guidance.product(m, [m], [1.0, 2.0]), "weights must be 1 finite numbers"),
        (lambda m: guidance.experts([m, m], [3.0, 1.0]), "levels must be 1 noise levels"),
        (
            lambda m: guidance.moment_matching(m, measure, MEANS, noise=0.0),
            "noise must be positive",
        ),
        (lambda m: guidance.pseudoinverse(m, measure, MEANS / 0), "y must be finite"),
        (
            lambda m: guidance.universal(m, lambda D: D.detach().sum(1)).denoise(
                MEANS, torch.tensor(0.5)
            ),
            "has no gradient with respect to the data",
        ),
        (
            lambda m: guidance.universal(m, lambda D: D.sum()).denoise(MEANS, torch.tensor(0.5)),
            r"one number per sample, with shape \(3,\)",
        ),
        (
            lambda m: guidance.classifier(m, lambda x, t: x).denoise(MEANS, torch.tensor(0.5)),
            "log_prob must return one number per sample",
        ),
        (
            lambda m: guidance.pseudoinverse(m, lambda D: D, MEANS[:, :1]).denoise(
                MEANS, torch.tensor(0.5)
            ),
            "y must have the shape of the operator's result",
        ),
    ],
)
def test_guidance_says_what_is_wrong(make: Callable[[ss.ScoreModel], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(mixture(ss.VP()))


def test_guidance_by_gradients_has_no_likelihood_and_no_gradients() -> None:
    model, _, _ = gaussian(ss.EDM())
    guided = guidance.moment_matching(model, measure, torch.zeros(1, 2), noise=0.2)
    wrapped = guidance.thresholded(guided, 5.0)
    for one in (guided, wrapped, guidance.classifier(model, lambda x, t: x.sum(1))):
        with pytest.raises(ValueError, match="is not known, so neither"):
            ss.log_likelihood(one, torch.zeros(1, 3))
        with pytest.raises(ValueError, match="cannot differentiate guidance by gradients"):
            ss.sample(one, 2, steps=2, grad="backprop")


def test_measurements_that_no_data_fits_pull_to_the_nearest() -> None:
    model = ss.GaussianOracle(torch.zeros(3), 0.49 * torch.eye(3), ss.EDM())
    known, t = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor(0.5)
    x = torch.randn(2, 3)
    y = torch.tensor([[1.0, 5.0, 5.0]])
    found = [
        guidance.pseudoinverse(model, lambda D, known: known * D, value, known=known).denoise(x, t)
        for value in (y, known * y)
    ]
    assert torch.allclose(*found)


def test_rescaling_leaves_samples_without_spread() -> None:
    flat = ss.MixtureOracle(torch.tensor([[1.0]]), 0.3, process=ss.EDM())
    x, t = torch.randn(3, 1), torch.tensor(0.5)
    assert torch.allclose(guidance.rescaled(flat, flat).denoise(x, t), flat.denoise(x, t))


def test_experts_never_leave_their_ranges() -> None:
    free = mixture(ss.EDM())

    class Narrow(ss.ScoreModel):
        def __init__(self, low: float, high: float) -> None:
            super().__init__()
            self.resemble(free)
            self.low, self.high, self.conditions = low, high, ()

        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            assert ((t >= self.low - 1e-9) & (t <= self.high + 1e-9)).all()
            return free.denoise(x, t)

    both = guidance.experts([Narrow(0.0, 1.0), Narrow(1.0, 90.0)], [1.0])
    s = ss.sample(both, 6, solver="dpm_adaptive", rtol=1e-2, atol=1e-2, seed=4)
    assert torch.allclose(
        s.x, ss.sample(free, 6, solver="dpm_adaptive", rtol=1e-2, atol=1e-2, seed=4).x
    )


def test_fingerprints_tell_guidances_apart() -> None:
    free, bound = models(ss.VP())
    named = [
        guidance.adaptive_projected(bound, free, 5.0),
        guidance.adaptive_projected(bound, free, 5.0, parallel=1.0, norm=2.0),
        guidance.zero_star(bound, free, 5.0),
        guidance.pseudoinverse(free, measure, torch.zeros(1, 2)),
        guidance.pseudoinverse(free, measure, torch.zeros(1, 2), noise=0.1),
    ]
    assert len({model.fingerprint for model in named}) == len(named)


def test_models_without_weight_are_not_asked() -> None:
    free, bound = models(ss.VP())
    x, t, D, other = states(ss.VP())
    cases = {
        guidance.autoguidance(bound, free, 1.0): (D, 4),
        guidance.product(free, [bound], [1.0]): (D, 4),
        guidance.product(free, [bound, bound], [0.5, 0.5]): (D, 8),
        guidance.product(free, [bound], [0.0]): (other, 4),
        guidance.product(free, [bound], [2.0]): (2 * D - other, 8),
    }
    for model, (want, calls) in cases.items():
        assert torch.allclose(model.denoise(x, t), want)
        assert ss.sample(model, 4, solver="ddim", steps=3).calls.tolist() == [calls] * 4
