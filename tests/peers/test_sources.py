r"""Models of installed libraries give what these libraries' own samplers give, on the same grid and start."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
from tests.formula import SHAPE, Formula, start
from tests.pages import models_of_others

from . import torchvision_stub

pytestmark = pytest.mark.peers
TENTH = torch.linspace(1, 0, 11, dtype=torch.float64)


@pytest.fixture(autouse=True)
def float32(float64: None) -> Iterator[None]:
    r"""The dtype that these libraries take for granted."""

    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        yield


def gap(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).abs().max() / wanted.double().abs().max())


SCHEDULES = ("VPSchedule", "CosineSchedule", "RectifiedSchedule", "VESchedule")


@pytest.mark.parametrize(
    ("schedule", "denoiser"), product(SCHEDULES, ("SimpleDenoiser", "KarrasDenoiser"))
)
def test_azula(schedule: str, denoiser: str) -> None:
    azula = pytest.importorskip("azula")
    assert azula
    from azula import denoise, noise, sample

    arguments = (1e-2, 50.0) if schedule == "VESchedule" else ()
    levels = getattr(noise, schedule)(*arguments)
    theirs = getattr(denoise, denoiser)(Formula(), levels)
    model = ss.from_azula(theirs, shape=SHAPE[1:])
    z = start() * levels(torch.ones(()))[1]
    times = TENTH.clamp(min=model.process.t_min)
    x = ss.decode(model, z, solver="ddim", times=times, denoise=False).x
    assert gap(x, sample.DDIMSampler(theirs, steps=10, silent=True)(z)) < 2e-5


def lucidrains(name: str) -> Any:
    with torchvision_stub.stand_ins():
        found = pytest.importorskip("denoising_diffusion_pytorch")
    return getattr(found, name)


def unet(sinusoidal: bool) -> Any:
    network: Any = Formula(1e-2)
    network.channels = network.out_dim = 1
    network.self_condition, network.random_or_learned_sinusoidal_cond = False, sinusoidal
    return network


OBJECTIVES = ("pred_noise", "pred_x0", "pred_v")


@pytest.mark.parametrize(
    ("objective", "betas"), product(OBJECTIVES, ("linear", "cosine", "sigmoid"))
)
def test_lucidrains(objective: str, betas: str, monkeypatch: pytest.MonkeyPatch) -> None:
    diffusion = lucidrains("GaussianDiffusion")(
        unet(False), image_size=4, objective=objective, beta_schedule=betas, sampling_timesteps=10
    )
    monkeypatch.setattr(torch, "randn", lambda *_, **__: start())
    wanted = 2 * diffusion.ddim_sample(SHAPE) - 1
    times = torch.linspace(-1, 999, 11).int().flip(0)[:-1]
    model = ss.from_lucidrains(diffusion)
    assert gap(ss.decode(model, start(), solver="ddim", times=times).x, wanted) < 1e-5


def test_elucidated(monkeypatch: pytest.MonkeyPatch) -> None:
    diffusion = lucidrains("ElucidatedDiffusion")(
        unet(True), image_size=4, channels=1, num_sample_steps=10, S_churn=0
    )
    monkeypatch.setattr(torch, "randn", lambda *_, **__: start())
    wanted = 2 * diffusion.sample(3) - 1
    model = ss.from_lucidrains(diffusion)
    z = start() * diffusion.sigma_max
    times = diffusion.sample_schedule(10)[:-1]
    x = ss.decode(model, z, solver="edm_heun", times=times).x.clamp(-1, 1)
    assert gap(x, wanted) < 1e-5


def test_torchcfm() -> None:
    pytest.importorskip("torchcfm")
    from torchcfm.models.models import MLP
    from torchcfm.utils import torch_wrapper
    from torchdiffeq import odeint

    torch.manual_seed(0)
    network = MLP(dim=2, time_varying=True, w=16)
    z = start((5, 2))
    wanted = odeint(torch_wrapper(network), z, torch.linspace(0, 1, 11), method="euler")[-1]
    model = ss.from_flow(lambda t, x: network(torch.cat([x, t[:, None]], 1)), shape=(2,))
    times = TENTH.clamp(model.process.t_min, model.process.t_max)
    x = ss.decode(model, z, solver="euler", clock="t", times=times, denoise=False).x
    assert gap(x, wanted) < 1e-5


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_flow_matching(solver: str) -> None:
    pytest.importorskip("flow_matching")
    from flow_matching.solver import ODESolver
    from flow_matching.utils import ModelWrapper

    velocity = ModelWrapper(Formula())
    wanted = ODESolver(velocity).sample(x_init=start(), method=solver, step_size=0.1)
    model = ss.from_flow(velocity, shape=SHAPE[1:])
    times = TENTH.clamp(model.process.t_min, model.process.t_max)
    x = ss.decode(model, start(), solver=solver, clock="t", times=times, denoise=False).x
    assert gap(x, wanted) < 1e-5


def test_smalldiffusion() -> None:
    with torchvision_stub.stand_ins():
        pytest.importorskip("smalldiffusion")
    from smalldiffusion import ScheduleLogLinear, TimeInputMLP, samples

    torch.manual_seed(0)
    network = TimeInputMLP(dim=2, hidden_dims=(16, 16))
    sigmas = ScheduleLogLinear(200, 0.01, 10.0).sample_sigmas(20)
    z = 10 * start((5, 2))
    *_, wanted = samples(network, sigmas, xt=z)
    process = ss.EDM(ss.Karras(0.01, 10.0))
    model = ss.from_callable(network, process, "noise", shape=(2,))
    x = ss.decode(model, z, solver="ddim", times=sigmas, denoise=False).x
    assert gap(x, wanted) < 1e-5


def k_diffusion() -> Any:
    try:
        return torchvision_stub.k_diffusion()
    except ImportError as error:
        pytest.skip(f"k-diffusion: {error}")


SAMPLERS = {  # theirs, ours, and how near: their "lms" integrates by quadrature
    "euler": ("ddim", 1e-5),
    "heun": ("edm_heun", 1e-5),
    "dpm_2": ("dpm_2", 1e-5),
    "dpmpp_2m": ("dpmpp_2m", 1e-5),
    "lms": ("lms", 1e-4),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kind", ["DiscreteEpsDDPMDenoiser", "DiscreteVDDPMDenoiser", "Denoiser"])
def test_k_diffusion(kind: str, sampler: str) -> None:
    K = k_diffusion()
    if kind == "Denoiser":
        denoiser = K.Denoiser(Formula(), sigma_data=0.5)
        sigmas = K.sampling.get_sigmas_karras(10, 0.002, 80.0)
    else:
        signal = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
        denoiser = getattr(K.external, kind)(Formula(1e-2), signal, quantize=False)
        sigmas = denoiser.get_sigmas(10)
    z, (solver, bound) = start() * sigmas[0], SAMPLERS[sampler]
    wanted = getattr(K.sampling, f"sample_{sampler}")(denoiser, z, sigmas, disable=True)
    model = ss.from_k_diffusion(denoiser, shape=SHAPE[1:])
    assert gap(ss.decode(model, z, solver=solver, times=sigmas[:-1]).x, wanted) < bound


def real(name: str) -> Any:
    r"""The object that a name stands for in "Your model says X, write Y"."""

    if name == "AZULA":
        pytest.importorskip("azula")
        from azula import denoise, noise

        return denoise.KarrasDenoiser(Formula(), noise.VPSchedule())
    if name == "LUCIDRAINS":
        return lucidrains("GaussianDiffusion")(unet(False), image_size=4)
    if name == "DENOISER":
        return k_diffusion().Denoiser(Formula(), sigma_data=0.5)
    df = pytest.importorskip("diffusers")
    if name == "SCHEDULER":
        return df.DDIMScheduler()
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    sizes = {"block_out_channels": (8,), "norm_num_groups": 8, "layers_per_block": 1}
    return df.UNet2DModel(4, 1, 1, **blocks, **sizes).eval()


REAL = ("AZULA", "LUCIDRAINS", "DENOISER", "SCHEDULER", "UNET")
WRITTEN = [line for line in models_of_others() if any(name in line for name in REAL)]


@pytest.mark.parametrize("written", WRITTEN)
def test_what_is_written_makes_a_model(written: str) -> None:
    names = {name: real(name) for name in REAL if name in written}
    model = eval(written, {"ss": ss, "SHAPE": SHAPE[1:], **names})
    assert ss.decode(model, start(), steps=2).x.isfinite().all()


@pytest.mark.parametrize("kind", ["vp", "ve", "subvp", "flow"])
@torch.enable_grad()
def test_sbi(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # for its logs
    pytest.importorskip("sbi")
    from sbi.inference import FMPE, NPSE
    from sbi.utils import BoxUniform

    torch.manual_seed(0)
    theta = 2 * torch.rand(300, 2) - 1
    seen = theta + 0.2 * torch.randn(300, 2)
    prior = BoxUniform(-20 * torch.ones(2), 20 * torch.ones(2))
    inference = FMPE(prior) if kind == "flow" else NPSE(prior, sde_type=kind)
    inference.append_simulations(theta, seen)
    estimator: nn.Module = inference.train(training_batch_size=100, max_num_epochs=2)
    posterior = inference.build_posterior(estimator, sample_with="ode")
    with torch.no_grad():
        wanted = posterior.log_prob(theta[:5], seen[:1])
    model = ss.from_sbi(posterior)
    found = ss.log_likelihood(model, theta[:5], observation=seen[:1]).nats
    assert (found - wanted).abs().max() < 0.01
