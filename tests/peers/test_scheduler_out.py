r"""A scheduler of diffusers by our solvers gives in stock pipelines what `ss.decode` and stock schedulers give."""

import copy
import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.adapters.diffusers_scheduler import ScoreSDEScheduler

from . import pipelines
from .pipelines import off

pytestmark = pytest.mark.peers
SEED = 3
# Whatever draws a different law of the same noise is compared to our own runs alone.
SOLVERS = [
    "ddim",
    "dpmpp_2m",
    "unipc_2",
    "deis_2",
    "edm_heun",
    "dpmpp_2s",
    "rk4",
    "dopri5",
    "torchdiffeq/midpoint",
    "ancestral",
    "dpmpp_2m_sde",
    "sa",
]
SHARED = {  # solvers by the stock classes that have the same method
    "ddim": diffusers.DDIMScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
    "unipc_2": diffusers.UniPCMultistepScheduler,
    "deis_2": diffusers.DEISMultistepScheduler,
    "edm_heun": diffusers.HeunDiscreteScheduler,
}


def stock_of(solver: str, **config: Any) -> Any:
    kind = SHARED.get(solver, diffusers.DDIMScheduler)
    if kind is diffusers.DDIMScheduler:
        config = {"clip_sample": False, **config}
    if solver == "deis_2":  # which ends at the lowest noise level
        config = {"lower_order_final": False, **config}
    return kind(timestep_spacing="leading", **config)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator())


def looped(scheduler: Any, network: Any, x: Tensor, steps: int = 8, **options: Any) -> Tensor:
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t).sample, t, x, **options).prev_sample
    return x


# ---- equal to decode, in every pipeline


@pytest.mark.parametrize("solver", SOLVERS)
def test_ddpm_pipeline(solver: str) -> None:
    network, stock = pipelines.unet(), diffusers.DDPMScheduler(clip_sample=False)
    scheduler = ScoreSDEScheduler.from_config(stock.config, solver=solver)
    pipeline = pipelines.quiet(diffusers.DDPMPipeline(network, scheduler))
    found = pipeline(2, generator(), num_inference_steps=8, output_type="np").images
    model = ss.from_diffusers(network, stock)
    z = noise(2, 1, 8, 8)
    x = ss.decode(model, z, times=model.times(8), solver=solver, seed=SEED).x
    right = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert off(torch.from_numpy(found), right) < 2e-5


@pytest.mark.parametrize("solver", SOLVERS)
def test_text_to_image(solver: str) -> None:
    stock = stock_of("ddim", steps_offset=1, beta_schedule="scaled_linear")
    scheduler = ScoreSDEScheduler.from_config(stock.config, solver=solver)
    pipeline = pipelines.stable_diffusion(diffusers.StableDiffusionPipeline, scheduler)
    prompt, null, z = torch.randn(1, 5, 8), torch.randn(1, 5, 8), noise(2, 4, 8, 8)
    found = pipeline(
        prompt_embeds=prompt,
        negative_prompt_embeds=null,
        num_images_per_prompt=2,
        num_inference_steps=6,
        guidance_scale=4.0,
        latents=z,
        generator=generator(),
        output_type="latent",
    ).images
    model = ss.from_diffusers(pipeline.unet, stock)
    cfg = pipelines.guided(model, prompt, null, 4.0)
    right = ss.decode(cfg, z, times=model.times(6), solver=solver, seed=SEED).x
    assert off(found, right) < 1e-5


def test_each_sample_has_its_generator() -> None:
    network, z = pipelines.unet(), noise(3, 1, 8, 8)
    scheduler = ScoreSDEScheduler.from_config(stock_of("ddim").config, solver="ancestral")
    several = [torch.Generator().manual_seed(seed) for seed in (5, 7, 9)]
    whole = looped(scheduler, network, z, generator=several)
    alone = looped(scheduler, network, z[1:2], generator=[several[1]])
    assert off(whole[1:2], alone) < 2e-6
    other = looped(scheduler, network, z[1:2], generator=[several[2]])
    assert off(other, alone) > 0.01


