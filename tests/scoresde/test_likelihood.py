import math
from typing import Any

import pytest
import torch

import scoresde as ss
from scoresde.likelihood.flow import MISMATCH

from .cases import MEANS, PROCESSES, quantile

each = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
TIGHT = {"rtol": 1e-7, "atol": 1e-7}


def centred_mixture(process: ss.Process, shape: tuple[int, ...] = (2,)) -> ss.MixtureOracle:
    d = math.prod(shape)
    means = torch.randn(4, d, generator=torch.Generator().manual_seed(0))
    means = means - means.mean(0)
    return ss.MixtureOracle(means.reshape(4, *shape), 0.6, process=process)


@each
@pytest.mark.parametrize("shape", [(2,), (1, 3, 3)], ids=str)
def test_mixture_likelihood_is_exact(process: ss.Process, shape: tuple[int, ...]) -> None:
    oracle = centred_mixture(process, shape)
    x = oracle.data(4)
    found = ss.log_likelihood(oracle, x, nodes=96, **TIGHT)
    want = oracle.log_density(x, found.t_min)
    # of the size alpha / sigma at t_max is what the prior leaves out
    gap = 3 * math.exp(float(process.log_snr(torch.tensor(process.t_max))))
    assert ((found.nats - want).abs() / math.prod(shape)).max() < 1e-3 + gap
    assert found.stderr.tolist() == [0.0] * 4
    assert found.derivatives.tolist() == [96 * math.prod(shape)] * 4


@pytest.mark.parametrize("process", ["VP", "SubVP", "VE", "EDM", "Interpolant"])
def test_gaussian_likelihood_is_exact_to_a_thousandth(process: str) -> None:
    oracle = ss.GaussianOracle(
        torch.zeros(3), torch.diag(torch.tensor([0.1, 0.5, 1.0])), PROCESSES[process]
    )
    x = oracle.data(5)
    found = ss.log_likelihood(oracle, x, **TIGHT)
    assert ((found.nats - oracle.log_density(x, found.t_min)).abs() / 3).max() < 1e-3


def test_density_integrates_to_one() -> None:
    oracle = ss.QuantileOracle(
        torch.tensor([[-0.8, 0.8]]), torch.tensor([[0.4, 0.3]]), process=ss.VP()
    )
    x = torch.linspace(-4, 4, 201)[:, None]
    found = ss.log_likelihood(oracle, x, nodes=96)
    assert torch.trapezoid(found.nats.exp(), x[:, 0]).item() == pytest.approx(1.0, abs=2e-3)


SLANTED = centred_mixture(ss.VP(), (6,))  # whose Jacobians are not diagonal in its axes


@pytest.mark.parametrize(
    "options",
    [{"probes": 1}, {"probes": 4}, {"divergence": "hutch++"}],
    ids=["one", "four", "hutch++"],
)
def test_probes_are_unbiased_and_their_error_is_told(options: dict[str, Any]) -> None:
    x = SLANTED.data(1).expand(400, 6).contiguous()
    exact = ss.log_likelihood(SLANTED, x[:1], rtol=1e-6, nodes=200).nats
    found = ss.log_likelihood(SLANTED, x, rtol=1e-4, **options)
    error = found.nats - exact
    assert abs(error.mean()) < 4 * error.std() / 20 + 2e-3
    rms = found.stderr.square().mean().sqrt()
    assert 0.9 < (rms / error.std()).item() < 1.25  # widened for few probes
    assert 0.9 < (error.abs() < 2 * found.stderr).double().mean() < 0.999


def test_four_probes_are_half_as_noisy_as_one() -> None:
    x = SLANTED.data(40, seed=1)
    few, many = (ss.log_likelihood(SLANTED, x, probes=k).stderr.mean() for k in (1, 4))
    assert (few / many).item() == pytest.approx(2.0, rel=0.15)


def test_a_fixed_probe_is_noisier_and_has_no_error() -> None:
    x = SLANTED.data(100, seed=2)
    truth = SLANTED.log_density(x, SLANTED.process.start_of("likelihood"))
    fixed, fresh = (
        ss.log_likelihood(SLANTED, x, divergence=kind) for kind in ("fixed", "hutchinson")
    )
    assert fixed.stderr.isnan().all()
    assert (fixed.nats - truth).std() > 3 * (fresh.nats - truth).std()


