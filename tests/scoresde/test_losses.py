r"""The denoising loss: its weights are the errors of predictions, its minimiser the conditional mean."""

import math
import re
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde import losses
from scoresde.losses.weights import WEIGHTS, weights
from scoresde.training.objective import Objective

from .exact import Bent, Features, at, mean, minimiser, mixed, mixture_oracle, normal

PROCESSES: dict[str, ss.Process] = {
    "VP": ss.VP(),
    "SubVP": ss.SubVP(),
    "EDM": ss.EDM(),
    "Interpolant": ss.Interpolant(),
}
TIMES = {"VP": 0.3, "SubVP": 0.3, "EDM": 0.6, "Interpolant": 0.4}
STEPS = 8
EVERY: dict[str, Any] = {
    **{f"denoising, {name}": partial(losses.denoising, weight=name) for name in WEIGHTS},
    "implicit_score": losses.implicit_score,
    "sliced_score": losses.sliced_score,
    "sliced_score, plain": partial(losses.sliced_score, reduced=False),
    "discrete_elbo": partial(losses.discrete_elbo, steps=STEPS),
    "continuous_elbo": losses.continuous_elbo,
    "Uncertainty": lambda *arguments: losses.Uncertainty()(*arguments),
}


def rates(process: ss.Process, t: Tensor) -> tuple[Tensor, Tensor]:
    r"""The derivatives of the scales, by differences."""

    h = 1e-6 * t
    later, before = process.scales(t + h), process.scales(t - h)
    return (later[0] - before[0]) / (2 * h), (later[1] - before[1]) / (2 * h)


# ---- minimisers


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("loss", EVERY)
def test_the_minimiser_on_normal_data_is_the_conditional_mean(loss: str, process: str) -> None:
    p, (x, z, w) = PROCESSES[process], normal()
    t = p.t_min + (3 - 1e-9) / STEPS * (p.t_max - p.t_min)  # just before a step of the sampler
    level = at(p, t, len(x))
    best, _ = minimiser(lambda theta: (EVERY[loss](Features(p, theta), x, level, z) * w).sum())
    alpha, sigma = (float(v) for v in p.scales(torch.tensor(t, dtype=torch.float64)))
    gain = alpha * 0.3 / (alpha**2 * 0.3 + sigma**2)
    assert torch.allclose(best, torch.tensor([gain, 0.4 * (1 - alpha * gain)]).double(), rtol=1e-6)


@pytest.mark.parametrize("process", PROCESSES)
def test_the_minimiser_on_a_mixture_is_its_denoised_data(process: str) -> None:
    p, (x, z, w) = PROCESSES[process], mixed()
    oracle, level = mixture_oracle(p), at(p, TIMES[process], len(x))
    alpha, sigma = p.scales(torch.tensor(TIMES[process], dtype=torch.float64))

    def features(noisy: Tensor, t: Tensor) -> Tensor:  # of which the mean is a combination
        distance = (noisy - alpha * torch.tensor([-0.8, 0.9]).double()).square()
        shares = torch.softmax(-distance / (2 * (alpha**2 * 0.35**2 + sigma**2)), 1)
        return torch.cat([shares, shares * noisy], 1)

    loss = partial(losses.denoising, weight="noise")
    best, least = minimiser(
        lambda theta: (loss(Features(p, theta, features), x, level, z) * w).sum(), 4
    )
    noisy = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    t = torch.tensor(TIMES[process], dtype=torch.float64)
    found = Features(p, best, features).denoise(noisy, t)
    assert torch.allclose(found, oracle.denoise(noisy, t), atol=1e-4)
    assert math.isclose(float(least), mean(loss(oracle, x, level, z), w), rel_tol=1e-6)


def test_conditions_reach_the_network_and_belong_to_the_rows() -> None:
    network = ss.NetworkScore(
        lambda x, t, label: label[:, None] * torch.ones_like(x),
        ss.EDM(),
        "data",
        conditions=["label"],
    )
    x = torch.zeros(3, 2).double()
    found = losses.denoising(network, x, torch.zeros(3), x, weight="data", label=[1.0, 2.0, 3.0])
    assert found.tolist() == [1, 4, 9]