def test_no_generator_is_that_of_torch() -> None:
    network, z = pipelines.unet(), noise(1, 1, 8, 8)
    scheduler = ScoreSDEScheduler.from_config(stock_of("ddim").config, solver="ancestral")
    first, second = looped(scheduler, network, z), looped(scheduler, network, z)
    assert off(first, second) > 0.01
    for seed in (first, second):
        torch.manual_seed(1)
        seed.copy_(looped(scheduler, network, z))
    assert torch.equal(first, second)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "ancestral", "edm_heun"])
def test_dit_pipeline(solver: str) -> None:
    stock = stock_of("ddim")
    pipeline = pipelines.dit(ScoreSDEScheduler.from_config(stock.config, solver=solver))
    torch.manual_seed(1)
    images = pipeline([1, 2], 4.0, generator(), num_inference_steps=6, output_type="np").images
    torch.manual_seed(1)  # the pipeline passes no generator on
    half, null = noise(2, 4, 8, 8), torch.tensor([1000])
    model = ss.from_diffusers(pipeline.transformer, stock)
    cfg = ss.guidance.classifier_free(
        model, 4.0, class_labels=torch.tensor([1, 2]), negative={"class_labels": null}
    )
    options: dict[str, Any] = {"times": model.times(6), "solver": solver}
    if solver == "ancestral":
        options["seed"] = int(torch.randint(2**31, ()))
    x = ss.decode(cfg, half, **options).x
    pixels = pipeline.vae.decode(x / pipeline.vae.config.scaling_factor).sample
    right = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert off(torch.from_numpy(images), right) < 1e-5


# ---- equal to stock schedulers


@pytest.mark.parametrize("solver", SHARED)
@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_shared_methods_equal_the_stock(
    solver: str, beta_schedule: str, prediction_type: str
) -> None:
    network, z = pipelines.unet(), noise(2, 1, 8, 8)
    stock = stock_of(solver, beta_schedule=beta_schedule, prediction_type=prediction_type)
    ours = ScoreSDEScheduler.from_config(stock, solver=solver, denoise=solver != "deis_2")
    right = in_pipeline(stock, network, z)
    assert off(in_pipeline(ours, network, z), right) < 1e-5


def in_pipeline(scheduler: Any, network: Any, z: Tensor) -> Tensor:
    r"""The loop of all pipelines."""

    scheduler.set_timesteps(8)
    x = z
    if scheduler.init_noise_sigma != 1:  # of states in units of the data
        x = z * (1 + scheduler.sigmas[0] ** 2) ** 0.5
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, t), t).sample
        x = scheduler.step(output, t, x).prev_sample
    return x


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "unipc_2"])
@pytest.mark.parametrize("kind", ["Img2Img", "Inpaint"])
def test_pipelines_that_start_midway_or_change_states(kind: str, solver: str) -> None:
    name = getattr(diffusers, f"StableDiffusion{kind}Pipeline")
    stock = stock_of(solver, steps_offset=1, beta_schedule="scaled_linear")
    pipeline = pipelines.stable_diffusion(name, stock)
    options = {
        "image": torch.rand(1, 3, 16, 16),
        "prompt_embeds": torch.randn(1, 5, 8),
        "negative_prompt_embeds": torch.randn(1, 5, 8),
        "strength": 0.6,
        "num_inference_steps": 10,
        "guidance_scale": 4.0,
        "output_type": "latent",
    }
    if kind == "Inpaint":
        mask = torch.zeros(1, 1, 16, 16)
        mask[..., :8] = 1
        options |= {"mask_image": mask, "height": 16, "width": 16}
    right = pipeline(**options, generator=generator()).images
    pipeline.scheduler = ScoreSDEScheduler.from_config(stock.config, solver=solver)
    found = pipeline(**options, generator=generator()).images
    assert off(found, right) < 1e-5
    pipeline.scheduler = ScoreSDEScheduler.from_config(stock.config, solver="edm_heun")
    if kind == "Inpaint":
        with pytest.raises(ValueError, match="was changed within a step of several network calls"):
            pipeline(**options, generator=generator())
    else:
        assert pipeline(**options, generator=generator()).images.isfinite().all()


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "unipc_2"])
def test_callbacks_that_change_states(solver: str) -> None:
    stock = stock_of(solver, steps_offset=1, beta_schedule="scaled_linear")
    pipeline = pipelines.stable_diffusion(diffusers.StableDiffusionPipeline, stock)
    options: dict[str, Any] = {
        "prompt_embeds": torch.randn(1, 5, 8),
        "negative_prompt_embeds": torch.randn(1, 5, 8),
        "num_inference_steps": 6,
        "latents": noise(1, 4, 8, 8),
        "output_type": "latent",
    }
    plain = pipeline(**options).images
    options["callback_on_step_end"] = lambda pipe, i, t, known: {"latents": 0.9 * known["latents"]}
    right = pipeline(**options).images
    pipeline.scheduler = ScoreSDEScheduler.from_config(stock, solver=solver)
    assert off(pipeline(**options).images, right) < 1e-5
    assert off(plain, right) > 0.05


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_stable_diffusion_3(shift: float) -> None:
    stock = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    pipeline = pipelines.stable_diffusion_3(stock)
    options = {
        "prompt_embeds": torch.randn(1, 5, 8),
        "negative_prompt_embeds": torch.randn(1, 5, 8),
        "pooled_prompt_embeds": torch.randn(1, 16),
        "negative_pooled_prompt_embeds": torch.randn(1, 16),
        "num_inference_steps": 6,
        "latents": noise(1, 4, 8, 8),
        "output_type": "latent",
    }
    right = pipeline(**options).images
    pipeline.scheduler = ScoreSDEScheduler.from_config(stock.config, solver="euler")
    assert off(pipeline(**options).images, right) < 3e-6
    pipeline.scheduler = ScoreSDEScheduler.from_config(stock.config, solver="dpmpp_2m")
    assert pipeline(**options).images.isfinite().all()


