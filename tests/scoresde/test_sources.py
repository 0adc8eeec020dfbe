r"""Models of other libraries, by stand-ins with what is read of them, give what their own samplers give.

The outputs in `tests/data/sources.npz` are written by `python -m tests.peers.make_sources`, in float32 and of the
same networks. Where the libraries are installed, `tests/peers` runs more of them.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
from tests.formula import SHAPE, Formula, start

THEIRS = np.load(Path(__file__).parent.parent / "data" / "sources.npz")
SIGNAL = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float32), 0)
TENTH = torch.linspace(1, 0, 11, dtype=torch.float64)


def theirs(name: str) -> Tensor:
    return torch.from_numpy(THEIRS[name])


def gap(found: Tensor, name: str) -> float:
    wanted = theirs(name).double()
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


class Preconditioned(nn.Module):
    r"""As the preconditioned networks of EDM are."""

    img_channels, img_resolution, label_dim = 1, 4, 0

    def __init__(
        self, sigma_min: float, sigma_max: float, forms: Callable[..., Any], k: float, c: int = 1
    ) -> None:
        super().__init__()
        self.sigma_min, self.sigma_max, self.forms = sigma_min, sigma_max, forms
        self.model = Formula(k, c)

    def forward(self, x: Tensor, sigma: Tensor, class_labels: None = None) -> Tensor:
        sigma = sigma.float().reshape(-1, 1, 1, 1)
        skip, out, scale, noise = self.forms(sigma)
        F = self.model(scale * x.float(), torch.as_tensor(noise).flatten())
        return skip * x + out * F[:, :1]


def edm_form(s: Tensor) -> tuple[Any, ...]:
    both = s**2 + 0.25
    return 0.25 / both, s * 0.5 / both.sqrt(), 1 / both.sqrt(), s.log() / 4


def vp_form(s: Tensor) -> tuple[Any, ...]:
    t = ((0.01 + 39.8 * (1 + s**2).log()).sqrt() - 0.1) / 19.9
    return 1, -s, 1 / (s**2 + 1).sqrt(), 999 * t


U = torch.from_numpy(THEIRS["edm/iDDPM/u"])


def nearest(sigma: Tensor) -> Tensor:
    return (sigma.reshape(-1, 1).float() - U).abs().argmin(1)


def iddpm_form(s: Tensor) -> tuple[Any, ...]:
    return 1, -s, 1 / (s**2 + 1).sqrt(), 999 - nearest(s).float()


def rounded(sigma: Any) -> Tensor:
    return U[nearest(torch.as_tensor(sigma))].double().reshape(torch.as_tensor(sigma).shape)


VP_RANGE = [float(np.sqrt(np.exp(9.95 * t**2 + 0.1 * t) - 1)) for t in (1e-5, 1.0)]
EDM = {
    "EDM": Preconditioned(0.0, float("inf"), edm_form, 1.0),
    "VE": Preconditioned(0.02, 100.0, lambda s: (1, s, 1, (0.5 * s).log()), 1.0),
    "VP": Preconditioned(*VP_RANGE, vp_form, 1e-2),
    "iDDPM": Preconditioned(float(U[999]), float(U[0]), iddpm_form, 1e-2, 2),
}
EDM["iDDPM"].round_sigma = rounded  # to its table, of which one level lies above 80


@pytest.mark.parametrize("name", EDM)
def test_edm(name: str) -> None:
    model = ss.from_edm(EDM[name])
    ends = [max(EDM[name].sigma_min, 0.002), min(EDM[name].sigma_max, 80.0)]
    low, high = (one ** (1 / 7) for one in ends)
    sigmas = (high + torch.arange(10) / 9 * (low - high)) ** 7
    if name == "iDDPM":
        sigmas = rounded(sigmas)
    z = start().double() * sigmas[0]
    assert gap(ss.decode(model, z, solver="edm_heun", times=sigmas).x, f"edm/{name}") < 1e-6


def test_raw_network_of_edm() -> None:
    inner = ss.from_callable(EDM["EDM"].model, ss.EDM(), "edm", shape=SHAPE[1:])
    sigmas = (80 ** (1 / 7) + torch.arange(10) / 9 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    sigmas = sigmas.clamp(0.002, 80)
    z = start().double() * sigmas[0]
    assert gap(ss.decode(inner, z, solver="edm_heun", times=sigmas).x, "edm/EDM") < 1e-5


def vpsde(name: str) -> object:
    return type(name, (), {"beta_0": 0.1, "beta_1": 20.0, "N": 1000})()


@pytest.mark.parametrize("name", ["VPSDE", "subVPSDE"])
def test_score_sde(name: str) -> None:
    model = ss.from_score_sde(Formula(1e-2), vpsde(name), shape=SHAPE[1:])
    t = torch.tensor([0.05, 0.4, 0.9])
    assert gap(model.score(start(), t), f"score_sde/{name}/score") < 2e-5
    times = [model.process.t_max, 1e-3]
    x = ss.decode(model, start(), solver="dopri5", clock="t", rtol=1e-6, atol=1e-6, times=times,
                  denoise=False).x  # fmt: skip
    assert gap(x, f"score_sde/{name}/x") < 5e-4  # their solver's tolerance is 1e-5


def test_score_sde_whose_noise_explodes() -> None:
    sde = type("VESDE", (), {"sigma_min": 0.01, "sigma_max": 50.0})()
    model = ss.from_score_sde(Formula(), sde, shape=SHAPE[1:])
    t = torch.tensor([0.05, 0.4, 0.9])
    assert gap(model.score(start(), t), "score_sde/VESDE/score") < 2e-5


def betas(schedule: str) -> np.ndarray:
    if schedule == "linear":
        return np.linspace(1e-4, 0.02, 1000)
    signal = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - signal[1:] / signal[:-1], 0.999)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("mean", ["EPSILON", "START_X"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_guided_diffusion(schedule: str, mean: str, clip: bool) -> None:
    kind = SimpleNamespace(name=mean)
    diffusion = SimpleNamespace(
        betas=betas(schedule), model_mean_type=kind, rescale_timesteps=clip
    )
    network = Formula(1e-2, channels=2)
    network.num_classes = 3
    model: ss.ScoreModel = ss.from_guided_diffusion(network, diffusion, shape=SHAPE[1:])
    model = ss.guidance.thresholded(model, 1.0) if clip else model
    times = torch.arange(900, -1, -100)
    x = ss.decode(model, start(), solver="ddim", times=times, y=torch.arange(3)).x
    name = f"guided_diffusion/{schedule}/{mean}/{'clipped' if clip else 'free'}"
    assert gap(x, name) < 2e-5


class Wrapped(nn.Module):
    r"""As the wrappers of k-diffusion for noise and v networks are."""

    def __init__(self, v: bool) -> None:
        super().__init__()
        self.inner_model, self.v = Formula(1e-2), v
        self.levels = ((1 - SIGNAL) / SIGNAL).sqrt().log()
        self.sigma_min, self.sigma_max = self.levels[0].exp(), self.levels[-1].exp()

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        low = (torch.searchsorted(self.levels, sigma.log(), right=True) - 1).clamp(0, 998)
        w = (sigma.log() - self.levels[low]) / (self.levels[low + 1] - self.levels[low])
        scale = (1 + sigma**2).rsqrt().reshape(-1, 1, 1, 1)
        sigma, F = sigma.reshape(-1, 1, 1, 1), self.inner_model(x * scale, low + w)
        return x * scale**2 - F * sigma * scale if self.v else x - F * sigma


K_SAMPLERS = {"euler": "ddim", "heun": "edm_heun", "dpm_2": "dpm_2", "dpmpp_2m": "dpmpp_2m"}


@pytest.mark.parametrize("sampler", K_SAMPLERS)
@pytest.mark.parametrize("v", [False, True])
def test_k_diffusion(sampler: str, v: bool) -> None:
    denoiser = Wrapped(v)
    model = ss.from_k_diffusion(denoiser, shape=SHAPE[1:])
    t = torch.linspace(999, 0, 10, dtype=torch.float32)
    levels = denoiser.levels
    sigmas = torch.lerp(levels[t.floor().long()], levels[t.ceil().long()], t.frac()).exp()
    x = ss.decode(model, start() * sigmas[0], solver=K_SAMPLERS[sampler], times=sigmas).x
    name = f"k_diffusion/Discrete{'V' if v else 'Eps'}DDPMDenoiser/{sampler}"
    assert gap(x, name) < 1e-5


class Karras(nn.Module):
    r"""As azula's KarrasDenoiser with its CosineSchedule is."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Formula()

    def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = torch.cos(np.arccos(1e-3) * t)
        return alpha, (1 - alpha**2 + 1e-6).sqrt()

    def forward(self, x: Tensor, t: Tensor) -> SimpleNamespace:
        alpha, sigma = (s.reshape(-1, 1, 1, 1) for s in self.schedule(t))
        both = alpha**2 + sigma**2
        F = self.backbone(x / both.sqrt(), torch.log(sigma / alpha).flatten())
        return SimpleNamespace(mean=alpha / both * x + sigma / both.sqrt() * F)