# ---- weights


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("predicts", ["data", "noise", "score", "v", "velocity", "edm"])
def test_the_weight_of_a_prediction_is_the_plain_error_of_the_network(
    predicts: str, process: str
) -> None:
    p, (x, z, _) = PROCESSES[process], normal()
    t = torch.tensor(TIMES[process], dtype=torch.float64)
    model = ss.NetworkScore(lambda x, t: torch.tanh(2 * x), p, predicts, data_std=0.7)
    alpha, sigma = p.scales(t)
    d_alpha, d_sigma = rates(p, t)
    noisy, s, c = alpha * x + sigma * z, sigma / alpha, 0.7
    skip, out = c**2 / (s**2 + c**2) / alpha, s * c / (s**2 + c**2).sqrt()
    seen = noisy / alpha / (s**2 + c**2).sqrt() if predicts == "edm" else noisy
    target = {
        "data": x,
        "noise": z,
        "score": -z / sigma,
        "v": alpha * z - sigma * x,
        "velocity": d_alpha * x + d_sigma * z,
        "edm": (x - skip * noisy) / out,
    }[predicts]
    found = losses.denoising(model, x, p.log_snr(t), z, weight=predicts)
    assert torch.allclose(found, (torch.tanh(2 * seen) - target).square()[:, 0], rtol=1e-6)


def test_the_simple_loss_is_a_weight_and_the_v_loss_another() -> None:
    p, (x, z, _) = ss.VP(), normal()
    model, t = Bent(p), torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = p.scales(t)
    noisy = alpha * x + sigma * z
    simple = (model.noise(noisy, t) - z).square()[:, 0]
    v = alpha * model.noise(noisy, t) - sigma * model.denoise(noisy, t) - (alpha * z - sigma * x)
    level = p.log_snr(t)
    assert torch.allclose(losses.denoising(model, x, level, z, weight="noise"), simple)
    assert torch.allclose(losses.denoising(model, x, level, z, weight="v"), v.square()[:, 0])


def test_limits_of_weights_that_take_a_number() -> None:
    level = torch.linspace(-4, 4, 17, dtype=torch.float64)
    p = ss.VE(ss.Geometric(0.01, 100.0))

    def of(name: str) -> Tensor:
        return weights(name, p, level, 0.5)

    snr = torch.exp(2 * level)
    for name in ("min_snr", "soft_min_snr"):
        assert torch.allclose(of(f"{name}:1e12"), of("noise"))
        assert torch.allclose(of(f"{name}:1e-9") / 1e-9, of("data"))
    assert torch.allclose(of("sigmoid:60"), of("noise"))
    assert torch.allclose(of("sigmoid:-60") * math.exp(60), of("data"))
    assert torch.allclose(of("min_snr:3"), snr.minimum(torch.tensor(3.0)))
    assert torch.equal(of("min_snr"), of("min_snr:5"))
    assert torch.allclose(1 / of("soft_min_snr:3"), 1 / snr + 1 / 3)  # half the harmonic mean
    assert torch.equal(of("soft_min_snr"), of("soft_min_snr:4"))  # with c = 0.5
    assert torch.allclose(of("edm") * of("soft_min_snr"), 4 * snr)
    half = weights("sigmoid:-1", p, torch.tensor([-0.5]).double(), 0.5)  # where 2 lambda = b
    assert torch.allclose(half, torch.tensor([math.exp(-1) / 2]).double())


