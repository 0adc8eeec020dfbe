r"""Networks of diffusers give what its schedulers give, on their grids; deviations have a name."""

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as ss

df: Any = pytest.importorskip("diffusers")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore::FutureWarning")]
PREDICTIONS = ("epsilon", "sample", "v_prediction")
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("leading", "trailing", "linspace")
LAST: dict[str, Any] = {"final_sigmas_type": "zero"}
STOCK: dict[str, tuple[str, dict[str, Any]]] = {
    "DDIMScheduler": ("ddim", {"clip_sample": False}),
    "DPMSolverMultistepScheduler": ("dpmpp_2m", LAST),
    "EulerDiscreteScheduler": ("ddim", {}),
    "HeunDiscreteScheduler": ("edm_heun", {}),
    "UniPCMultistepScheduler": ("unipc_2", LAST),
}


@pytest.fixture(autouse=True)
def float32(float64: None) -> Iterator[None]:
    r"""The dtype of these networks, and of the tables of these schedulers."""

    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        yield


@cache
def network(out: int = 1, classes: int | None = None) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = df.UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=out,
            block_out_channels=(16,),
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            layers_per_block=1,
            norm_num_groups=8,
            num_class_embeds=classes,
        )
        return found.double().eval()


def noise() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 1, 8, 8, generator=generator, dtype=torch.float64)


def theirs(
    scheduler: Any, step: dict[str, Any] | None = None, net: Any = None, **call: Any
) -> Any:
    r"""The start on their process, and what a scheduler of theirs makes of it in ten steps."""

    net, z = net or network(), noise()
    scheduler.set_timesteps(10, **call.pop("grid", {}))
    if hasattr(
        scheduler, "sigmas"
    ):  # whose states are as large as their sigmas, up to 2e4, for float32
        scheduler.sigmas = scheduler.sigmas.double()
    x = z * scheduler.init_noise_sigma if hasattr(scheduler, "init_noise_sigma") else z
    begun = x
    if hasattr(scheduler, "alphas_cumprod") and scheduler.init_noise_sigma != 1:
        begun = x * scheduler.alphas_cumprod[int(scheduler.timesteps[0])].sqrt()
    for t in scheduler.timesteps:
        scaled = (
            scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        )
        answer = net(scaled, t, **call).sample[:, :1]
        x = scheduler.step(answer, t, x, **step or {}).prev_sample
    return begun, x


def gap(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def deviation(
    scheduler: Any, solver: str, step: dict[str, Any] | None = None, **call: Any
) -> float:
    model: Any = ss.from_diffusers(network(), scheduler)
    z, wanted = theirs(scheduler, step)
    return gap(ss.decode(model, z, solver=solver, times=model.times(10), **call).x, wanted)


CASES = [
    (name, *rest)
    for name, *rest in product(STOCK, PREDICTIONS, BETAS, SPACINGS)
    if not (name == "EulerDiscreteScheduler" and rest[0] == "sample")  # which it refuses itself
    and not (name == "DDIMScheduler" and rest[2] == "linspace")  # of which another test tells
]


@pytest.mark.parametrize(("name", "predicts", "betas", "spacing"), CASES)
def test_schedulers(name: str, predicts: str, betas: str, spacing: str) -> None:
    solver, options = STOCK[name]
    scheduler = getattr(df, name)(
        prediction_type=predicts, beta_schedule=betas, timestep_spacing=spacing, **options
    )
    assert deviation(scheduler, solver) < 1e-5


def test_ddim_linspace_leaves_its_own_grid() -> None:
    r"""Its previous time is t - 1000 // n, which is not the next of its times."""

    scheduler = df.DDIMScheduler(timestep_spacing="linspace", clip_sample=False)
    assert deviation(scheduler, "ddim") > 0.1


def test_ddim_that_ends_at_the_first_alpha() -> None:
    scheduler = df.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    model: Any = ss.from_diffusers(network(), scheduler)
    z, wanted = theirs(scheduler)
    times = torch.cat([model.times(10), torch.zeros(1, dtype=torch.float64)])
    assert gap(ss.decode(model, z, solver="ddim", times=times, denoise=False).x, wanted) < 1e-5


@pytest.mark.parametrize(
    ("name", "options", "solver"),
    [
        ("DEISMultistepScheduler", {}, "deis_2"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}, "dpm_2m"),
        ("DPMSolverMultistepScheduler", {}, "dpmpp_2m"),
        ("UniPCMultistepScheduler", {}, "unipc_2"),
    ],
)
def test_multistep_that_ends_at_the_least_noise(
    name: str, options: dict[str, Any], solver: str
) -> None:
    if name != "DEISMultistepScheduler":
        options = options | {"final_sigmas_type": "sigma_min"}
    scheduler = getattr(df, name)(**options)
    model: Any = ss.from_diffusers(network(), scheduler)
    z, wanted = theirs(scheduler)
    times = torch.cat([model.times(10), torch.zeros(1, dtype=torch.float64)])
    x = ss.decode(model, z, solver=solver, times=times, denoise=False).x
    assert (
        gap(x, wanted) < 5e-5
    )  # 1 - alphas_cumprod[0] is 1e-4, with three digits fewer of float32