def test_flux() -> None:
    stock = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    pipeline = pipelines.flux(stock)
    options = {
        "prompt_embeds": torch.randn(1, 5, 8),
        "pooled_prompt_embeds": torch.randn(1, 8),
        "num_inference_steps": 5,
        "height": 16,
        "width": 16,
        "generator": generator(),
        "output_type": "latent",
    }
    right = pipeline(**options).images
    options["generator"] = generator()
    pipeline.scheduler = ScoreSDEScheduler.from_config(stock.config, solver="euler")
    assert off(pipeline(**options).images, right) < 3e-6
    options["generator"] = generator()
    pipeline.scheduler = ScoreSDEScheduler.from_config(
        stock.config, solver="dpmpp_2m", grid="log_snr", data_scale=1.0
    )
    assert pipeline(**options).images.isfinite().all()
    with pytest.raises(ValueError, match="sigmas= has no effect with grid='log_snr'"):
        pipeline(**options, sigmas=[1.0, 0.8, 0.7, 0.3, 0.1])


# ---- the entries of configs


def test_the_end_at_the_lowest_noise_level() -> None:
    network, z = pipelines.unet(), noise(2, 1, 8, 8)
    stock = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    ours = ScoreSDEScheduler.from_config(stock, solver="ddim", denoise=False)
    assert off(in_pipeline(ours, network, z), in_pipeline(stock, network, z)) < 1e-5


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
def test_terminal_snr_of_zero(prediction_type: str) -> None:
    network, z = pipelines.unet(), noise(2, 1, 8, 8)
    config = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    stock = diffusers.DDIMScheduler(clip_sample=False, prediction_type=prediction_type, **config)
    ours = ScoreSDEScheduler.from_config(stock, solver="ddim")
    assert off(in_pipeline(ours, network, z), in_pipeline(stock, network, z)) < 1e-5
    with pytest.raises(ValueError, match="terminal SNR of zero"):
        ScoreSDEScheduler.from_config(diffusers.DDIMScheduler(**config))


@pytest.mark.parametrize("most", [1.0, 1.5, 1e9])
def test_trained_betas_and_thresholds(most: float) -> None:
    network, z = pipelines.unet(), noise(2, 1, 8, 8)
    betas = torch.linspace(1e-3, 0.03, 500).tolist()
    stock = diffusers.DPMSolverMultistepScheduler(
        500,
        trained_betas=betas,
        thresholding=True,
        sample_max_value=most,
        dynamic_thresholding_ratio=0.8,
    )
    ours = ScoreSDEScheduler.from_config(stock, solver="dpmpp_2m")
    assert off(in_pipeline(ours, network, z), in_pipeline(stock, network, z)) < 1e-5


