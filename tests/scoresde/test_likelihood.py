import math

import pytest
import torch

import scoresde as ss

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


def test_probes_are_unbiased_and_their_error_is_told() -> None:
    oracle = quantile(ss.VP())
    x = oracle.data(1).expand(400, 3).contiguous()
    exact = ss.log_likelihood(oracle, x[:1]).nats
    for probes in (4, 16):
        found = ss.log_likelihood(oracle, x, probes=probes, rtol=1e-4)
        error = found.nats - exact
        assert abs(error.mean()) < 4 * error.std() / 20 + 2e-3
        rms = found.stderr.square().mean().sqrt().item()
        assert rms == pytest.approx(error.std().item(), rel=0.15)
        covered = (error.abs() < 2 * found.stderr).double().mean()
        assert 0.9 < covered < 0.99
    few, many = (ss.log_likelihood(oracle, x, probes=k, rtol=1e-4).stderr.mean() for k in (4, 16))
    assert (few / many).item() == pytest.approx(2.0, rel=0.15)
    assert ss.log_likelihood(oracle, x[:2], probes=1).stderr.isnan().all()


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
    from solvers.divergence import basis, quadratic_forms

    x = torch.randn(3, 2, 2)
    mix = torch.randn(4, 4)

    def field(x):
        return torch.sin(x.flatten(1) @ mix).reshape(x.shape)

    traces = quadratic_forms(field, x, basis(x)).sum(0)
    for row, trace in zip(x, traces, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda r: field(r[None])[0], row)
        assert torch.allclose(jacobian.reshape(4, 4).trace(), trace)


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
    with pytest.raises(ValueError, match="must lie on 17 levels from -1.0 to 1.0"):
        ss.dequantize(x + 0.05, levels=17)


ORACLE, X = quantile(ss.VP()), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ss.log_likelihood(ORACLE, X, divergence="x"),
            ValueError,
            "'auto', 'exact' or 'hutchinson'",
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
            lambda: ss.log_likelihood(ORACLE, X, grid="t", solver="rk4"),
            ValueError,
            "grid= and times= have no effect",
        ),
        (
            lambda: ss.bits_per_dim(ss.log_likelihood(ORACLE, X), levels=1),
            ValueError,
            "at least 2, but is 1",
        ),
        (
            lambda: ss.bits_per_dim(ss.log_likelihood(ORACLE, X), levels=17, low=1.0),
            ValueError,
            "low < high",
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
