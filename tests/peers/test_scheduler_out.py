r"""A scheduler of diffusers by our solvers gives in stock pipelines what `ss.decode` and stock schedulers give."""

import copy
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