def test_clipped_samples_keep_their_meaning() -> None:
    network, z = pipelines.unet(), noise(2, 1, 8, 8)
    stock = diffusers.DDIMScheduler(clip_sample_range=0.7)
    ours = ScoreSDEScheduler.from_config(stock, solver="ddim")
    right = looped(stock, network, z, use_clipped_model_output=True)
    assert right.abs().max() <= 0.7
    assert off(looped(ours, network, z), right) < 1e-5


@pytest.mark.parametrize(
    "config",
    [
        {"shift": 3.0},
        {"use_karras_sigmas": True},
        {"use_dynamic_shifting": True},
        {"shift_terminal": 0.1},
    ],
)
def test_shifts_of_flows(config: dict[str, Any]) -> None:
    network, z = pipelines.unet(), noise(2, 1, 8, 8)
    stock = diffusers.FlowMatchEulerDiscreteScheduler(**config)
    ours = ScoreSDEScheduler.from_config(stock, solver="euler")
    ends = []
    for scheduler in (stock, ours):
        x = z
        scheduler.set_timesteps(6, mu=0.7 if "use_dynamic_shifting" in config else None)
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t).sample, t, x).prev_sample
        ends.append(x)
    assert off(ends[1], ends[0]) < 1e-5


def test_learned_variances_are_left_out() -> None:
    scheduler = ScoreSDEScheduler.from_config(stock_of("ddim"), solver="ddim")
    z, ends = noise(2, 1, 8, 8), []
    for more in (0, 1):
        scheduler.set_timesteps(4)
        x = z
        for t in scheduler.timesteps:
            output = 0.3 * x
            output = torch.cat([output, torch.ones_like(x)], 1) if more else output
            x = scheduler.step(output, t, x, return_dict=False)[0]
        ends.append(x)
    assert torch.equal(*ends)


# ---- grids, plans and what else is said of the run


def test_grids_of_ours_and_of_the_caller() -> None:
    network, stock, z = pipelines.unet(), stock_of("ddim"), noise(2, 1, 8, 8)
    model = ss.from_diffusers(network, stock)
    rho = ScoreSDEScheduler.from_config(stock, solver="dpmpp_2m", grid="rho")
    right = ss.decode(model, z, solver="dpmpp_2m", steps=7, grid="rho").x
    assert off(looped(rho, network, z), right) < 1e-5
    labels = [900, 500, 200, 20]
    levels = torch.exp(-model.process.log_snr(torch.tensor(labels, dtype=torch.float64)))
    right = ss.decode(model, z, solver="dpmpp_2m", times=torch.tensor(labels).double()).x
    for given in ({"timesteps": labels}, {"sigmas": [*levels.tolist(), 0.0]}):
        scheduler = ScoreSDEScheduler.from_config(stock)
        scheduler.set_timesteps(**given)
        assert scheduler.timesteps.tolist() == pytest.approx(labels)
        assert torch.allclose(scheduler.sigmas[:-1], levels.float(), rtol=1e-5)
        x = z
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t).sample, t, x).prev_sample
        assert off(x, right) < 1e-5


def test_leading_is_what_the_class_calls_it() -> None:
    grids = []
    for solver in ("ddim", "dpmpp_2m"):
        scheduler = ScoreSDEScheduler.from_config(stock_of(solver))
        scheduler.set_timesteps(9)
        grids.append(scheduler.timesteps.tolist())
    assert grids[0][:2] == [888, 777]
    assert grids[1][:2] == [900, 800]


