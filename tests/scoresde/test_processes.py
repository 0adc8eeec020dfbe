import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import scoresde as ss

from .cases import PROCESSES

each = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
SCHEDULES = [ss.LinearBeta(), ss.Cosine(), ss.Geometric(), ss.Karras(), ss.Logit()]


def inner(process: ss.Process, count: int = 50) -> torch.Tensor:
    return torch.linspace(process.t_min, process.t_max, count + 2, dtype=torch.float64)[1:-1]


@each
def test_time_inverts_log_snr(process: ss.Process) -> None:
    t = inner(process)
    assert torch.allclose(process.time(process.log_snr(t)), t, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@given(u=st.floats(0, 1))
def test_schedules_are_inverted(schedule: ss.Schedule, u: float) -> None:
    low, high = schedule.domain
    t = torch.tensor(low + u * (high - low))
    assert torch.allclose(schedule.inverse(schedule(t)), t, rtol=1e-9, atol=1e-11)


@each
def test_rates_are_those_of_the_kernel(process: ss.Process) -> None:
    # d log alpha = f dt and d sigma^2 = (2 f sigma^2 + g^2) dt, by finite differences
    t, h = inner(process), 1e-5 * process.t_max
    (a0, s0), (a1, s1) = process.scales(t - h), process.scales(t + h)
    f = process.drift(torch.ones(len(t), 1), t)[:, 0]
    g, sigma = process.diffusion(t), process.scales(t)[1]
    assert torch.allclose(f, (a1 / a0).log() / (2 * h), rtol=1e-4, atol=1e-6)
    assert torch.allclose(2 * f * sigma**2 + g**2, (s1**2 - s0**2) / (2 * h), rtol=1e-4, atol=1e-6)


@each
def test_rates_are_the_same_in_every_mode_and_have_no_gradient(process: ss.Process) -> None:
    t, x = inner(process, 5), torch.ones(5, dtype=torch.float64)
    known = process.rates(t)
    with torch.inference_mode():
        assert all(map(torch.equal, process.rates(t.clone()), known))
    assert all(map(torch.equal, torch.func.vmap(process.rates)(t), known))
    (found, along) = torch.func.jvp(lambda x: x * process.rates(t)[1], (x,), (x,))
    assert torch.equal(found, known[1])
    assert torch.equal(along, known[1])
    assert not any(rate.requires_grad for rate in known)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtypes(process: ss.Process, dtype: torch.dtype) -> None:
    x = torch.ones(3, 2, 4, dtype=dtype)
    for t in (torch.tensor(0.5, dtype=dtype), torch.tensor([0.3, 0.5, 0.7], dtype=dtype)):
        assert process.drift(x, t).shape == x.shape
        assert process.drift(x, t).dtype is dtype
        assert process.diffusion(t).shape == t.shape
        assert process.perturb(x, t, x).shape == x.shape
        assert all(scale.shape == t.shape for scale in process.scales(t))


@each
def test_forward_simulation_has_the_marginals_of_the_kernel(process: ss.Process) -> None:
    start, stop = process.at_noise_level(0.05), process.at_noise_level(1.0)
    t = process.time(torch.linspace(*process.log_snr(torch.tensor([start, stop])).tolist(), 301))
    t[0], t[-1] = start, stop
    x, clean = torch.zeros(20_000, 1), torch.full((20_000, 1), 2.0)
    x = process.perturb(clean, t[0], torch.randn_like(x))
    for t0, t1 in zip(t[:-1], t[1:], strict=True):
        noise = (t1 - t0).sqrt() * torch.randn_like(x)
        x = x + process.drift(x, t0) * (t1 - t0) + process.diffusion(t0) * noise
    alpha, sigma = process.scales(t[-1])
    assert abs(x.mean() / (2 * alpha) - 1) < 0.02
    assert abs(x.std() / sigma - 1) < 0.02


@each
def test_prior_is_the_end_of_the_process(process: ss.Process) -> None:
    z = process.prior_sample((50_000, 2), seed=3)
    sigma = process.scales(torch.tensor(process.t_max))[1]
    assert abs(z.std() / sigma - 1) < 0.02
    normal = torch.distributions.Normal(0.0, float(sigma))
    assert torch.allclose(process.prior_log_prob(z[:5]), normal.log_prob(z[:5]).sum(1))
    assert torch.equal(process.prior_sample((3, 2), seed=3, first_index=4), z[4:7])


def test_sub_vp_is_below_vp() -> None:
    t = inner(ss.VP())
    (alpha, sigma), (alpha_sub, sigma_sub) = ss.VP().scales(t), ss.SubVP().scales(t)
    assert torch.allclose(alpha, alpha_sub)
    assert torch.allclose(sigma**2, sigma_sub)


def test_user_processes_agree_with_ours() -> None:
    vp, t = ss.VP(), torch.linspace(1e-3, 1, 40)
    own = ss.CustomProcess(lambda t: vp.scales(t)[0], lambda t: vp.scales(t)[1])
    for process in (PROCESSES["Linear"], own):
        for got, want in zip(process.scales(t), vp.scales(t), strict=True):
            assert torch.allclose(got, want, rtol=1e-9)
        assert torch.allclose(process.diffusion(t), vp.diffusion(t), rtol=1e-7)


def test_inconsistent_drift_and_diffusion_are_refused() -> None:
    scales = (lambda t: 1 - t, lambda t: t)
    with pytest.raises(ValueError, match=r"the drift at t=.* is -1, but alpha and sigma imply"):
        ss.CustomProcess(*scales, t_max=0.9, f=lambda t: -torch.ones_like(t))
    with pytest.raises(ValueError, match=r"the diffusion at t="):
        ss.CustomProcess(*scales, t_max=0.9, f=lambda t: -1 / (1 - t), g=torch.ones_like)
    ss.CustomProcess(*scales, t_max=0.9, g=lambda t: (2 * t + 2 * t**2 / (1 - t)).sqrt())

    class Forgot(ss.VE):  # the square root
        def diffusion(self, t: torch.Tensor) -> torch.Tensor:
            return super().diffusion(t) ** 2

    with pytest.raises(ValueError, match="the diffusion at t="):
        Forgot()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ss.CustomProcess(lambda t: t, lambda t: 1 - t, t_max=0.9),
            "must decrease in time",
        ),
        (lambda: ss.CustomProcess(lambda t: 1 - t, lambda t: t), "no finite log-SNR at t=1"),
        (lambda: ss.VP(t_min=0.5, t_max=0.2), "t_min < t_max, but are 0.5 and 0.2"),
        (lambda: ss.LinearBeta(20.0, 0.1), "0 < beta_min < beta_max, but are 20.0 and 0.1"),
        (lambda: ss.Karras(0.0, 80.0), "0 < sigma_min < sigma_max, but are 0.0"),
    ],
)
def test_impossible_processes_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_large_prior_gap_is_told() -> None:
    with pytest.warns(UserWarning, match=r"0.\d+ nats per dimension"):
        ss.VE(ss.Geometric(0.01, 3.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ss.VE(ss.Geometric(0.01, 50.0))
    assert ss.EDM().prior_gap(0.5) == pytest.approx(0.5**2 / (2 * 80**2))


@each
def test_uses_start_inside_the_domain_and_are_printed(process: ss.Process) -> None:
    for use in ("sampling", "likelihood", "encoding"):
        assert process.t_min <= process.start_of(use) < process.t_max
    assert process.noise_level(process.start_of("sampling")) >= 0.0099
    assert f"t in [{ss.VP().t_min:.3g}, 1], sampling from 0.000916" in repr(ss.VP())


def test_nonlinear_processes_refuse_what_needs_scales() -> None:
    process = ss.NonlinearProcess(lambda x, t: -torch.tanh(x), torch.ones_like)
    t = torch.tensor([0.2, 0.5])
    assert torch.equal(process.signal(t), torch.ones(2))  # data is the state at t_min
    assert torch.equal(process.level(t), t)
    for need in (process.scales, process.log_snr, process.time):
        with pytest.raises(ValueError, match="has no alpha and sigma.*predicts='score'"):
            need(torch.tensor(0.5))