def test_a_target_is_met_row_by_row() -> None:
    x = SLANTED.data(12, seed=3)
    first = ss.log_likelihood(SLANTED, x, divergence="hutchinson")
    target = first.stderr.median().item()
    found = ss.log_likelihood(SLANTED, x, target_stderr=target, batch_size=5)
    assert (found.stderr < 1.3 * target).all()
    enough = first.stderr < target
    assert torch.allclose(found.nats[enough], first.nats[enough], atol=1e-10)
    assert torch.equal(found.derivatives[enough], first.derivatives[enough])
    assert (found.derivatives[first.stderr > target] > first.derivatives[0]).all()


@pytest.mark.parametrize("tolerance", [0.1, 0.02])
def test_the_defect_of_a_coarse_path_is_taken_out(tolerance: float) -> None:
    x = SLANTED.data(20, seed=4)
    truth = SLANTED.log_density(x, SLANTED.process.start_of("likelihood"))
    found = ss.log_likelihood(SLANTED, x, rtol=tolerance, atol=tolerance, nodes=128)
    left, taken = (found.nats - truth).abs(), found.budget["path"] / MISMATCH
    assert taken.mean() > 0.01
    assert left.mean() < 0.1 * taken.mean()


@each
def test_the_error_lies_within_its_budget(process: ss.Process) -> None:
    oracle = centred_mixture(process, (6,))
    x = oracle.data(200, seed=5)
    for options in ({"probes": 1}, {}):
        found = ss.log_likelihood(oracle, x, **options)
        error = (found.nats - oracle.log_density(x, found.t_min)).abs()
        assert (error <= found.total).double().mean() > 0.9
        assert found.total.mean() < 1.0
        assert set(found.budget) == {"probes", "quadrature", "path", "end", "prior"}


def test_parts_of_the_budget_are_of_the_size_of_their_errors() -> None:
    x = SLANTED.data(50, seed=6)
    start = SLANTED.process.start_of("likelihood")
    coarse = ss.log_likelihood(SLANTED, x, nodes=12, rtol=1e-6, atol=1e-6)
    error = (coarse.nats - SLANTED.log_density(x, start)).abs()
    assert error.mean() < coarse.budget["quadrature"].mean() < 50 * error.mean() + 0.1
    t = SLANTED.process.at_noise_level(0.1)
    blurred = ss.log_likelihood(SLANTED, x, t_min=t, nodes=128)
    change = (blurred.nats - SLANTED.log_density(x, start)).abs()
    assert blurred.budget["end"].mean().item() == pytest.approx(change.mean().item(), rel=0.2)
    assert blurred.dominant == "end"
    assert "lower t_min=" in blurred.advice


@pytest.mark.parametrize("rank", [None, 2])
def test_axes_of_the_data_make_probes_exact_for_gaussians(rank: int | None) -> None:
    mix = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.tensor([1.0, 0.5, 0.2, 0.2, 0.2], dtype=torch.float64)
    axes = torch.linalg.qr(mix)[0]
    covariance = axes @ torch.diag(values) @ axes.T
    oracle = ss.GaussianOracle(torch.zeros(5).double(), covariance, ss.VP())
    x = oracle.data(4)
    if rank is not None:
        oracle.moments = ss.Moments(torch.zeros(5).double(), axes[:, :rank], values[:rank], 0.2)
    found = ss.log_likelihood(oracle, x, probes=1, **TIGHT)
    assert found.stderr.max() < 1e-6
    assert (found.nats - oracle.log_density(x, found.t_min)).abs().max() < 5e-3


def test_gradients_of_the_density_are_those_of_the_oracle() -> None:
    x = SLANTED.data(3, seed=7)
    start = SLANTED.process.start_of("likelihood")
    leaf = x.clone().requires_grad_()
    found = ss.log_likelihood(SLANTED, leaf, solver="rk4", steps=150, nodes=100, grad="backprop")
    (gradient,) = torch.autograd.grad(found.nats.sum(), leaf)
    known = x.clone().requires_grad_()
    (want,) = torch.autograd.grad(SLANTED.log_density(known, start).sum(), known)
    assert torch.allclose(gradient, want, rtol=0.02, atol=0.02)