def test_a_tuned_plan_stays_in_the_config(tmp_path: Path) -> None:
    network, stock, z = pipelines.unet(), stock_of("ddim"), noise(2, 1, 8, 8)
    model = ss.from_diffusers(network, stock)
    levels = (100.0, 12.0, 3.0, 0.8, 0.1)
    plan = ss.Plan(
        {"solver": "ipndm_3"}, levels, tuple((0.1, *[0.02] * (i + 1)) for i in range(4))
    )
    first = ScoreSDEScheduler.from_config(stock, plan=plan)
    diffusers.DDPMPipeline(network, first).save_pretrained(tmp_path)
    second = diffusers.DDPMPipeline.from_pretrained(tmp_path).scheduler
    third = ScoreSDEScheduler.from_config(stock, plan=plan.save(tmp_path / "plan.json"))
    right = ss.decode(model, z, plan=plan).x
    for scheduler in (first, second, third):
        assert off(looped(scheduler, network, z, steps=5), right) < 1e-5
        with pytest.raises(
            ValueError, match="num_inference_steps must be 5, since the plan has 4"
        ):
            scheduler.set_timesteps(8)
    with pytest.raises(ValueError, match="plan= says solver and grid already"):
        ScoreSDEScheduler.from_config(stock, plan=plan, solver="ddim")


def test_a_learned_plan_ends_without_a_denoising_and_ignores_the_first_call() -> None:
    network, stock, z = pipelines.unet(), stock_of("ddim"), noise(2, 1, 8, 8)
    model = ss.from_diffusers(network, stock)
    rows = tuple((0.1, *[0.02] * (i + 1)) for i in range(3))
    options = {"solver": "ddim:analytic_first=True", "denoise": False}
    plan = ss.Plan(options, (100.0, 3.0, 0.8, 0.1), rows)
    scheduler = ScoreSDEScheduler.from_config(stock, plan=plan, data_scale=0.5)
    model.data_scale = 0.5
    right = ss.decode(model, z, plan=plan)
    assert right.calls.tolist() == [2, 2]
    assert off(looped(scheduler, network, z, steps=3), right.x) < 1e-5
    with pytest.raises(ValueError, match="must be 3, .* 3 steps, but is 4"):
        scheduler.set_timesteps(4)