def test_a_weight_of_ones_own_is_called_with_the_levels() -> None:
    p, (x, z, _) = ss.EDM(), normal()
    seen = []

    def own(process: ss.Process, log_snr: Tensor, data_std: float) -> Tensor:
        seen.append((process, data_std))
        return torch.exp(2 * log_snr)

    level = at(p, 0.6, len(x))
    found = losses.denoising(Bent(p), x, level, z, weight=own)
    assert torch.allclose(found, losses.denoising(Bent(p), x, level, z, weight="noise"))
    assert all(process is p and data_std == 0.5 for process, data_std in seen)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_levels_beyond_the_process_are_its_ends(weight: str) -> None:
    p, (x, z, _) = ss.EDM(), normal()
    loss = partial(losses.denoising, Bent(p), x, z=z, weight=weight)
    for beyond, end in ((20.0, p.t_min), (-20.0, p.t_max)):
        found, expected = loss(torch.tensor(beyond)), loss(at(p, end, len(x)))
        assert torch.allclose(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "predicts"), [("EDM", "edm"), ("VP", "v"), ("Interpolant", "velocity")]
)
def test_losses_in_float32_are_those_in_float64_at_all_levels(name: str, predicts: str) -> None:
    p, (x, z, _) = PROCESSES[name], normal()
    model = ss.NetworkScore(lambda x, t: torch.tanh(x), p, predicts)
    for t in (p.t_min, TIMES[name], p.t_max):
        level = at(p, t, len(x))
        exact = losses.denoising(model, x, level, z, weight=predicts)
        found = losses.denoising(model, x.float(), level.float(), z.float(), weight=predicts)
        assert found.dtype == torch.float32
        assert torch.allclose(found.double(), exact, rtol=1e-3, atol=1e-3)


# ---- learned uncertainty


def test_the_learned_uncertainty_is_the_log_of_the_loss_of_each_level() -> None:
    level = torch.linspace(-4, 4, 101, dtype=torch.float64)
    true = torch.sin(level) + 0.1 * level**2 - 1  # of a loss that is this large

    def loss(model: object, x: Tensor, log_snr: Tensor, z: Tensor) -> Tensor:
        return torch.exp(true) * x[:, 0]  # which is 0.5 or 1.5

    x = torch.where(torch.arange(101) % 2 == 0, 0.5, 1.5).double()[:, None]
    weighted = losses.Uncertainty(loss, features=24).double()
    optimizer = torch.optim.LBFGS(
        weighted.parameters(), max_iter=300, line_search_fn="strong_wolfe"
    )
    model: Any = None

    def value() -> Tensor:
        optimizer.zero_grad()
        each = weighted(model, x, level, x) + weighted(model, 2 - x, level, x)
        each.mean().backward()
        return each.mean()

    optimizer.step(value)
    assert float((weighted.log_loss(level) - true).detach().abs().max()) < 0.02
    assert math.isclose(float(value().detach()) / 2, 1 + float(true.mean()), abs_tol=1e-3)


def test_the_features_of_a_seed_are_the_same_everywhere() -> None:
    first, second, other = (losses.Uncertainty(features=5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.rates, second.rates)
    assert not torch.equal(first.rates, other.rates)


def test_a_learned_uncertainty_hands_on_the_seed_of_each_step() -> None:
    drawn = []

    def loss(
        model: object, x: Tensor, log_snr: Tensor, z: Tensor, *, seed: int = 0, **condition: Tensor
    ) -> Tensor:
        drawn.append(seed)
        return x[:, 0] ** 2

    plain, weighted = Objective(None, loss), Objective(None, losses.Uncertainty(loss))  # type: ignore[arg-type]
    estimating = losses.Uncertainty(losses.self_conditioned(loss))
    x = torch.ones(3, 2)
    for step in (5, 6):
        assert torch.equal(plain(x, x[:, 0], x, step, {}), weighted(x, x[:, 0], x, step, {}))
    assert drawn == [5, 5, 6, 6]
    assert estimating.seeded
    assert not losses.Uncertainty().seeded


# ---- derivatives


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[0.3, -0.2], [0.5, 0.1]], dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x @ self.matrix) * torch.cos(t)[:, None]


@pytest.mark.parametrize("predicts", ["edm", "noise"])
@pytest.mark.parametrize("loss", [*EVERY, "interpolant", "interpolant, noise"])
def test_losses_are_differentiable_in_the_weights_of_networks(loss: str, predicts: str) -> None:
    network = Small()
    model = ss.NetworkScore(network, ss.VP(), predicts)
    found = {
        "interpolant": losses.interpolant,
        "interpolant, noise": partial(losses.interpolant, target="noise"),
        **EVERY,
    }[loss]
    x = torch.tensor([[0.3, -0.5], [1.0, 0.2], [-0.4, 0.7]], dtype=torch.float64)
    level, z = torch.tensor([1.0, 0.0, -1.0]), x.flip(0) * 1.5 - 0.1

    found(model, x, level, z).sum().backward()
    gradient, h = network.matrix.grad, 1e-6
    assert gradient is not None
    with torch.no_grad():
        network.matrix[0, 1] += h
        high = found(model, x, level, z).sum()
        network.matrix[0, 1] -= 2 * h
        low = found(model, x, level, z).sum()
    assert math.isclose(gradient[0, 1], (high - low) / (2 * h), rel_tol=1e-4, abs_tol=1e-7)


