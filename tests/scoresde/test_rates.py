r"""Processes by their rates: jumps, poles, constants, and what is no process."""

import math

import pytest
import torch
from torch import Tensor

import scoresde as ss

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64) * 1000


def table(t: Tensor) -> Tensor:
    return BETAS[(t * 1000).long().clamp(0, 999)]


def test_a_table_of_betas_is_a_process() -> None:
    process = ss.LinearProcess(lambda t: -table(t) / 2, lambda t: table(t).sqrt())
    t = torch.linspace(1e-3, 1, 777, dtype=torch.float64)
    k = (t * 1000).long().clamp(max=999)
    whole = torch.cat([torch.zeros(1).double(), BETAS.cumsum(0) / 1000])
    B = whole[k] + BETAS[k] * (t - k.double() / 1000)  # alpha^2 = exp(-B), sigma^2 = 1 - exp(-B)
    alpha, sigma = process.scales(t)
    assert torch.allclose(alpha, torch.exp(-B / 2), rtol=1e-8)
    assert torch.allclose(sigma, (-torch.expm1(-B)).sqrt(), rtol=1e-8)
    assert torch.allclose(process.time(process.log_snr(t)), t, rtol=1e-9)
    assert ss.sample(ss.GaussianOracle(torch.zeros(1), 0.5, process=process), 2, steps=5).ok


@pytest.mark.parametrize("jump", [0.3, 0.5, 0.123456789, 0.25**2 + 1e-9, 0.9999])
def test_a_jump_anywhere_is_integrated_exactly(jump: float) -> None:
    def beta(t: Tensor) -> Tensor:
        return torch.where(t < jump, 2.0, 20.0).to(t)

    process = ss.LinearProcess(lambda t: -beta(t) / 2, lambda t: beta(t).sqrt())
    t = torch.tensor([0.05, jump, jump + 1e-5, 1.0], dtype=torch.float64)
    B = torch.where(t < jump, 2 * t, 2 * jump + 20 * (t - jump))
    alpha, sigma = process.scales(t)
    assert torch.allclose(alpha, torch.exp(-B / 2), rtol=1e-9)
    assert torch.allclose(sigma, (-torch.expm1(-B)).sqrt(), rtol=1e-9)


@pytest.mark.parametrize("t_max", [0.9, 0.999, 0.99999])
def test_a_pole_near_the_end_is_integrated_exactly(t_max: float) -> None:
    process = ss.LinearProcess(
        lambda t: -1 / (1 - t), lambda t: (2 * t / (1 - t)).sqrt(), t_max=t_max
    )
    t = torch.linspace(1e-3, t_max, 300, dtype=torch.float64)
    alpha, sigma = process.scales(t)  # the interpolant
    assert torch.allclose(alpha, 1 - t, rtol=1e-9)
    assert torch.allclose(sigma, t, rtol=1e-9)