def test_moments_stay_in_the_config(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network, stock, z = pipelines.unet(), stock_of("ddim"), noise(2, 1, 8, 8)
    known = ss.moments(torch.randn(50, 1, 8, 8) * torch.linspace(0.1, 1, 8), "low_rank", rank=4)
    assert known.basis is not None
    save_file(
        {
            "mean": known.mean,
            "basis": known.basis.contiguous(),
            "variances": known.variances.contiguous(),
            "rest": torch.tensor(known.rest, dtype=torch.float64),
        },
        tmp_path / "moments.safetensors",
    )
    model = ss.from_diffusers(network, stock)
    model.moments = known
    right = ss.decode(model, z, times=model.times(8), solver="moment_2").x
    assert off(ss.decode(model, z, times=model.times(8), solver="dpmpp_2m").x, right) > 1e-3
    for given in (known, tmp_path / "moments.safetensors"):
        scheduler = ScoreSDEScheduler.from_config(stock, solver="moment_2", moments=given)
        scheduler.save_pretrained(tmp_path)
        scheduler = ScoreSDEScheduler.from_pretrained(tmp_path)
        assert off(looped(scheduler, network, z), right) < 1e-5


def test_statistics_of_a_model_stay_in_the_config(tmp_path: Path) -> None:
    network, stock, z = pipelines.unet(), stock_of("ddim"), noise(2, 1, 8, 8)
    model = ss.from_diffusers(network, stock)
    model.moments = ss.statistics(model, noise(20, 1, 8, 8), levels=4, samples=4)
    right = ss.decode(model, z, times=model.times(8), solver="measured_2").x
    scheduler = ScoreSDEScheduler.from_config(stock, solver="measured_2", moments=model.moments)
    scheduler.save_pretrained(tmp_path)
    again = ScoreSDEScheduler.from_pretrained(tmp_path)
    assert off(looped(again, network, z), right) < 1e-5


def test_a_first_step_without_a_call_starts_where_the_pipeline_does() -> None:
    network, stock = pipelines.unet(), stock_of("ddim")
    solver, z = "dpmpp_2m:analytic_first=True", noise(2, 1, 8, 8)
    model = ss.from_diffusers(network, stock)
    model.data_scale = 0.5
    right = ss.decode(model, z, times=model.times(8), solver=solver)
    assert right.calls.tolist() == [7, 7]
    scheduler = ScoreSDEScheduler.from_config(stock, solver=solver, data_scale=0.5)
    assert off(looped(scheduler, network, z), right.x) < 1e-5
    with pytest.raises(ValueError, match="changes the state before its first network call"):
        ScoreSDEScheduler.from_config(stock, solver="foresight_2", data_scale=0.5).set_timesteps(8)


def test_settings_reach_the_run() -> None:
    network, stock, z = pipelines.unet(), stock_of("ddim"), noise(2, 1, 8, 8)
    model = ss.from_diffusers(network, stock)
    options = {"eta_convention": "ddim", "noise": "path"}
    scheduler = ScoreSDEScheduler.from_config(stock, solver="ancestral", eta=0.5, options=options)
    found = looped(scheduler, network, z, generator=generator())
    times = model.times(8)
    right = ss.decode(model, z, solver="ancestral", times=times, eta=0.5, seed=SEED, **options).x
    assert off(found, right) < 1e-5
    with pytest.raises(ValueError, match="options may hold"):
        ScoreSDEScheduler.from_config(stock, options={"steps": 3})


def test_what_a_step_returns_and_noise_adds() -> None:
    network, stock, z = pipelines.unet(), stock_of("ddim"), noise(2, 1, 8, 8)
    ours = ScoreSDEScheduler.from_config(stock, solver="ddim")
    for scheduler in (stock, ours):
        scheduler.set_timesteps(8)
    t = ours.timesteps[0]
    output = network(z, t).sample
    one, other = (scheduler.step(output, t, z) for scheduler in (ours, stock))
    assert off(one.pred_original_sample, other.pred_original_sample) < 1e-5
    assert off(one.prev_sample, other.prev_sample) < 1e-5
    at = torch.tensor([10, 700])
    assert off(ours.add_noise(z, z.flip(0), at), stock.add_noise(z, z.flip(0), at)) < 1e-6
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    ours = ScoreSDEScheduler.from_config(flow, solver="euler")
    for scheduler in (flow, ours):
        scheduler.set_timesteps(8)
    at = flow.timesteps[2:3]
    assert off(ours.scale_noise(z, at, z.flip(0)), flow.scale_noise(z, at, z.flip(0))) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_states_stay_in_float32_inside(dtype: torch.dtype) -> None:
    stock, z = stock_of("ddim"), noise(2, 1, 8, 8).to(dtype)
    scheduler = ScoreSDEScheduler.from_config(stock, solver="dpmpp_2m")
    scheduler.set_timesteps(50)
    x = z
    for t in scheduler.timesteps:
        x = scheduler.step(x.float().sin().to(dtype), t, x).prev_sample
        assert x.dtype == dtype
    model = ss.from_diffusers(pipelines.unet(), stock)
    rounded = ss.NetworkScore(
        lambda x, t: x.to(dtype).float().sin().to(dtype).float(), model.process, "noise"
    )
    right = ss.decode(rounded, z.float(), times=model.times(50), solver="dpmpp_2m").x
    assert torch.equal(x, right.to(dtype))


# ---- copies, files, traps


def test_copies_begin_anew() -> None:
    network, z = pipelines.unet(), noise(2, 1, 8, 8)
    scheduler = ScoreSDEScheduler.from_config(stock_of("ddim"), solver="ddim")
    scheduler.set_timesteps(8)
    x = scheduler.step(network(z, scheduler.timesteps[0]).sample, scheduler.timesteps[0], z)
    copied = copy.deepcopy(scheduler)
    ends = []
    for one in (scheduler, copied):
        y = x.prev_sample
        for t in one.timesteps[1:]:
            y = one.step(network(y, t).sample, t, y).prev_sample
        ends.append(y)
    assert off(ends[1], ends[0]) < 1e-6


def test_saved_pipelines_need_the_module(tmp_path: Path) -> None:
    scheduler = ScoreSDEScheduler.from_config(stock_of("ddim"), solver="ddim")
    diffusers.DDPMPipeline(pipelines.unet(), scheduler).save_pretrained(tmp_path)
    load = f"import diffusers; p = diffusers.DDPMPipeline.from_pretrained({str(tmp_path)!r}); print(p.scheduler)"
    first = "import scoresde.adapters.diffusers_scheduler; "
    for code, works in ((load, False), (first + load, True)):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode == 0) == works
    assert '"solver": "ddim"' in done.stdout


