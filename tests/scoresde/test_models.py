import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.models.network import PREDICTIONS

from .cases import MEANS, PROCESSES, gaussian, mixture, quantile

each = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
DATA_STD = 0.7


def network_of(oracle: ss.Oracle, predicts: str):
    r"""The network that predicts exactly, written out from the definitions."""

    process = oracle.process

    def network(x: Tensor, t: Tensor) -> Tensor:
        if predicts == "edm":  # D = skip X + out F(scale X, log(level) / 4) for X = x / alpha
            level = torch.exp(4 * t)
            t = process.time(-level.log())
            alpha, _ = (s[:, None] for s in process.scales(t))
            level = level[:, None]
            X = x * (level**2 + DATA_STD**2).sqrt()
            skip = DATA_STD**2 / (level**2 + DATA_STD**2)
            out = level * DATA_STD / (level**2 + DATA_STD**2).sqrt()
            return (oracle.denoise(alpha * X, t) - skip * X) / out
        alpha, sigma = (s[:, None] for s in process.scales(t))
        D = oracle.denoise(x, t)
        z = (x - alpha * D) / sigma
        h = 1e-6 * t.clamp(max=process.t_max - 1e-3)
        (a0, s0), (a1, s1) = ([s[:, None] for s in process.scales(u)] for u in (t - h, t + h))
        rates = (a1 - a0) / (2 * h[:, None]), (s1 - s0) / (2 * h[:, None])
        return {
            "data": D,
            "noise": z,
            "score": -z / sigma,
            "v": alpha * z - sigma * D,
            "velocity": rates[0] * D + rates[1] * z,
        }[predicts]

    return network


@each
@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_predictions_convert_into_one_another(process: ss.Process, predicts: str) -> None:
    oracle = mixture(process)
    model = ss.NetworkScore(network_of(oracle, predicts), process, predicts, data_std=DATA_STD)
    t = torch.linspace(process.t_min, process.t_max, 12)[1:-1]
    x = process.perturb(oracle.data(10), t, torch.randn(10, 2))
    loose = (
        {"rtol": 1e-5, "atol": 1e-7} if predicts == "velocity" else {"rtol": 1e-9, "atol": 1e-9}
    )
    alpha, sigma = (s[:, None] for s in process.scales(t))
    z = (x - alpha * oracle.denoise(x, t)) / sigma
    assert torch.allclose(model.denoise(x, t), oracle.denoise(x, t), **loose)
    assert torch.allclose(model.noise(x, t), z, **loose)
    assert torch.allclose(model.score(x, t), -z / sigma, **loose)
    assert torch.allclose(model.velocity(x, t), oracle.velocity(x, t), **loose)
    assert torch.allclose(model.score(x[:3], t[0]), oracle.score(x[:3], t[0]), **loose)


