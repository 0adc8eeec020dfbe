r"""The linear parts of reverse processes, and the moments of data in them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.reverse.linear_part import (
    Frame,
    constant_noise,
    er_noise,
    make_noise,
    middle_noise,
    up_step,
)
from solvers.catalogue import CATALOGUE

from .cases import PROCESSES, gaussian, mixture

MATCHED = [n for n in CATALOGUE if solvers.get(n).form in ("moments", "measured")]
FORMS = {"data": 0.0, "isotropic": 0.7, "noise": math.inf}
levels = st.floats(-3.0, 4.0)


def frame(variance: float, eta: float) -> Frame:
    return Frame(ss.EDM(), torch.tensor([variance]), constant_noise(eta))


@settings(max_examples=20)
@given(start=levels, h=st.floats(0.05, 2.0), eta=st.floats(0.0, 1.5))
@pytest.mark.parametrize("form", FORMS)
def test_the_linear_part_solves_its_equation(
    form: str, start: float, h: float, eta: float
) -> None:
    linear, rate = frame(FORMS[form], eta), 1 + eta**2
    variance = FORMS[form]
    s, t = torch.tensor(start, dtype=torch.float64), torch.tensor(start + h, dtype=torch.float64)
    points, gauss = map(torch.from_numpy, np.polynomial.legendre.leggauss(80))
    u = s + h * (points + 1) / 2

    def pull(u: Tensor) -> Tensor:  # of dz = -pull z
        level = torch.exp(-2 * u)
        return rate * (torch.zeros_like(u) if math.isinf(variance) else level / (variance + level))

    decay = torch.exp(-(h / 2 * gauss * pull(u)).sum())
    assert torch.allclose(linear.decay(s, t)[0], decay, rtol=1e-8)
    to_end = linear.decay(u, t.expand_as(u))[:, 0]
    noise = (h / 2 * gauss * to_end**2 * 2 * eta**2 * torch.exp(-2 * u)).sum()
    assert torch.allclose(linear.noise_std(s, t)[0] ** 2, noise, rtol=1e-8, atol=1e-12)
    # the whole drift of the equation, for any x and D, is that of its parts
    x, D = torch.tensor(1.3, dtype=torch.float64), torch.tensor(-0.4, dtype=torch.float64)
    a, b = (c[0] for c in linear.remainder(s))
    drift = (
        -pull(s) * x
        + linear.weight(s, s, s + 1e-9)[0] * (a * x + b * D) / linear.decay(s, s + 1e-9)[0]
    )
    assert torch.allclose(drift, rate * (D - x), rtol=1e-6)


@given(s=levels, h=st.floats(0.01, 2.0))
def test_noises_of_steps(s: float, h: float) -> None:
    start, stop = torch.tensor(s, dtype=torch.float64), torch.tensor(s + h, dtype=torch.float64)
    half = (start + stop) / 2
    for noise in (constant_noise(0.8), er_noise(1.0), middle_noise(0.9)):
        whole = noise(start, stop)
        assert torch.allclose(whole, noise(start, half) + noise(half, stop))
        assert whole >= 0
    # ER-SDE multiplies the state by phi(s') / phi(s), phi(s) = s (exp(s^0.3) + 10)
    s0, s1 = torch.exp(-start), torch.exp(-stop)
    want = (s1 * ((s1**0.3).exp() + 10)) / (s0 * ((s0**0.3).exp() + 10))
    linear = Frame(ss.EDM(), torch.zeros(1), er_noise(1.0))
    assert torch.allclose(linear.decay(start, stop)[0], want)
    # and the convention of DDIM scales the noise of a step
    linear = Frame(ss.EDM(), torch.zeros(1), up_step(0.6))
    full = s1 * (1 - s1**2 / s0**2).sqrt()
    assert torch.allclose(linear.noise_std(start, stop)[0], 0.6 * full)


def test_conventions_of_eta() -> None:
    s, t = torch.tensor(0.1), torch.tensor(0.4)
    squared = make_noise("constant", 0.25, "k_diffusion")(s, t)
    assert torch.allclose(squared, make_noise("constant", 0.5, "canonical")(s, t))
    with pytest.raises(ValueError, match="has no effect on the noise of 'er_sde'"):
        make_noise("er_sde", 0.5, "ddim")


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("solver", MATCHED)
def test_moment_matched_solvers_are_exact_on_gaussian_data(solver: str, process: str) -> None:
    oracle = gaussian(PROCESSES[process])
    start, stop = oracle.process.t_max, oracle.process.at_noise_level(0.05)
    z = oracle.process.prior_sample((4, 2), seed=1, dtype=torch.float64)
    for steps in (1, 2, 5):
        options = {"t_min": stop, "denoise": False, "grid": "log_snr"}
        x = ss.decode(oracle, z, solver=solver, steps=steps, **options).x
        assert torch.allclose(x, oracle.flow(z, start, stop), atol=1e-8)


def test_one_stochastic_step_has_the_exact_covariance_of_gaussian_data() -> None:
    oracle = gaussian(ss.VP())
    matched = solvers.ExponentialMultistep("matched", 1, "moments", stochastic=True)
    x = ss.sample(oracle, 60_000, solver=matched, steps=1, grid="log_snr", dtype=torch.float64).x
    want = oracle.moments
    assert want.basis is not None
    covariance = want.basis @ torch.diag(want.variances) @ want.basis.T
    # the last denoising takes away what is left of noise, which is next to nothing
    assert (x.T.cov() - covariance).abs().max() < 0.01
    assert (x.mean(0) - want.mean).abs().max() < 0.01


KINDS = {
    "full": {},
    "diagonal": {"kind": "diagonal"},
    "basis": {
        "kind": "diagonal",
        "basis": torch.linalg.qr(torch.ones(12, 12).double() + 2 * torch.eye(12))[0],
    },
    "low_rank": {"kind": "low_rank", "rank": 4},
}


@pytest.mark.parametrize("kind", KINDS)
def test_coordinates_are_undone(kind: str) -> None:
    data = torch.randn(300, 3, 4, generator=torch.Generator().manual_seed(0))
    known = ss.moments(data, **KINDS[kind])
    x = data[:5].double() - known.mean
    assert torch.allclose(known.join(known.split(x)), x)
    assert known.split(x).shape == (5, len(known.coordinates))
    assert torch.allclose(known.mean, data.double().mean(0))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_converges_to_the_flow(kind: str) -> None:
    draw = torch.Generator().manual_seed(0)
    oracle = ss.MixtureOracle(torch.randn(3, 3, 4, generator=draw, dtype=torch.float64), 0.4)
    z = oracle.process.prior_sample((4, 3, 4), seed=1, dtype=torch.float64)
    options = {"t_min": 0.05, "denoise": False}
    truth = ss.decode(oracle, z, rtol=1e-10, atol=1e-10, **options).x
    oracle.moments = ss.moments(oracle.data(500), **KINDS[kind])
    errors = [
        (ss.decode(oracle, z, solver="moment_2", steps=n, grid="log_snr", **options).x - truth)
        .abs()
        .max()
        for n in (50, 200)
    ]
    assert errors[1] < 0.15 * errors[0]
    assert errors[1] < 2e-2


def test_isotropic_moments_are_one_variance() -> None:
    # low rank with the same variance everywhere is the form "isotropic" about the mean
    oracle = mixture(ss.VP())
    oracle.moments = ss.Moments(torch.zeros(2), None, torch.full((2,), oracle.data_std**2))
    isotropic = solvers.ExponentialMultistep("isotropic", 2, "isotropic")
    runs = [ss.sample(oracle, 3, solver=s, steps=6).x for s in ("moment_2", isotropic)]
    assert torch.allclose(*runs, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ss.moments(torch.ones(1, 3)), "at least 2 samples"),
        (lambda: ss.moments(torch.ones(5, 3, dtype=torch.int64)), "floating-point numbers"),
        (lambda: ss.moments(torch.rand(5, 3), "half"), "kind must be 'full', 'diagonal' or 'low_rank'"),
        (lambda: ss.moments(torch.rand(5, 3), "low_rank"), "rank= must be passed with kind='low_rank'"),
        (lambda: ss.moments(torch.rand(5, 3), "low_rank", rank=3), r"rank must be in \[1, 2\]"),
        (lambda: ss.moments(torch.rand(5, 3), basis=torch.eye(3)), "basis= has no effect"),
        (lambda: ss.Moments(torch.zeros(3), None, torch.ones(2)), r"variances must have shape \(3,\)"),
        (lambda: ss.Moments(torch.zeros(3), None, -torch.ones(3)), "must not be negative"),
        (lambda: ss.Moments(torch.zeros(3), torch.eye(3)[:, :2], torch.ones(2)), "rest= must be passed"),
    ],
)  # fmt: skip
def test_wrong_moments_are_refused(call: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()  # type: ignore[operator]


def test_a_model_without_moments_says_what_to_do() -> None:
    model = ss.NetworkScore(lambda x, t: x, ss.VP(), "data", shape=(2,))
    with pytest.raises(ValueError, match=r"set model.moments = ss.moments\(data\)"):
        ss.sample(model, 2, solver="moment_2", steps=3)