def test_ddim_pipelines_replace_every_scheduler() -> None:
    scheduler = ScoreSDEScheduler.from_config(stock_of("ddim"), solver="dpmpp_2m")
    pipeline = diffusers.DDIMPipeline(pipelines.unet(), scheduler)
    assert isinstance(pipeline.scheduler, diffusers.DDIMScheduler)
    with pytest.raises(ValueError, match="exponential_sde chooses its own steps"):
        ScoreSDEScheduler.from_config(stock_of("ddim"), solver="exponential_sde")


def test_configs_tell_whose_they_are() -> None:
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0)
    ours = ScoreSDEScheduler.from_config(flow.config, solver="euler")
    assert ours.config.stock == "FlowMatchEulerDiscreteScheduler"
    assert ours.config.shift == 2.0
    again = ScoreSDEScheduler.from_config(ours.config, solver="dpmpp_2m")
    assert (again.config.stock, again.config.solver) == (ours.config.stock, "dpmpp_2m")
    back = diffusers.FlowMatchEulerDiscreteScheduler.from_config(ours.config)
    assert back.config.shift == 2.0
    with pytest.raises(ValueError, match="does not say of which class it is"):
        ScoreSDEScheduler.from_config({"beta_start": 0.1})
    with pytest.raises(TypeError, match="sovler= is an option neither of DDIMScheduler"):
        ScoreSDEScheduler.from_config(stock_of("ddim"), sovler="ddim")
    with pytest.raises(ValueError, match="has states in units of its own"):
        ScoreSDEScheduler.from_config(diffusers.EDMEulerScheduler())


def test_loops_that_do_not_follow_are_refused() -> None:
    scheduler = ScoreSDEScheduler.from_config(stock_of("ddim"), solver="edm_heun")
    z = noise(2, 1, 8, 8)
    with pytest.raises(ValueError, match="call set_timesteps first"):
        scheduler.step(z, 3, z)
    scheduler.set_timesteps(8)
    with pytest.raises(ValueError, match="none does at 800"):
        scheduler.step(z, 800, z)
    scheduler.step(z, scheduler.timesteps[0], z)
    with pytest.raises(ValueError, match="the next timestep is 750, but this is 625"):
        scheduler.step(z, scheduler.timesteps[3], z)


# ---- docs


def test_the_example_is_right() -> None:
    ready = {"diffusers": diffusers, "ScoreSDEScheduler": ScoreSDEScheduler}
    text = inspect.cleandoc(ScoreSDEScheduler.__doc__ or "")
    test = doctest.DocTestParser().get_doctest(text, ready, "ScoreSDEScheduler", None, 0)
    told: list[str] = []
    assert not doctest.DocTestRunner(verbose=False).run(test, out=told.append).failed, told


def test_snippets_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "pipelines_out.md").read_text()
    known: dict[str, Any] = {}
    snippets = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    assert len(snippets) == 2
    for code in snippets:
        exec(compile(code, "pipelines_out.md", "exec"), known)
        assert capsys.readouterr().out.strip()


def test_the_road_of_the_readme_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stock = diffusers.DDPMScheduler(clip_sample=False)
    diffusers.DDPMPipeline(pipelines.unet(), stock).save_pretrained("pipeline")
    page = (Path(__file__).parents[2] / "README.md").read_text()
    [code] = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    few = 'budget=3, solvers=["dpmpp_2m"], grids=["rho"], samples=4, held_out=4, progress=False'
    code = code.replace("budget=8", few)
    exec(compile(code, "README.md", "exec"), {"images": torch.rand(16, 1, 8, 8) * 2 - 1})
    assert (
        "check that its weights were loaded" in capsys.readouterr().out
    )  # the network has random weights
    again = diffusers.DDPMPipeline.from_pretrained("tuned")
    images = again(num_inference_steps=3, output_type="np", batch_size=2).images
    assert images.shape == (2, 8, 8, 1)
    tuned, before = ss.from_diffusers("tuned"), ss.from_diffusers("pipeline")
    assert torch.equal(tuned.times(5), before.times(5))
    options = {"steps": 3, "seed": 0}
    assert torch.equal(ss.sample(tuned, 2, **options).x, ss.sample(before, 2, **options).x)