def test_azula() -> None:
    model = ss.from_azula(Karras(), shape=SHAPE[1:])
    times = TENTH.clamp(min=model.process.t_min)
    x = ss.decode(model, start(), solver="ddim", times=times, denoise=False).x
    assert gap(x, "azula/x") < 1e-5


class Diffusion(nn.Module):
    r"""As lucidrains' GaussianDiffusion with its sigmoid schedule is."""

    self_condition, channels, image_size = False, 1, (4, 4)

    def __init__(self, objective: str) -> None:
        super().__init__()
        self.objective, self.model = objective, Formula(1e-2)
        v = torch.sigmoid(torch.linspace(-3, 3, 1001))
        signal = (v[-1] - v) / (v[-1] - v[0])
        kept = (signal[1:] / signal[:-1]).clamp(1e-3, 1)
        self.alphas_cumprod = torch.cumprod(kept, 0).float()


@pytest.mark.parametrize("objective", ["pred_noise", "pred_x0", "pred_v"])
def test_lucidrains(objective: str) -> None:
    model = ss.from_lucidrains(Diffusion(objective))
    times = torch.linspace(-1, 999, 11).int().flip(0)[:-1]
    x = ss.decode(model, start(), solver="ddim", times=times).x
    assert gap(x, f"lucidrains/{objective}") < 1e-5


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_flows(solver: str) -> None:
    network = Formula()
    model = ss.from_flow(lambda t, x: network(x, t), shape=SHAPE[1:])
    times = TENTH.clamp(model.process.t_min, model.process.t_max)
    x = ss.decode(model, start(), solver=solver, clock="t", times=times, denoise=False).x
    assert gap(x, f"flows/{solver}") < 1e-5