@each
@pytest.mark.parametrize("make", [gaussian, mixture, quantile], ids=lambda f: f.__name__)
def test_oracle_scores_are_gradients_of_their_densities(process: ss.Process, make) -> None:
    oracle = make(process)
    t = torch.linspace(process.t_min, process.t_max, 9)[1:-1]
    x = process.perturb(oracle.data(7), t, torch.randn_like(oracle.data(7))).requires_grad_()
    (gradient,) = torch.autograd.grad(oracle.log_prob(x, t).sum(), x)
    assert torch.allclose(oracle.score(x, t), gradient, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("width", [0.1, 0.5])
def test_kernel_oracle_is_the_mixture_of_its_data(width: float) -> None:
    data = torch.randn(20, 2, 3)
    kernel = ss.KernelOracle(data, width, labels=torch.arange(20) % 4)
    parts = ss.MixtureOracle(data, width)
    t = torch.tensor([0.01, 0.3, 2.0, 70.0])
    x = data[:4] + t.reshape(-1, 1, 1) * torch.randn(4, 2, 3)
    assert torch.allclose(kernel.denoise(x, t), parts.denoise(x, t), atol=1e-10)
    assert torch.allclose(kernel.log_prob(x, t), parts.log_prob(x, t))
    some = ss.KernelOracle(data[1::4], width)
    assert torch.allclose(kernel.denoise(x, t, label=torch.ones(4).long()), some.denoise(x, t))
    score = torch.autograd.grad(kernel.log_prob(y := x.requires_grad_(), t).sum(), y)[0]
    assert torch.allclose(kernel.score(x, t), score)


def test_oracle_densities_integrate_to_one() -> None:
    oracle = ss.QuantileOracle(
        torch.tensor([[-1.0, 0.7]]), torch.tensor([[0.2, 0.5]]), process=ss.VP()
    )
    x = torch.linspace(-9, 9, 20_001)[:, None]
    for t in (1e-3, 0.3, 1.0):
        density = oracle.log_prob(x, torch.tensor(t)).exp()
        assert torch.trapezoid(density, x[:, 0]).item() == pytest.approx(1.0, abs=1e-6)


@each
def test_quantile_flow_is_the_flow_of_its_velocity(process: ss.Process) -> None:
    oracle = quantile(process)
    times = torch.linspace(process.at_noise_level(2.0), process.at_noise_level(0.5), 5).tolist()
    x = process.perturb(oracle.data(4), torch.tensor(times[0]), torch.randn(4, 3))
    for t in times[1:-1]:
        h = 1e-5 * t
        there, back = oracle.flow(x, times[0], t + h), oracle.flow(x, times[0], t - h)
        y = oracle.flow(x, times[0], t)
        assert torch.allclose(
            (there - back) / (2 * h), oracle.velocity(y, torch.tensor(t)), atol=1e-5
        )


@pytest.mark.parametrize("make", [gaussian, mixture, quantile], ids=lambda f: f.__name__)
def test_oracles_draw_from_their_density(make) -> None:
    oracle = make(ss.EDM())
    x = oracle.data(4000)
    # E|x - D(x_t)|^2 = sigma^2 E tr dD/dx holds only for data of the model's own distribution
    t = torch.tensor(0.5)
    noisy = oracle.process.perturb(x, t, torch.randn_like(x))
    error = (oracle.denoise(noisy, t) - x).square().sum(1).mean()
    trace = sum(
        torch.func.jvp(lambda y: oracle.denoise(y, t), (noisy,), (e.expand_as(noisy),))[1] @ e
        for e in torch.eye(x.shape[1])
    ).mean()
    assert error.item() == pytest.approx((t**2 * trace).item(), rel=0.05)


def test_nothing_cancels_at_small_noise_in_float32() -> None:
    process = ss.VP()
    noise = torch.randn(4, 3, dtype=torch.float32)
    model = ss.NetworkScore(lambda x, t: noise, process, "noise")
    t = torch.tensor(process.t_min)
    assert torch.allclose(model.noise(torch.randn(4, 3, dtype=torch.float32), t), noise, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_network_computes_in_its_own_dtype(dtype: torch.dtype) -> None:
    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1, dtype=dtype))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            assert x.dtype is dtype
            assert t.dtype is dtype
            assert t.shape == x.shape[:1]
            assert ss.VP().t_min <= t.double().min()
            assert t.double().max() <= ss.VP().t_max
            return self.scale * x

    s = ss.sample(ss.NetworkScore(Network(), ss.VP(), "noise"), (3, 2), steps=4)
    assert s.x.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
    assert s.x.isfinite().all()