def test_constant_rates_are_numbers() -> None:
    t = torch.linspace(0.1, 4, 20, dtype=torch.float64)
    for f, g in ((-1.5, 1.2), (lambda t: -1.5, lambda t: 1.2), (torch.tensor(-1.5).double(), 1.2)):
        process = ss.LinearProcess(f, g, t_max=4.0)
        alpha, sigma = process.scales(t)  # of Ornstein and Uhlenbeck
        assert torch.allclose(alpha, torch.exp(-1.5 * t), rtol=1e-12)
        assert torch.allclose(
            sigma**2,
            1.2**2 / 3 * (-torch.expm1(-3 * t)),
            rtol=1e-6 if isinstance(f, Tensor) else 1e-12,
        )
        x = torch.ones(3, 2)
        assert torch.allclose(process.drift(x, t[:3]), -1.5 * x)
    own = ss.CustomProcess(1.0, lambda t: 60 * t)
    assert torch.allclose(own.diffusion(t[:4] / 4), 60 * (2 * t[:4] / 4).sqrt())
    ou = ss.NonlinearProcess(lambda x, t: -x, 2**0.5, t_max=4.0)
    model = ss.NetworkScore(lambda x, t: -x, ou, "score", shape=(2,))
    for solver in ("em", "heun", "torchdiffeq/rk4"):
        x = ss.sample(
            model, 2000, solver=solver, steps=100
        ).x  # the law at rest, which denoising would end
        assert x.std() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: ss.LinearProcess(lambda t: -1 / (0.7003 - t).abs(), 1.0), "f cannot be integrated near t=0.700"),
    (lambda: ss.LinearProcess(lambda t: -torch.rand_like(t), 1.0), "f cannot be integrated"),
    (lambda: ss.LinearProcess(-1.0, lambda t: -torch.ones_like(t)), "g must be positive and finite, but is -1"),
    (lambda: ss.LinearProcess(-1.0, math.nan), "g must be a finite number, but is nan"),
    (lambda: ss.LinearProcess(lambda t: -torch.ones(3), 1.0), "f must return a number, or one for each time"),
    (lambda: ss.LinearProcess(-1.0, "1"), "g must be a function or a number, but is"),
    (lambda: ss.CustomProcess(lambda t: torch.cos(t.detach()), torch.sin), "derivative of alpha"),
    (lambda: ss.CustomProcess(torch.cos, lambda t: torch.sin(t).detach()), "derivative of sigma"),
    (lambda: ss.CustomProcess(torch.cos, lambda t: torch.sin(t) + torch.rand(()) / 100), "two calls differ"),
    (lambda: ss.CustomProcess(lambda t: torch.cos(t) * (1 + torch.sin(201 * t) / 9), torch.sin), "must decrease"),
    (lambda: ss.CustomProcess(lambda t: torch.cos(t) + torch.exp(-((500 * t - 255) ** 2)), torch.sin), "decrease"),
    (lambda: ss.VP(ss.LinearBeta(True, 20)), "beta_min must be a number, but is True"),
    (lambda: ss.VP(ss.Cosine(1e9)), "offset must be"),
    (lambda: ss.VP(t_max="1"), "t_max must be a number"),
    (lambda: ss.NonlinearProcess(lambda x, t: -x, 1.0, std=-1.0), "std must be positive"),
    (lambda: ss.NonlinearProcess(lambda x, t: -x, None), "g must be a function or a number, but is"),
    (lambda: ss.NonlinearProcess("f", 1.0), "f must be a function, but is 'f'"),
])  # fmt: skip
def test_what_is_no_process_is_refused(make: object, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(("f", "message"), [
    (lambda x, t: -x[:, :1], r"must return the shape of x, \(3, 2\), but returned \(3, 1\)"),
    (lambda x, t: x.mul_(-1), "changed x in place"),
    (lambda x, t: -1.0, "but returned float"),
])  # fmt: skip
def test_drifts_of_another_kind_are_refused(f: object, message: str) -> None:
    process = ss.NonlinearProcess(f, 1.0)  # type: ignore[arg-type]
    model = ss.NetworkScore(lambda x, t: -x, process, "score", shape=(2,))
    with pytest.raises(ValueError, match=message):
        ss.sample(model, 3, solver="em", steps=3)


def test_a_prior_that_is_not_the_law_at_the_end_is_told() -> None:
    calls = []

    def score(x: Tensor, t: Tensor) -> Tensor:  # of N(0, 1)
        calls.append(len(x))
        return -x

    other = ss.NonlinearProcess(lambda x, t: -x, 2**0.5, std=2.0, t_max=4.0)
    model = ss.NetworkScore(score, other, "score", shape=(2,))
    with pytest.warns(UserWarning, match=r"differs from that of the prior N\(0, 2\^2\)"):
        s = ss.sample(model, 3, solver="em", steps=5)
    assert s.calls.tolist() == [5, 5, 5]
    ss.sample(model, 3, solver="em", steps=5)
    assert len(calls) == 11  # it was asked once


def test_times_are_printed_without_a_sign() -> None:
    for process in (ss.VE(), ss.VE(ss.Geometric(0.02, 50)), ss.VP(), ss.EDM()):
        assert "-0" not in repr(process).replace("e-0", "")


def test_exact_models_refuse_what_is_no_law() -> None:
    two = torch.zeros(2)
    for make, message in (
        (lambda: ss.GaussianOracle(two, torch.tensor([[1.0, 2.0], [0.0, 1.0]])), "must be symmetric"),
        (lambda: ss.GaussianOracle(two, -torch.eye(2)), "must be positive, but one is -1"),
        (lambda: ss.GaussianOracle(two, torch.zeros(2, 2)), "must be positive"),
        (lambda: ss.GaussianOracle(two, -1.0), "must be positive standard deviations"),
        (lambda: ss.GaussianOracle(two, torch.eye(2) * 1j), "must be real"),
        (lambda: ss.GaussianOracle(two, 1.0, process="VP"), "process must be a Process"),
        (lambda: ss.MixtureOracle(torch.zeros(0, 2), 1.0), "B >= 1"),
        (lambda: ss.MixtureOracle(torch.tensor([[0.0, math.nan]]), 1.0), "must be finite"),
        (lambda: ss.KernelOracle(torch.zeros(0, 2), 0.1), "B >= 1"),
        (lambda: ss.QuantileOracle(torch.full((1, 2), math.nan), torch.ones(1, 2)), "must be finite"),
        (lambda: ss.QuantileOracle(torch.zeros(1, 2), -torch.ones(1, 2)), "stds must be positive"),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=message):
            make()  # type: ignore[arg-type]