def test_flow_whose_data_is_at_zero() -> None:
    model = ss.from_flow(Formula(), data_at=0, shape=SHAPE[1:])
    times = TENTH.clamp(model.process.t_min, model.process.t_max)
    found = ss.decode(model, start(), solver="euler", clock="t", times=times, denoise=False).x
    x = start().double()
    for t, s in zip(TENTH[:-1], TENTH[1:], strict=True):
        x = x + (s - t) * Formula()(x, t)
    assert float((found - x).abs().max() / x.abs().max()) < 1e-5


class Scheduler:
    r"""As schedulers of diffusers are."""

    def __init__(self, **config: Any) -> None:
        self.config, self.alphas_cumprod = config, SIGNAL
        self.timesteps = self.sigmas = theirs(config["times"])

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Scheduler":
        return cls(**config)

    def set_timesteps(self, num_inference_steps: int) -> None:
        assert num_inference_steps == len(self.timesteps)


DIFFUSERS = {
    "DDIM": ("DDIMScheduler", "epsilon", "ddim", {}),
    "DPM++": ("DPMSolverMultistepScheduler", "v_prediction", "dpmpp_2m", {}),
    "flow": ("FlowMatchEulerDiscreteScheduler", "", "euler", {"clock": "t"}),
}


class Unet(nn.Module):
    r"""As networks of diffusers are."""

    config = {"in_channels": 1, "sample_size": 4}

    def __init__(self) -> None:
        super().__init__()
        self.inner = Formula(1e-2)

    def forward(self, sample: Tensor, timestep: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=self.inner(sample, timestep))


@pytest.mark.parametrize("case", DIFFUSERS)
def test_diffusers(case: str) -> None:
    name, predicts, solver, options = DIFFUSERS[case]
    config = {"prediction_type": predicts, "num_train_timesteps": 1000}
    scheduler = type(name, (Scheduler,), {})(times=f"diffusers/{case}/times", **config)
    model: Any = ss.from_diffusers(Unet(), scheduler)
    x = ss.decode(model, start(), solver=solver, times=model.times(10), **options).x
    assert gap(x, f"diffusers/{case}/x") < 1e-5


@pytest.mark.parametrize("most", [1.0, 2.0, 100.0])
def test_thresholds_of_schedulers(most: float) -> None:
    r"""They clip to the range from -1 to 1, by a quantile that counts at most so much."""

    said = {"thresholding": True, "dynamic_thresholding_ratio": 1.0, "sample_max_value": most}
    scheduler = type("DDIMScheduler", (Scheduler,), {})(
        times="diffusers/DDIM/times", prediction_type="epsilon", **said
    )
    t = torch.tensor([900.0] * 3)
    free = ss.from_diffusers(Unet(), scheduler, clip=False).denoise(start(), t)
    size = free.abs().amax((1, 2, 3), keepdim=True).clamp(1, most)
    found = ss.from_diffusers(Unet(), scheduler).denoise(start(), t)
    assert torch.allclose(found, free.clamp(-size, size) / size)
    assert free.abs().max() > 2


def test_all_that_is_kept_is_of_a_source() -> None:
    kept = {name.split("/")[0] for name in THEIRS.files}
    tested = "edm score_sde guided_diffusion k_diffusion azula lucidrains flows diffusers"
    assert kept == set(tested.split())