def test_gradients_reach_weights_and_conditions() -> None:
    scale = torch.tensor(0.3, requires_grad=True)

    def network(x: torch.Tensor, t: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        return scale * size[:, None] * x

    model = ss.NetworkScore(network, ss.VP(), "noise", conditions=("size",))
    x, size = torch.randn(2, 3).double(), torch.ones(2, requires_grad=True, dtype=torch.float64)

    def nats(size: torch.Tensor) -> torch.Tensor:
        return ss.log_likelihood(
            model, x, size=size, solver="heun", steps=40, grad="backprop"
        ).nats.sum()

    by_scale, by_size = torch.autograd.grad(nats(size), (scale, size))
    with torch.no_grad():
        step = (nats(size + 1e-4) - nats(size - 1e-4)) / 2e-4
    assert by_size.sum().item() == pytest.approx(step.item(), rel=1e-3)
    assert by_scale.item() == pytest.approx(step.item() / 0.3, rel=1e-3)


def test_row_does_not_depend_on_its_batch() -> None:
    oracle = quantile(ss.EDM())
    x = oracle.data(5)
    for options in ({}, {"probes": 3}):
        together = ss.log_likelihood(oracle, x, seed=2, **options)
        split = ss.log_likelihood(oracle, x, seed=2, batch_size=2, **options)
        alone = ss.log_likelihood(oracle, x[3:4], seed=2, first_index=3, **options)
        assert torch.allclose(together.nats, split.nats, atol=1e-10)
        assert torch.allclose(together.nats[3], alone.nats[0], atol=1e-10)
        assert together.calls[3] == alone.calls[0]


@pytest.mark.parametrize(
    "solver", ["rk4", "exponential_3", "bosh3", "torchdiffeq/dopri5", "torchdiffeq/rk4"]
)
def test_any_ode_solver_serves(solver: str) -> None:
    oracle = quantile(ss.VP())
    x = oracle.data(3)
    options = {"rtol": 1e-6} if "dopri5" in solver or solver == "bosh3" else {"steps": 120}
    found = ss.log_likelihood(oracle, x, solver=solver, **options)
    assert (found.nats - oracle.log_density(x, found.t_min)).abs().max() < 0.03


def test_networks_without_forward_mode_are_differentiated_in_reverse() -> None:
    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 0.3 * x

        @staticmethod
        def backward(ctx, g):
            return 0.3 * g

    model = ss.NetworkScore(lambda x, t: Backward.apply(x), ss.VP(), "noise")
    plain = ss.NetworkScore(lambda x, t: 0.3 * x, ss.VP(), "noise")
    x = torch.randn(3, 2)
    assert torch.allclose(ss.log_likelihood(model, x).nats, ss.log_likelihood(plain, x).nats)


def test_exact_divergence_is_the_trace_of_the_jacobian() -> None:
    from solvers.divergence import trace

    x = torch.randn(3, 2, 2)
    mix = torch.randn(4, 4)

    def field(x):
        return torch.sin(x.flatten(1) @ mix).reshape(x.shape)

    for chunk in (None, 1, 3):
        dx, traces = trace(field, x, chunk)
        assert torch.equal(dx, field(x))
        for row, found in zip(x, traces, strict=True):
            jacobian = torch.autograd.functional.jacobian(lambda r: field(r[None])[0], row)
            assert torch.allclose(jacobian.reshape(4, 4).trace().double(), found)


def test_conditional_likelihood_is_that_of_the_component() -> None:
    oracle = ss.MixtureOracle(MEANS, 0.3, process=ss.EDM())
    label = torch.tensor([0, 1, 2])
    found = ss.log_likelihood(oracle, MEANS, label=label)
    level = found.noise_level
    want = -math.log(2 * math.pi * (0.09 + level**2))
    assert torch.allclose(found.nats, torch.full((3,), want), atol=2e-3)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (0.0, 16.0)])
def test_uniform_levels_cost_their_logarithm(low: float, high: float) -> None:
    levels = 17
    width = (high - low) / (levels - 1)
    nats = torch.full((2,), -5 * math.log(levels * width))  # the uniform density over all bins
    flat = ss.Likelihood(nats, nats * 0, nats[:, None], nats, nats, 5, 0.0, 0.0)
    bits = ss.bits_per_dim(flat, levels=levels, low=low, high=high)
    assert torch.allclose(bits, torch.full((2,), math.log2(levels)))


def test_dequantised_data_fills_its_bins() -> None:
    x = (torch.randint(0, 17, (500, 8)) / 8 - 1).float()
    y = ss.dequantize(x, levels=17, seed=1)
    assert y.dtype is torch.float32
    assert (y - x).abs().max() < 1 / 16
    assert ((y - x) * 8).std().item() == pytest.approx(math.sqrt(1 / 12), rel=0.03)
    assert torch.equal(ss.dequantize(x[7:9], levels=17, seed=1, first_index=7), y[7:9])
    with pytest.raises(ValueError, match="must lie on 17 levels from -1 to 1"):
        ss.dequantize(x + 0.05, levels=17)


