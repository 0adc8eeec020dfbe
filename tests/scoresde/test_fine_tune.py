r"""Gradients through the last steps of a run, and fine-tuning by them."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde.models.scale import start_of
from scoresde.runs.run import Run
from scoresde.runs.truncated import truncated
from scoresde.training.finetune import _divergence

STD = 0.5  # of the data


class Mean(nn.Module):
    r"""The denoised data of Gaussian data, whose mean is learned."""

    def __init__(self, mean: tuple[float, float] = (0.0, 0.0)) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.mean + STD**2 / (STD**2 + t[:, None] ** 2) * (x - self.mean)


def gauss(
    mean: tuple[float, float] = (0.0, 0.0), process: ss.Process | None = None
) -> ss.NetworkScore:
    process = process or ss.EDM()
    return ss.NetworkScore(Mean(mean), process, "data", shape=(2,), data_scale=STD)


class Curved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2).double()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(self.layer(torch.cat([x, t[:, None]], 1)))


def run_of(
    model: ss.ScoreModel, solver: str, steps: int, grad: str = "backprop"
) -> tuple[Run, Tensor]:
    settings = ss.Settings(solver=solver, steps=steps, grad=grad)
    x = model.process.prior_sample((3, 2), dtype=torch.float64)
    return Run.between(model, settings, model.process.t_max, start_of(model, "sampling")), x


# ---- gradients through the last steps


def shrink(t: float) -> float:
    return STD**2 / (STD**2 + t**2)


def slope_ddim(times: list[float], last: int) -> float:
    r"""The derivative of a sample with respect to the mean, where earlier values are constants."""

    g, first = 0.0, len(times) - 1 - last
    for i, (s, t) in enumerate(zip(times, times[1:], strict=False)):
        value = shrink(s) * g + 1 - shrink(s) if i >= first else 0.0
        g = t / s * g + (1 - t / s) * value
    return shrink(times[-1]) * g + 1 - shrink(times[-1])


def slope_2m(times: list[float], last: int) -> float:
    g, before, length, first = 0.0, 0.0, math.inf, len(times) - 1 - last
    for i, (s, t) in enumerate(zip(times, times[1:], strict=False)):
        value, h = shrink(s) * g + 1 - shrink(s) if i >= first else 0.0, math.log(s / t)
        g = t / s * g + (1 - t / s) * (value + (value - before) * h / (2 * length))
        before, length = value, h
    return shrink(times[-1]) * g + 1 - shrink(times[-1])


def slope_heun(times: list[float], last: int) -> float:
    g, first = 0.0, len(times) - 1 - last
    for s, t in list(zip(times, times[1:], strict=False))[first:]:
        p, q, h = s / (STD**2 + s**2), t / (STD**2 + t**2), t - s  # dx/dt = p (x - mean)
        g = 1 + (g - 1) * (1 + h / 2 * (p + q * (1 + h * p)))
    return shrink(times[-1]) * g + 1 - shrink(times[-1])


SLOPES = {"ddim": slope_ddim, "dpmpp_2m": slope_2m, "heun": slope_heun}


@pytest.mark.parametrize("grad", ["backprop", "checkpoint"])
@pytest.mark.parametrize("last", [1, 2, 6])
@pytest.mark.parametrize("solver", SLOPES)
def test_gradients_through_the_last_steps_are_the_known_ones(
    solver: str, last: int, grad: str
) -> None:
    model = gauss()
    run, x = run_of(model, solver, 6, grad)
    s = truncated(run, x, last)
    r = torch.tensor([1.0, -2.0], dtype=torch.float64)
    [slope] = torch.autograd.grad((s.x @ r).mean(), model.network.mean)
    want = SLOPES[solver](run.times.tolist(), last)
    assert torch.allclose(slope, want * r, rtol=1e-10)


@pytest.mark.parametrize("solver", ["ddim", "unipc", "dpm_3", "ancestral", "heun"])
def test_truncated_runs_have_the_states_of_whole_ones(solver: str) -> None:
    model = ss.NetworkScore(Curved(), ss.VP(), "data", shape=(2,), data_scale=0.5)
    run, x = run_of(model, solver, 5)
    whole = ss.sample(model, 3, solver=solver, steps=5, grad="backprop")
    weights = list(model.parameters())
    slopes = []
    for last in (1, 4, 5):
        s = truncated(run, x, last)
        assert torch.equal(s.x, whole.x)
        assert torch.equal(s.calls, whole.calls)
        slopes.append(torch.autograd.grad(s.x.square().sum(), weights)[0])
    full = torch.autograd.grad(whole.x.square().sum(), weights)[0]
    assert torch.equal(slopes[2], full)
    assert not torch.allclose(slopes[1], full)
    assert not torch.allclose(slopes[0], slopes[1])


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Parameter(torch.tensor(1e-3, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, estimate: Tensor) -> Tensor:
        return estimate + self.unit


@pytest.mark.parametrize("last", [1, 3])
def test_estimates_of_earlier_steps_are_constants(last: int) -> None:
    inner = ss.NetworkScore(Counts(), ss.EDM(), "data", conditions=["estimate"], shape=(2,))
    run, x = run_of(ss.SelfConditioned(inner), "dpmpp_2m", 5)
    s = truncated(run, x, last)
    assert torch.allclose(s.x / 1e-3, torch.tensor(6.0).double())  # calls
    [slope] = torch.autograd.grad(s.x.mean(), inner.network.unit)
    assert float(slope) == pytest.approx(last + 1)


# ---- fine-tuning


def tilt(x: Tensor) -> Tensor:
    return x[:, 0] - 2 * x[:, 1]


@pytest.mark.parametrize(("last", "steps"), [(None, 6), (1, 6)])
def test_tuning_ends_where_reward_and_divergence_balance(last: int | None, steps: int) -> None:
    r"""The divergence between means m and 0 is :math:`|m|^2 K / 2`, and the reward is G r m."""

    beta, model = 2.0, gauss()
    tuned = ss.fine_tune(
        model, tilt, updates=120, batch_size=32, solver="ddim", steps=steps, last=last,
        anchor=beta, lr=0.02, average=0.9,
    )  # fmt: skip
    times = ss.sample(model, 1, solver="ddim", steps=steps).times.tolist()
    G = slope_ddim(times, last or steps)
    K = 1 / (STD**2 + times[-1] ** 2) - 1 / (STD**2 + times[0] ** 2)
    mean, r = tuned.model.network.mean.detach(), torch.tensor([1.0, -2.0], dtype=torch.float64)
    assert torch.allclose(mean, G / (beta * K) * r, rtol=0.04)
    divergence = float(mean.square().sum() * K / 2)
    assert tuned.history[-1].kl == pytest.approx(divergence, rel=0.05)
    if last is None:  # all steps: nearly the tilted law, whose mean is s^2 r / beta
        assert torch.allclose(mean, STD**2 / beta * r, rtol=0.04)
    assert not model.network.mean.any()  # which was copied


def test_samples_of_a_tuned_model_have_the_higher_reward() -> None:
    model = gauss()
    tuned = ss.fine_tune(model, tilt, updates=40, solver="ddim", steps=4, last=1, lr=0.1)
    found, before = (
        tilt(ss.sample(m, 200, solver="ddim", steps=4).x).mean() for m in (tuned.model, model)
    )
    gain = float(tilt(tuned.model.network.mean[None].detach()))
    assert gain > 0.5
    assert found - before == pytest.approx(gain, rel=0.05)


class Variance(nn.Module):
    r"""The denoised data of Gaussian data with mean 0, whose variance is learned."""

    def __init__(self, variance: float = 1.0) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(variance), dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.log.exp() / (self.log.exp() + t[:, None] ** 2) * x


def wide(variance: float = 1.0) -> ss.NetworkScore:
    return ss.NetworkScore(Variance(variance), ss.EDM(), "data", shape=(2,), data_scale=1.0)


@pytest.mark.parametrize("variance", [0.5, 2.0])
def test_the_gradient_of_the_divergence_flows_through_samples(variance: float) -> None:
    r"""KL of N(0, v) from N(0, 1) is (v - 1 - log v) / 2 in each dimension, here of two, by log v (v - 1) / 2."""

    model, before, count = wide(variance), wide(), 40_000
    z = torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (model.network.log / 2).exp() * z
    found = _divergence(model, before, x, 0, torch.arange(count)).mean()
    [slope] = torch.autograd.grad(found, model.network.log)
    assert float(found.detach()) == pytest.approx(variance - 1 - math.log(variance), rel=0.04)
    assert float(slope) == pytest.approx(variance - 1, rel=0.04)


def test_tuning_ends_at_the_tilted_law() -> None:
    r"""Of N(0, 1) and the reward - x^2 / 2 it is N(0, 1 / (1 + 1 / beta))."""

    model = wide()
    tuned = ss.fine_tune(
        model, lambda x: -x.square().sum(1) / 2, updates=100, solver="dpmpp_2m", steps=20,
        anchor=1.0, lr=0.1, average=0.9,
    )  # fmt: skip
    assert float(tuned.model.network.log.detach().exp()) == pytest.approx(0.5, rel=0.04)
    assert model.network.log.grad is None


def test_each_update_has_samples_of_its_own() -> None:
    seen = []

    def keeps(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return tilt(x)

    options = {"solver": "ddim", "steps": 3}
    ss.fine_tune(gauss(), keeps, updates=2, batch_size=8, lr=1e-12, **options)
    assert torch.allclose(
        torch.cat(seen), ss.sample(gauss(), 16, **options, dtype=torch.float64).x
    )


def test_a_loaded_model_is_tuned_as_any_other() -> None:
    model, options = gauss(), {"updates": 3, "solver": "ddim", "steps": 3, "lr": 0.1}
    wanted = ss.fine_tune(model, tilt, **options).model.network.mean
    constant = gauss().requires_grad_(False)
    assert torch.equal(ss.fine_tune(constant, tilt, **options).model.network.mean, wanted)
    assert wanted.any()
    assert not constant.network.mean.requires_grad


DATA = torch.tensor([[0.9, -0.3], [0.1, 0.5], [0.5, 0.1]], dtype=torch.float64)


def test_the_likelihood_of_data_rises_from_what_it_is() -> None:
    options = {"updates": 1, "solver": "exponential_3", "steps": 6, "average": 0.0}
    tuned = ss.fine_tune(gauss(), data=DATA, lr=1.0, **options)
    nats = -DATA.square().sum(1) / (2 * STD**2) - math.log(2 * math.pi * STD**2)
    assert tuned.history[0].reward == pytest.approx(float(nats.mean()), abs=0.01)
    assert bool((tuned.model.network.mean > 0).all())  # towards the mean of the data


def test_each_update_takes_some_of_much_data() -> None:
    data = torch.arange(8.0).double()[:, None].expand(8, 2) / 8
    options = {"solver": "exponential_2", "steps": 2}
    tuned = ss.fine_tune(gauss(), data=data, updates=4, lr=1e-12, batch_size=2, **options)
    nats = ss.log_likelihood(gauss(), data, **options).nats
    means = {round(float(pair.mean()), 6) for pair in torch.combinations(nats, 2, True)}
    found = [round(update.reward, 6) for update in tuned.history]
    assert set(found) <= means
    assert len(set(found)) > 1


@pytest.mark.slow
def test_the_likelihood_of_data_is_highest_at_its_mean() -> None:
    options = {"updates": 150, "solver": "exponential_3", "steps": 6, "lr": 0.05, "average": 0.9}
    tuned = ss.fine_tune(gauss(), data=DATA, **options)
    assert torch.allclose(tuned.model.network.mean, DATA.mean(0), atol=0.02)


def test_resumed_tuning_is_that_in_one_piece(tmp_path: Path) -> None:
    options = {"solver": "ddim", "steps": 3, "anchor": 1.0, "lr": 0.05, "batch_size": 8}
    whole = ss.fine_tune(gauss(), tilt, updates=6, **options)
    file, asked = tmp_path / "state.safetensors", []

    def stops(x: Tensor) -> Tensor:
        asked.append(1)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return tilt(x)

    with pytest.raises(KeyboardInterrupt):
        ss.fine_tune(gauss(), stops, updates=6, checkpoint=file, every=1, **options)
    rest = ss.fine_tune(gauss(), tilt, updates=6, checkpoint=file, every=1, **options)
    assert torch.equal(rest.model.network.mean, whole.model.network.mean)
    assert len(rest.history) == 3
    assert rest.history == whole.history[3:]
    done = ss.fine_tune(gauss(), tilt, updates=6, checkpoint=file, every=1, **options)
    assert torch.equal(done.model.network.mean, whole.model.network.mean)  # the average, again
    assert done.history == []


def test_rewards_and_data_are_in_the_units_of_the_user() -> None:
    model = gauss()
    model.transform = ss.Standardized(torch.tensor([10.0, 10.0]), 2.0)
    seen = []

    def keeps(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return tilt(x)

    ss.fine_tune(model, keeps, updates=1, solver="ddim", steps=3)
    assert torch.allclose(seen[0], ss.sample(model, 64, solver="ddim", steps=3).x)
    data, options = 10 + 2 * DATA, {"solver": "exponential_3", "steps": 6}
    tuned = ss.fine_tune(model, data=data, updates=1, **options)
    want = ss.log_likelihood(model, data, **options).nats.mean()
    assert tuned.history[0].reward == pytest.approx(float(want), rel=1e-6)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "pass either reward=, a function of samples, or data="),
        ({"reward": tilt, "data": torch.zeros(1, 2)}, "pass either reward="),
        ({"data": torch.zeros(1, 2), "last": 1}, "last= has no effect with data="),
        ({"reward": tilt, "last": 4, "steps": 3}, "last must be"),
        ({"reward": tilt, "solver": "exponential"}, "steps= has no effect on exponential"),
        ({"reward": lambda x: x.sum()}, r"reward must return one number per sample, with shape \(64,\)"),
        ({"reward": lambda x: x[:, 0].detach()}, "reward must be differentiable"),
        ({"reward": lambda x: x[:, 0] / 0}, "reward must be finite, but is NaN or infinite"),
        ({"reward": tilt, "anchor": -1.0}, "anchor"),
        ({"reward": tilt, "updates": 0}, "updates must be"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(given: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ss.fine_tune(gauss(), **{"updates": 1, "steps": 3, **given})


def test_models_without_weights_of_their_own_are_refused() -> None:
    network = Mean()
    inside = ss.NetworkScore(lambda x, t: network(x, t), ss.EDM(), "data", shape=(2,))
    with pytest.raises(ValueError, match="weights of this model are inside a function"):
        ss.fine_tune(inside, tilt)
    with pytest.raises(ValueError, match="the model has no weights to tune"):
        ss.fine_tune(ss.GaussianOracle(torch.zeros(2), 0.5), tilt)