@pytest.mark.parametrize("process", [ss.VP(), ss.EDM(), ss.Interpolant()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounded_times_stay_inside_the_domain(process: ss.Process, dtype: torch.dtype) -> None:
    seen: list[float] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.extend(t.double().tolist())
        return torch.zeros_like(x)

    model = ss.NetworkScore(network, process, "data")
    x = torch.ones(2, 3, dtype=dtype)
    for solver in ("ddim", "rk4", "dopri5", "torchdiffeq/dopri5", "torchsde/srk"):
        ss.sample(model, (2, 3), solver=solver, dtype=dtype, t_min=process.t_min)
    ss.encode(model, x, t_min=process.t_min)
    assert process.t_min <= min(seen)
    assert max(seen) <= process.t_max


def test_conditions_reach_the_network_and_follow_their_rows() -> None:
    seen = []

    def network(x: Tensor, t: Tensor, label: Tensor, size: Tensor) -> Tensor:
        seen.append((label.tolist(), size.tolist()))
        return x * 0

    model = ss.NetworkScore(network, ss.EDM(), "data", conditions=("label", "size"), shape=(2,))
    ss.sample(model, 4, steps=1, batch_size=3, label=torch.tensor([3, 1, 4, 1]), size=0.5)
    assert seen[0] == ([3, 1, 4], [0.5] * 3)
    assert seen[1] == ([1], [0.5])


def test_given_binds_and_subsets() -> None:
    model = mixture(ss.EDM())
    x, t = torch.randn(3, 2), torch.tensor([0.1, 0.5, 2.0])
    label = torch.tensor([0, 2, 1])
    bound = model.given(label=label)
    assert bound.conditions == ()
    index = torch.tensor([2, 0])
    want = model.denoise(x, t, label=label)
    assert torch.equal(bound.denoise(x, t), want)
    assert torch.allclose(bound.rows(index).denoise(x[index], t[index]), want[index])
    assert torch.allclose(bound.score(x, t), model.score(x, t, label=label))


def test_classifier_free_guidance_is_its_formula() -> None:
    model, t = mixture(ss.VP()), torch.tensor([0.2, 0.4, 0.9])
    x, label = torch.randn(3, 2), torch.tensor([0, 1, 2])
    free, bound = model.denoise(x, t), model.denoise(x, t, label=label)
    for scale in (-1.0, 0.0, 1.0, 3.0):
        guided = ss.classifier_free(model, scale, label=label)
        want = free + scale * (bound - free)
        assert torch.allclose(guided.denoise(x, t), want)
        alpha, sigma = (s[:, None] for s in model.process.scales(t))
        assert torch.allclose(guided.score(x, t), (alpha * want - x) / sigma**2)
    assert ss.sample(guided, 3, solver="ddim", steps=5).calls.tolist() == [12] * 3
    assert (
        ss.sample(ss.classifier_free(model, 1.0, label=label), 3, solver="ddim", steps=5).calls[0]
        == 6
    )
    alone = ss.sample(guided.rows(torch.tensor([1])), 1, first_index=1, steps=5)
    assert torch.allclose(alone.x, ss.sample(guided, 3, steps=5).x[1:2])


def test_guidance_per_sample_by_noise_level_and_within_an_interval() -> None:
    model, t = mixture(ss.VP()), torch.tensor([0.2, 0.4, 0.9])
    x, label = torch.randn(3, 2), torch.tensor([0, 1, 2])
    free, gap = model.denoise(x, t), model.denoise(x, t, label=label) - model.denoise(x, t)
    level = torch.exp(-model.process.log_snr(t))[:, None]
    scales = torch.tensor([-1.0, 2.0, 4.0])
    own = ss.classifier_free(model, scales, label=label)
    assert torch.allclose(own.denoise(x, t), free + scales[:, None] * gap)
    rows = torch.tensor([2, 0])
    assert torch.allclose(own.rows(rows).denoise(x[rows], t[rows]), own.denoise(x, t)[rows])
    falling = ss.classifier_free(model, lambda s: 1 + 1 / s, label=label)
    assert torch.allclose(falling.denoise(x, t), free + (1 + 1 / level) * gap)
    low, high = level.min().item() + 1e-3, level.max().item() - 1e-3
    within = ss.classifier_free(model, 3.0, interval=(low, high), label=label)
    w = torch.tensor([[1.0], [3.0], [1.0]])
    assert torch.allclose(within.denoise(x, t), free + w * gap)
    for solver in ("ddim", "exponential"):  # one time for all rows, or one for each
        options = {"steps": 6} if solver == "ddim" else {"rtol": 1e-3, "atol": 1e-3}
        together = ss.sample(own, 3, solver=solver, **options)
        assert together.ok
        one = ss.sample(own.rows(torch.tensor([1])), 1, solver=solver, first_index=1, **options)
        assert torch.allclose(one.x, together.x[1:2])


def test_guidance_outside_its_interval_costs_one_call() -> None:
    model = mixture(ss.EDM())
    guided = ss.classifier_free(model, 3.0, interval=(0.5, 5.0), label=torch.tensor([1]))
    s = ss.sample(guided, 2, solver="ddim", steps=9)
    inside = int(((s.times >= 0.5) & (s.times <= 5.0)).sum())
    assert 0 < inside < 9
    assert s.calls.tolist() == [10 + inside] * 2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ss.NetworkScore(torch.nn.Identity(), ss.VP()),
            ValueError,
            "predicts is missing; name",
        ),
        (
            lambda: ss.NetworkScore(torch.nn.Identity(), ss.VP(), "eps"),
            ValueError,
            "predicts is 'eps'",
        ),
        (
            lambda: mixture(ss.VP()).score(torch.ones(2, 2), 1.5),
            ValueError,
            r"t must lie in .* is 1.5",
        ),
        (
            lambda: mixture(ss.VP()).score(torch.ones(2, 2), torch.ones(3)),
            ValueError,
            r"\(2,\), but has \(3,\)",
        ),
        (lambda: ss.classifier_free(mixture(ss.VP()), 2.0), ValueError, "needs a condition"),
        (
            lambda: ss.classifier_free(mixture(ss.VP()), 2.0, interval=(3.0, 1.0), label=1),
            ValueError,
            "interval must be two noise levels, the lower first",
        ),
        (
            lambda: ss.classifier_free(mixture(ss.VP()), float("nan"), label=1),
            ValueError,
            "but is nan",
        ),
        (
            lambda: mixture(ss.VP()).given(label=7),
            ValueError,
            r"label must lie in \[0, 2\], but one is 7",
        ),
        (lambda: mixture(ss.VP()).given(label=0.5), TypeError, "label must hold whole numbers"),
        (lambda: mixture(ss.VP()).given(lable=1), TypeError, "did you mean label="),
        (
            lambda: ss.MixtureOracle(MEANS, -torch.eye(2).expand(3, 2, 2)),
            ValueError,
            "must be positive",
        ),
        (
            lambda: ss.KernelOracle(torch.ones(3, 2, dtype=torch.int64), 0.1),
            TypeError,
            "floating-point",
        ),
        (lambda: ss.KernelOracle(torch.ones(3, 2), 0.0), ValueError, "width must be a positive"),
    ],
)
def test_bad_models_get_a_sentence(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("shape", [(3,), (1, 3, 3), (2, 2), (1, 1)])
def test_covariances_of_a_gaussian_are_asked_for_as_it_takes_them(shape: tuple[int, ...]) -> None:
    says = (
        r"covariance must be one standard deviation or a matrix of shape \(3, 3\), but has shape"
    )
    with pytest.raises(ValueError, match=says):
        ss.GaussianOracle(torch.zeros(3), torch.ones(shape))
    std = torch.tensor([0.5, 1.0, 2.0])
    model = ss.GaussianOracle(torch.zeros(3), torch.diag(std.flatten() ** 2))
    x, level = torch.ones(1, 3), torch.ones(1)
    gain = std**2 / (std**2 + 1)
    torch.testing.assert_close(model.denoise(x, level), gain[None] * x)
