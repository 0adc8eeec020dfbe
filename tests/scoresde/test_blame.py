r"""Guidance that cannot work says why: by the name of the loss, the classifier, the scale or the solver."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde import guidance
from solvers import SolverError

from .cases import PROCESSES, mixture

LABEL = torch.tensor([0, 1, 2, 1])


def rooted(D: Tensor) -> Tensor:  # the root of a square, whose derivative at 0 is NaN
    return (D - D.detach()).square().sum(1).sqrt()


def certain(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
    return torch.log(torch.zeros(len(x)) + 0 * x.sum(1))


def overflowing(x: Tensor) -> Tensor:
    return x * torch.inf


FAILING: dict[str, tuple[Callable[[ss.MixtureOracle], ss.ScoreModel], str]] = {
    "universal": (lambda m: guidance.universal(m, rooted), "the gradient of loss 'rooted' is NaN"),
    "optimised": (
        lambda m: guidance.optimised(m, rooted, 0.1),
        "the gradient of loss 'rooted' is NaN",
    ),
    "classifier": (
        lambda m: guidance.classifier(m, certain),
        "the gradient of log_prob 'certain' is NaN",
    ),
    "feedback": (
        lambda m: guidance.feedback(m, certain, 0.7, label=torch.tensor([1])),
        "the result of log_ratio 'certain' is NaN or infinite",
    ),
    "operator": (
        lambda m: guidance.pseudoinverse(m, overflowing, torch.zeros(1, 2)),
        "the result of the operator 'overflowing' is NaN or infinite",
    ),
    "within": (
        lambda m: guidance.within(guidance.universal(m, rooted), m, (0.0, 1.0)),
        "the gradient of loss 'rooted' is NaN",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAILING)
@pytest.mark.parametrize(
    "options",
    [
        {"solver": "ddim", "steps": 12},
        {"solver": "em", "steps": 5},
        {"solver": "exponential", "rtol": 1e-2, "atol": 1e-2},
        {"solver": "torchdiffeq/rk4", "steps": 5},
        {"solver": "torchsde/euler", "steps": 5},
    ],
    ids=lambda o: o["solver"],
)
def test_failures_name_what_was_not_finite(name: str, options: dict) -> None:
    make, words = FAILING[name]
    model = make(mixture(ss.VP()))
    with pytest.raises(SolverError, match=rf"^{words}.* for samples \[[01].*; ") as caught:
        ss.sample(model, 2, **options)
    assert "check the network" not in str(caught.value)
    s = ss.sample(model, 2, on_failure="partial", **options)
    assert s.status == ("nonfinite", "nonfinite")
    assert s.x.isfinite().all()


def test_a_network_at_fault_is_still_blamed() -> None:
    broken = ss.NetworkScore(lambda x, t: x * torch.nan, ss.VP(), "noise", shape=(2,))
    guided = guidance.universal(broken, lambda D: D.square().sum(1))
    with pytest.raises(SolverError, match="the state or the model's output is NaN"):
        ss.sample(guided, 2, steps=4)


def test_the_last_denoising_names_the_loss_too() -> None:
    model = mixture(ss.VP())
    guided = guidance.within(guidance.universal(model, rooted), model, (0.0, 0.0101))
    with pytest.raises(
        SolverError, match="the gradient of loss 'rooted' .* at the last denoising"
    ):
        ss.sample(guided, 2, solver="ddim", steps=4)


def test_functions_without_slopes_are_refused_and_flat_ones_are_not() -> None:
    model = mixture(ss.VP())

    def counting(D: Tensor) -> Tensor:
        return (10 * D).round().sum(1)

    def hinge(D: Tensor) -> Tensor:
        return (D.abs().sum(1) - 3.0).relu()

    def far(D: Tensor) -> Tensor:
        return (D.abs().sum(1) - 1e6).relu()

    for make in (guidance.universal, lambda m, f: guidance.optimised(m, f, 0.1)):
        with pytest.raises(ValueError, match="counting' is 0 wherever it was computed"):
            ss.sample(make(model, counting), 2, steps=3)
        for flat in (hinge, far):
            assert ss.sample(make(model, flat), 2, steps=3).ok
    with pytest.raises(ValueError, match="gradient of log_prob .* is 0 wherever"):
        ss.sample(guidance.classifier(model, lambda x, t: x.sign().sum(1)), 2, steps=3)


def test_scales_are_real_numbers() -> None:
    free = mixture(ss.VP())
    for wrong in (torch.tensor(1j), torch.tensor(True)):
        with pytest.raises(TypeError, match="scale must (be real|hold real|be numbers)"):
            ss.classifier_free(free, wrong, label=LABEL)
        guided = ss.classifier_free(free, lambda level, w=wrong: w.expand_as(level), label=LABEL)
        with pytest.raises(TypeError, match="scale must return real numbers"):
            ss.sample(guided, 4, steps=2)
    for wrong in (True, 1j):
        with pytest.raises(TypeError, match="scale must be"):
            ss.classifier_free(free, wrong, label=LABEL)
    for levels in ([-1.0], [0.0]):
        with pytest.raises(ValueError, match="noise levels that rise above 0"):
            guidance.experts([free, free], levels)


class Learned(ss.ScoreModel):
    r"""A model that has learned a mixture of the data under a condition and of all data."""

    conditions = ("label",)

    def __init__(self, free: ss.MixtureOracle, share: float) -> None:
        super().__init__()
        self.resemble(free)
        k = len(free.means)
        weights = torch.full((k,), (1 - share) / k, dtype=torch.float64)
        weights[0] += share
        self.conditions = ("label",)
        self.free = free
        self.mixed = ss.MixtureOracle(free.means, free.values[0, 0].sqrt(), weights, free.process)

    def denoise(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return (self.free if label is None else self.mixed).denoise(x, t)


@pytest.mark.parametrize("level", [0.2, 1.0])
def test_feedback_is_its_formula_up_to_its_limit(level: float) -> None:
    free, share = mixture(ss.EDM()), 0.8
    model, bound = Learned(free, share), free.given(label=torch.tensor([0]))
    t = torch.tensor(level, dtype=torch.float64)
    x = torch.cat(
        [free.means, torch.rand(5, 2, dtype=torch.float64)]
    )  # where r is no less than 1e-8

    def log_ratio(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        _, joint = free._project(x, *free._scales(x, t))
        return joint.log_softmax(1)[:, 0] + math.log(len(free.means))

    def guided(limit: float) -> ss.ScoreModel:
        return guidance.feedback(model, log_ratio, share, limit=limit, label=torch.tensor([0]))

    assert torch.allclose(guided(math.inf).denoise(x, t), bound.denoise(x, t), atol=1e-5)
    r = log_ratio(x, t, LABEL).exp()
    w = (1 + (1 - share) / (share * r)).clamp(max=3.0)[:, None]
    D, free_D = model.denoise(x, t, label=torch.tensor([0])), free.denoise(x, t)
    assert torch.allclose(guided(3.0).denoise(x, t), free_D + w * (D - free_D))


def algorithm_2(
    free: ss.ScoreModel, bound: ss.ScoreModel, share: float, x: Tensor, times: Tensor
) -> Tensor:
    r"""CFG++ as the paper writes it, in units of the data."""

    process = free.process
    levels, alphas = torch.exp(-process.log_snr(times)), process.scales(times)[0]
    X = x / alphas[0]
    for i, t in enumerate(times):
        other, D = (model.denoise(alphas[i] * X, t) for model in (free, bound))
        after = levels[i + 1] if i + 1 < len(times) else 0.0 * levels[i]
        last = i + 1 == len(times)
        X = other + share * (D - other) + (0.0 if last else after / levels[i]) * (X - other)
    return X


@pytest.mark.parametrize("process", ["VP", "EDM", "Interpolant"])
def test_plus_plus_follows_the_grid_that_is_used(process: str) -> None:
    free = mixture(PROCESSES[process])
    bound, x = free.given(label=LABEL), free.process.prior_sample((4, 2), seed=1)
    made = ss.sample(free, 1, steps=10).times
    for guided in (
        guidance.plus_plus(free, 0.6, label=LABEL),
        guidance.plus_plus(free, 0.6, made, label=LABEL),
    ):
        for options in (
            {"steps": 3},
            {"steps": 7, "grid": "log_snr"},
            {"steps": 10, "batch_size": 3},
        ):
            low = free.process.at_noise_level(0.4)  # where conditions matter still
            s = ss.decode(guided, x, solver="ddim", t_min=low, **options)
            assert torch.allclose(s.x, algorithm_2(free, bound, 0.6, x, s.times))
            assert s.calls.tolist() == [2 * (options["steps"] + 1)] * 4
    grids = [ss.sample(free, 1, steps=5, grid=grid).times for grid in ("rho", "log_snr")]
    own = ss.decode(guided, x, solver="ddim", times=torch.stack(grids * 2, 1)).x
    for i in range(4):
        assert torch.allclose(own[i], algorithm_2(free, bound, 0.6, x, grids[i % 2])[i])
    assert torch.allclose(
        guided.denoise(x, made[3]), ss.classifier_free(
            free, float(0.6 / (1 - torch.exp(free.process.log_snr(made[3]) - free.process.log_snr(made[4])))),
            label=LABEL,
        ).denoise(x, made[3]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"solver": "ancestral", "steps": 4},
            "so it has no effect on ancestral; use solver='ddim'",
        ),
        ({"solver": "dpmpp_2m", "steps": 4}, "so it has no effect on dpmpp_2m"),
        ({"solver": "heun", "steps": 4}, "so it has no effect on heun"),
        ({"solver": "torchdiffeq/euler", "steps": 4}, "so it has no effect on torchdiffeq/euler"),
        ({"solver": "recurrent", "steps": 4}, "so it has no effect on recurrent"),
        ({"rtol": 1e-2}, "so it has no effect on exponential"),
        ({"solver": "ddim", "steps": 4, "eta": 0.5}, "DDIM without noise, but eta=0.5"),
    ],
)
def test_plus_plus_refuses_other_steps(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ss.sample(guidance.plus_plus(mixture(ss.VP()), 0.6, label=LABEL), 4, **options)


def test_plus_plus_outside_of_a_run_wants_a_grid() -> None:
    free = mixture(ss.VP())
    with pytest.raises(ValueError, match="pass times= to plus_plus"):
        guidance.plus_plus(free, 0.6, label=LABEL).denoise(torch.zeros(4, 2), torch.tensor(0.5))
    with pytest.raises(ValueError, match="plus_plus needs a condition"):
        guidance.plus_plus(free, 0.6)
