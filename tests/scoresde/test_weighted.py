r"""Weighted samples have the law that plain guidance misses."""

import math

import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers

PROCESSES = {"EDM": ss.EDM(), "VP": ss.VP(), "Interpolant": ss.Interpolant()}


def mixture(process: ss.Process) -> ss.MixtureOracle:
    means = torch.tensor([[-1.2], [0.2], [1.0]], dtype=torch.float64)
    stds = torch.tensor([0.5, 0.4, 0.3], dtype=torch.float64)
    return ss.MixtureOracle(means, stds, torch.tensor([0.5, 0.2, 0.3]), process)


def truth(
    process: ss.Process, models: list[ss.ScoreModel], b: list[float]
) -> tuple[float, float, float]:
    r"""The normaliser, mean and deviation of a product of powers, by quadrature."""

    t = process.start_of("sampling")
    alpha = process.scales(torch.tensor(t))[0]
    X = torch.linspace(-12, 12, 40001)[:, None]
    # log-densities from scores, which all models have, and their value at one point
    log_p = torch.zeros(len(X))
    for weight, model in zip(b, models, strict=True):
        level = torch.exp(-process.log_snr(torch.tensor(t)))
        score = ((model.denoise(alpha * X, torch.tensor(t)) - X) / level**2)[:, 0]
        h = X[1, 0] - X[0, 0]
        log_q = torch.cat([torch.zeros(1), ((score[1:] + score[:-1]) / 2 * h).cumsum(0)])
        log_p = log_p + weight * (log_q - (log_q.logsumexp(0) + h.log()))
    mass = (log_p.logsumexp(0) + (X[1, 0] - X[0, 0]).log()).item()
    p = (log_p - log_p.logsumexp(0)).exp()
    mean = (p * X[:, 0]).sum().item()
    return mass, mean, math.sqrt((p * (X[:, 0] - mean) ** 2).sum().item())


def moments(s: ss.Weighted) -> tuple[float, float]:
    mean = s.mean(lambda x: x[:, 0]).item()
    return mean, math.sqrt(s.mean(lambda x: (x[:, 0] - mean) ** 2).item())


# Labels and exponents, and how far 4000 samples may be off in normaliser, mean and deviation
CASES = {
    "guidance": ([None, 2], [-1.0, 2.0], (0.15, 0.05, 0.03)),
    "annealing": ([None], [1.4], (0.3, 0.2, 0.08)),
    "heating": ([None], [0.6], (0.1, 0.08, 0.06)),
    "product": ([1, 2], [1.0, 1.0], (0.5, 0.12, 0.08)),
}


TRIALS = [
    pytest.param(case, process, marks=() if (i + j) % 3 == 0 else pytest.mark.slow)
    for i, case in enumerate(CASES)
    for j, process in enumerate(PROCESSES)
]  # each case and each process at every commit, all pairs among the slow ones


@pytest.mark.parametrize(("case", "process"), TRIALS)
def test_products_of_powers_have_their_law_and_normaliser(case: str, process: str) -> None:
    labels, b, within = CASES[case]
    free = mixture(PROCESSES[process])
    models = [free if k is None else free.given(label=torch.tensor([k])) for k in labels]
    mass, mean, std = truth(free.process, models, b)
    s = ss.weighted_sample(models, b, 4000, steps=300, seed=1)
    found = moments(s)
    assert s.log_normaliser == pytest.approx(mass, abs=within[0])
    assert found[0] == pytest.approx(mean, abs=within[1])
    assert found[1] == pytest.approx(std, abs=within[2])
    assert s.calls.tolist() == [300 * len(models)] * 4000


def test_plain_guidance_is_biased_where_the_weighted_is_not() -> None:
    free = mixture(ss.EDM())
    bound = free.given(label=torch.tensor([2]))
    _, mean, std = truth(free.process, [free, bound], [-1.0, 2.0])
    guided = ss.classifier_free(free, 2.0, label=torch.tensor([2]))
    plain = ss.sample(guided, 4000, solver="ancestral", steps=300, seed=1).x
    s = ss.weighted_sample([free, bound], [-1.0, 2.0], 4000, steps=300, seed=1)
    error = abs(float(plain.mean()) - mean) + abs(float(plain.std()) - std)
    ours = abs(moments(s)[0] - mean) + abs(moments(s)[1] - std)
    assert error > 0.08 > 2 * ours


def test_weights_of_one_model_stay_even() -> None:
    s = ss.weighted_sample([mixture(ss.VP())], [1.0], 50, steps=20)
    assert torch.allclose(s.log_weights, torch.full((50,), -math.log(50)))
    assert s.log_normaliser == pytest.approx(0.0, abs=1e-9)
    assert s.resampled == 0
    assert torch.allclose(s.sizes, torch.full((20,), 50.0))


def test_samples_are_drawn_anew_where_weights_are_uneven() -> None:
    free = mixture(ss.EDM())
    options = {"count": 500, "steps": 60, "seed": 2}
    often = ss.weighted_sample([free], [3.0], threshold=0.9, **options)
    never = ss.weighted_sample([free], [3.0], threshold=0.0, **options)
    assert often.resampled > 1
    assert never.resampled == 0
    assert often.sizes.min() > never.sizes.min()
    assert len(often.x.unique()) <= 500


@pytest.mark.parametrize(
    ("models", "exponents", "options", "words"),
    [
        ([0], [1.0, 2.0], {}, "1 models for 2 exponents"),
        ([0], [-1.0], {}, "sum positive"),
        ([0], [1.0], {"threshold": 2.0}, r"threshold must lie in \[0, 1\]"),
        ([0], [1.0], {"steps": 0}, "steps must be at least 1"),
        ([0, 1], [1.0, 1.0], {}, "must have the same process"),
    ],
)
def test_bad_products_are_refused(
    models: list[int], exponents: list[float], options: dict, words: str
) -> None:
    known: list[ss.ScoreModel] = [mixture(ss.EDM()), mixture(ss.VP())]
    with pytest.raises(ValueError, match=words):
        ss.weighted_sample([known[i] for i in models], exponents, 10, **options)


def test_weighted_means_are_of_any_function() -> None:
    s = ss.weighted_sample([mixture(ss.EDM())], [1.0], 300, steps=40)

    def both(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0], x[:, 0] ** 2], 1)

    assert torch.allclose(s.mean(both), both(s.x).mean(0))


def test_weighted_samples_share_their_condition_and_stay_finite() -> None:
    free = mixture(ss.EDM())
    with pytest.raises(ValueError, match="conditions must be the same for all samples"):
        ss.weighted_sample([free.given(label=torch.arange(9) % 3)], [1.0], 9, steps=5)
    with pytest.raises(ValueError, match="8 steps are too few for exponents of sum 12"):
        ss.weighted_sample([free], [12.0], 9, steps=8)

    class Broken(ss.MixtureOracle):
        def denoise(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
            return super().denoise(x, t, label) / (t > 1).to(x).reshape(-1, 1)

    with pytest.raises(solvers.SolverError, match="NaN or infinite at t="):
        ss.weighted_sample([Broken(free.means, 0.3)], [1.0], 9, steps=20)