def test_batches_that_do_not_fit_into_memory_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    from scoresde.likelihood.flow import Flow

    whole, sizes = Flow.density, []

    def small(self: Flow, target: float | None) -> ss.Likelihood:
        sizes.append(len(self.x))
        if len(self.x) > 2:
            raise torch.OutOfMemoryError
        return whole(self, target)

    x = SLANTED.data(7, seed=8)
    want = ss.log_likelihood(SLANTED, x, probes=1, seed=4, first_index=3)
    monkeypatch.setattr(Flow, "density", small)
    found = ss.log_likelihood(SLANTED, x, probes=1, seed=4, first_index=3)
    assert sizes == [7, 4, 2, 2, 3, 2, 1]
    assert torch.allclose(found.nats, want.nats, atol=1e-10)
    monkeypatch.setattr(Flow, "density", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError))
    with pytest.raises(torch.OutOfMemoryError):
        ss.log_likelihood(SLANTED, x)


def test_data_on_levels_without_noise_is_told() -> None:
    points = torch.eye(3).double()
    oracle = ss.KernelOracle(points, 1e-4, ss.VP())
    with pytest.warns(UserWarning, match="data on levels needs ss.dequantize"):
        ss.log_likelihood(oracle, points)


def test_densities_of_guided_flows_say_so() -> None:
    oracle = ss.MixtureOracle(MEANS, 0.3, process=ss.EDM())
    guided = ss.classifier_free(oracle, 2.0, label=torch.tensor(1))
    found = ss.log_likelihood(guided, MEANS, probes=1)
    assert found.provenance["guided"]
    assert "of the guided flow" in repr(found)
    plain = ss.log_likelihood(oracle, MEANS, probes=1, label=torch.tensor(1))
    assert not plain.provenance["guided"]


ORACLE, X = quantile(ss.VP()), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ss.log_likelihood(ORACLE, X, divergence="x"),
            ValueError,
            "one of auto, exact, hutchinson, fixed, hutch",
        ),
        (
            lambda: ss.log_likelihood(ORACLE, X, divergence="exact", probes=3),
            ValueError,
            "probes= has no effect",
        ),
        (lambda: ss.log_likelihood(ORACLE, X, probes=0), ValueError, "at least 1, but is 0"),
        (
            lambda: ss.log_likelihood(ORACLE, X, solver="em"),
            ValueError,
            "stochastic; use a solver without",
        ),
        (lambda: ss.log_likelihood(ORACLE, X, t_min=7.0), ValueError, "t_min must lie in"),
        (lambda: ss.log_likelihood(ORACLE, X.long()), TypeError, "ss.dequantize"),
        (
            lambda: ss.log_likelihood(ORACLE, X, target_stderr=-1.0),
            ValueError,
            "target_stderr must be positive",
        ),
        (
            lambda: ss.log_likelihood(ORACLE, X, divergence="fixed", target_stderr=1.0),
            ValueError,
            "a fixed probe has no standard error",
        ),
        (
            lambda: ss.log_likelihood(ORACLE, X, solver="rk4", times=torch.linspace(0.1, 1, 9)),
            ValueError,
            "times must go from t_min=",
        ),
        (lambda: ss.log_likelihood(ORACLE, X, path=True), ValueError, "path= has no effect"),
        (lambda: ss.log_likelihood(ORACLE, X, nodes=2), ValueError, "nodes must be"),
        (
            lambda: ss.log_likelihood(ORACLE, torch.zeros(1, 5000), divergence="exact"),
            ValueError,
            "takes 320000 Jacobian products",
        ),
        (
            lambda: ss.bits_per_dim(ss.log_likelihood(ORACLE, X), levels=1),
            ValueError,
            "at least 2, but is 1",
        ),
        (
            lambda: ss.bits_per_dim(ss.log_likelihood(ORACLE, X), levels=17, low=1.0),
            ValueError,
            "low and high must be finite, the lower first",
        ),
    ],
)
def test_bad_input_gets_a_sentence(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()


def test_integers_are_dequantised_as_numbers() -> None:
    levels = torch.randint(0, 17, (200, 3))
    noise = ss.dequantize(levels, levels=17, low=0.0, high=16.0) - levels
    assert noise.std().item() == pytest.approx(math.sqrt(1 / 12), rel=0.1)


def test_networks_that_take_gradients_themselves_are_differentiated_too() -> None:
    def energy(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            y = x if x.requires_grad else x.detach().requires_grad_()
            return torch.autograd.grad((0.15 * y**2).sum(), y, create_graph=True)[0]

    model = ss.NetworkScore(energy, ss.VP(), "noise")
    plain = ss.NetworkScore(lambda x, t: 0.3 * x, ss.VP(), "noise")
    x = torch.randn(3, 2)
    assert torch.allclose(ss.log_likelihood(model, x).nats, ss.log_likelihood(plain, x).nats)