def test_trained_betas() -> None:
    betas = (torch.linspace(1e-3, 0.1, 200, dtype=torch.float64) ** 1.5).tolist()
    scheduler = df.DDIMScheduler(200, trained_betas=betas, clip_sample=False)
    assert deviation(scheduler, "ddim") < 1e-5


@pytest.mark.parametrize(
    ("name", "options", "solver", "bound"),
    [
        ("LMSDiscreteScheduler", {}, "lms", 2e-3),  # its weights are by quadrature
        ("DPMSolverMultistepScheduler", LAST | {"solver_type": "heun"}, "dpmpp_2m_heun", 1e-5),
        ("DPMSolverMultistepScheduler", LAST | {"solver_order": 1}, "ddim", 1e-5),
    ],
)
def test_other_methods(name: str, options: dict[str, Any], solver: str, bound: float) -> None:
    assert deviation(getattr(df, name)(**options), solver) < bound


FLOWS = [
    ("FlowMatchEulerDiscreteScheduler", "euler", {}, {}),
    ("FlowMatchEulerDiscreteScheduler", "euler", {"shift": 3.0}, {}),
    ("FlowMatchEulerDiscreteScheduler", "euler", {"use_dynamic_shifting": True}, {"mu": 0.7}),
    ("FlowMatchEulerDiscreteScheduler", "euler", {"use_karras_sigmas": True}, {}),
    ("FlowMatchHeunDiscreteScheduler", "heun", {}, {}),
    ("FlowMatchHeunDiscreteScheduler", "heun", {"shift": 3.0}, {}),
]


@pytest.mark.parametrize(("name", "solver", "options", "grid"), FLOWS)
def test_flows(name: str, solver: str, options: dict[str, Any], grid: dict[str, Any]) -> None:
    scheduler = getattr(df, name)(**options)
    model: Any = ss.from_diffusers(network(), scheduler)
    z, wanted = theirs(scheduler, grid=grid)
    x = ss.decode(model, z, solver=solver, clock="t", times=model.times(10, **grid)).x
    assert gap(x, wanted) < 1e-5


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("name", "solver"), [("EDMEuler", "ddim"), ("EDMDPMSolverMultistep", "dpmpp_2m")]
)
def test_edm(name: str, solver: str, predicts: str) -> None:
    scheduler = getattr(df, f"{name}Scheduler")(prediction_type=predicts)
    assert deviation(scheduler, solver) < 1e-5


def test_scores_of_exploding_noise() -> None:
    scheduler = df.ScoreSdeVeScheduler(sigma_min=0.01, sigma_max=50.0)
    model = ss.from_diffusers(network(), scheduler)
    t = torch.tensor([0.3, 0.7], dtype=torch.float64)
    sigma = 0.01 * 5000.0**t
    assert gap(model.score(noise(), t), network()(noise(), sigma).sample) < 1e-4