# ---- what is refused


X, LEVEL = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.zeros(2)
MODEL = ss.NetworkScore(lambda x, t: 0 * x, ss.EDM(), "data")
FLOW = ss.NetworkScore(lambda x, t: 0 * x, ss.Interpolant(), "velocity", learned="flow")
FREE = ss.NetworkScore(lambda x, t: -x, ss.NonlinearProcess(lambda x, t: -x, 1.0), "score")
REFUSED = {
    "weight must be one of 'data'": lambda: losses.denoising(MODEL, X, LEVEL, X, weight="snr"),
    "weight 'noise' takes no number": lambda: losses.denoising(
        MODEL, X, LEVEL, X, weight="noise:2"
    ),
    "gamma of weight 'min_snr' must be positive": lambda: losses.denoising(
        MODEL, X, LEVEL, X, weight="min_snr:-1"
    ),
    "bias of weight 'sigmoid' must be finite": lambda: losses.denoising(
        MODEL, X, LEVEL, X, weight="sigmoid:a"
    ),
    "weight must return one number per noise level": lambda: losses.denoising(
        MODEL, X, LEVEL, X, weight=lambda *_: 1.0
    ),
    "weight must return finite numbers >= 0": lambda: losses.denoising(
        MODEL, X, LEVEL, X, weight=lambda p, level, c: -torch.ones_like(level)
    ),
    "z must have the shape of x, (2, 2), but has (2, 1)": lambda: losses.denoising(
        MODEL, X, LEVEL, X[:, :1]
    ),
    "log_snr must have shape (2,), but has (3,)": lambda: losses.denoising(
        MODEL, X, torch.zeros(3), X
    ),
    "label= is neither an option nor a condition": lambda: losses.denoising(
        MODEL, X, LEVEL, X, label=X
    ),
    "log_snr is no level of NonlinearProcess": lambda: losses.denoising(FREE, X, LEVEL, X),
    "model must learn scores for losses.implicit_score, but learns a 'flow'": lambda: (
        losses.implicit_score(FLOW, X, LEVEL, X)
    ),
    "model must learn scores for losses.sliced_score": lambda: losses.sliced_score(
        FLOW, X, LEVEL, X
    ),
    "model must learn scores for losses.continuous_elbo": lambda: losses.continuous_elbo(
        FLOW, X, LEVEL, X
    ),
    "model must learn scores for losses.discrete_elbo": lambda: losses.discrete_elbo(
        FLOW, X, LEVEL, X
    ),
    "probes must be at least 1": lambda: losses.sliced_score(MODEL, X, LEVEL, X, probes=0),
    "steps must be at least 2": lambda: losses.discrete_elbo(MODEL, X, LEVEL, X, steps=1),
    "log_snr must be drawn from levels, but 0 has the density 0": lambda: losses.continuous_elbo(
        MODEL, X, LEVEL, X, levels=losses.levels.LogUniform(sigma_max=0.5)
    ),
    "gamma must return one number per time": lambda: losses.interpolant(
        MODEL, X, LEVEL, X, gamma=lambda t: 1.0
    ),
    "gamma must be finite and not negative": lambda: losses.interpolant(
        MODEL, X, LEVEL, X, gamma=lambda t: -t
    ),
    "target must be 'velocity' or 'noise'": lambda: losses.interpolant(
        MODEL, X, LEVEL, X, target="data"
    ),
    "features must be at least 1": lambda: losses.Uncertainty(features=0),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_is_wrong_gets_a_sentence(sentence: str) -> None:
    call: Any = REFUSED[sentence]
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)):
        call()


def test_a_masked_model_is_refused() -> None:
    masked = ss.Masked(MODEL, torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="takes no masked model"):
        losses.denoising(masked, X, LEVEL, X)