@pytest.mark.parametrize(
    ("name", "solver", "bound"),
    [
        ("DDIMScheduler", "ddim", 1e-5),
        ("DPMSolverMultistepScheduler", "dpmpp_2m", 2e-3),  # which clips its SNR at 2^-24
    ],
)
@pytest.mark.parametrize("predicts", ["sample", "v_prediction"])
def test_no_signal_at_the_end(name: str, solver: str, bound: float, predicts: str) -> None:
    scheduler = getattr(df, name)(
        prediction_type=predicts,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        **STOCK[name][1],
    )
    assert deviation(scheduler, solver) < bound


def test_no_signal_says_nothing_to_noise_predictions() -> None:
    scheduler = df.DDIMScheduler(rescale_betas_zero_snr=True)
    with pytest.raises(ValueError, match="terminal SNR of zero.*prediction_type='epsilon'"):
        ss.from_diffusers(network(), scheduler)


def test_clipped() -> None:
    scheduler = df.DDIMScheduler(clip_sample=True)
    assert deviation(scheduler, "ddim", {"use_clipped_model_output": True}) < 1e-5


def test_stock_ddim_clips_the_data_but_keeps_the_noise() -> None:
    assert deviation(df.DDIMScheduler(clip_sample=True), "ddim") > 1e-2


def test_clipping_is_an_option() -> None:
    scheduler, free = df.DDIMScheduler(), df.DDIMScheduler(clip_sample=False)
    model: Any = ss.from_diffusers(network(), scheduler, clip=False)
    z, wanted = theirs(free)
    assert gap(ss.decode(model, z, solver="ddim", times=model.times(10)).x, wanted) < 1e-5


@pytest.mark.parametrize("most", [1.0, 1.5, 20.0])
def test_dynamic_thresholds(most: float) -> None:
    scheduler = df.DPMSolverMultistepScheduler(thresholding=True, sample_max_value=most, **LAST)
    assert deviation(scheduler, "dpmpp_2m") < 1e-5


def test_learned_variance() -> None:
    scheduler = df.DDIMScheduler(clip_sample=False)
    model: Any = ss.from_diffusers(network(2), scheduler)
    z, wanted = theirs(scheduler, net=network(2))
    assert gap(ss.decode(model, z, solver="ddim", times=model.times(10)).x, wanted) < 1e-5


def test_class_labels() -> None:
    scheduler, label = df.DDIMScheduler(clip_sample=False), torch.tensor([1, 3])
    model: Any = ss.from_diffusers(network(1, 4), scheduler)
    z, wanted = theirs(scheduler, net=network(1, 4), class_labels=label)
    x = ss.decode(model, z, solver="ddim", times=model.times(10), class_labels=label).x
    assert model.conditions == ("class_labels",)
    assert gap(x, wanted) < 1e-5


@pytest.mark.parametrize(
    ("name", "predicts", "solver", "bound"),
    [
        ("EulerDiscreteScheduler", "v_prediction", "ddim", 1e-3),
        ("HeunDiscreteScheduler", "sample", "edm_heun", 0.5),
    ],
)
def test_float32_is_short_of_digits_at_a_noise_level_of_20000(
    name: str, predicts: str, solver: str, bound: float
) -> None:
    scheduler = getattr(df, name)(
        beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing", prediction_type=predicts
    )
    net = deepcopy(network()).float()
    scheduler.set_timesteps(10)
    x = noise().float() * scheduler.init_noise_sigma
    z = x * scheduler.alphas_cumprod[-1].sqrt()
    for t in scheduler.timesteps:
        x = scheduler.step(net(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
    model: Any = ss.from_diffusers(net, scheduler)
    found = ss.decode(model, z, solver=solver, times=model.times(10)).x
    assert 1e-5 < gap(found, x) < bound


def test_the_first_step_of_ipndm_ignores_the_network() -> None:
    scheduler, x = df.IPNDMScheduler(), noise()
    scheduler.set_timesteps(10)
    found = scheduler.step(network()(x, 1.0).sample, scheduler.timesteps[0], x).prev_sample
    assert torch.allclose(found, scheduler.betas[1] * x)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("IPNDMScheduler", "is a IPNDMScheduler.*ss.from_callable"),
        ("LCMScheduler", "distilled to a few steps"),
        ("CMStochasticIterativeScheduler", "distilled to a few steps"),
    ],
)
def test_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ss.from_diffusers(network(), getattr(df, name)())
