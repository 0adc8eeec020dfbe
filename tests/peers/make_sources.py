r"""Writes `tests/data/sources.npz`: what other libraries' own samplers make of a network that is a formula.

Run it where azula 0.11, denoising-diffusion-pytorch 2.3, diffusers 0.42, flow_matching 1.0, k-diffusion 0.1,
click, requests and Pillow are installed, with the folders of three repositories at these commits:

    python -m tests.peers.make_sources EDM SCORE_SDE GUIDED_DIFFUSION

- github.com/NVlabs/edm 008a4e5316c8e3bfe61a62f874bddba254295afb
- github.com/yang-song/score_sde_pytorch cb1f359f4aadf0ff9a5e122fe8fffc9451fd6e44
- github.com/openai/guided-diffusion 22e0df8183507e13a7813f8d38d51b072ca1e67c
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.formula import SHAPE, Formula, start

from . import torchvision_stub

Outputs = Iterator[tuple[str, Tensor]]
Module = Any


def edm(folder: str) -> Outputs:
    r"""Samples of the Heun sampler of EDM, by each preconditioning."""

    networks, generate = _imported(folder, "training.networks", "generate")
    networks.Tiny = lambda out_channels, **_: Formula(channels=out_channels)
    networks.Small = lambda out_channels, **_: Formula(1e-2, out_channels)
    for name, kind in (("VP", "Small"), ("VE", "Tiny"), ("iDDPM", "Small"), ("EDM", "Tiny")):
        network = getattr(networks, f"{name}Precond")(4, 1, model_type=kind)
        yield name, generate.edm_sampler(network, start(), num_steps=10)
        if name == "iDDPM":
            yield "iDDPM/u", network.u


def score_sde(folder: str) -> Outputs:
    r"""Scores at three times, and samples by the probability flow at tolerance 1e-5."""

    sde_lib, models, sampling = _imported(folder, "sde_lib", "models.utils", "sampling")
    t = torch.tensor([0.05, 0.4, 0.9])
    for name, k in (("VPSDE", 1e-2), ("subVPSDE", 1e-2), ("VESDE", 1.0)):
        sde, network = getattr(sde_lib, name)(), Formula(k)
        yield f"{name}/score", models.get_score_fn(sde, network, continuous=True)(start(), t)
        if name == "VESDE":
            continue  # whose network would have to shrink with the noise level for a sample
        ode = sampling.get_ode_sampler(sde, SHAPE, lambda x: x, device="cpu")
        yield f"{name}/x", ode(network, start())[0]


def guided_diffusion(folder: str) -> Outputs:
    r"""Samples of DDIM in ten steps, with networks that learned a variance."""

    g, respace = _imported(
        folder, "guided_diffusion.gaussian_diffusion", "guided_diffusion.respace"
    )
    for schedule in ("linear", "cosine"):
        for mean in ("EPSILON", "START_X"):
            for scaled, clip in ((False, False), (True, True)):
                diffusion = respace.SpacedDiffusion(
                    respace.space_timesteps(1000, "ddim10"),
                    betas=g.get_named_beta_schedule(schedule, 1000),
                    model_mean_type=g.ModelMeanType[mean],
                    model_var_type=g.ModelVarType.LEARNED_RANGE,
                    loss_type=g.LossType.MSE,
                    rescale_timesteps=scaled,
                )
                network = Formula(1e-2, channels=2)
                x = diffusion.ddim_sample_loop(
                    network,
                    SHAPE,
                    noise=start(),
                    clip_denoised=clip,
                    model_kwargs={"y": torch.arange(3)},
                )
                yield f"{schedule}/{mean}/{'clipped' if clip else 'free'}", x


def k_diffusion() -> Outputs:
    r"""Samples of five samplers, with the library's wrappers of noise and v networks."""

    K: Module = torchvision_stub.k_diffusion()
    signal = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    for name in ("DiscreteEpsDDPMDenoiser", "DiscreteVDDPMDenoiser"):
        denoiser = getattr(K.external, name)(Formula(1e-2), signal, quantize=False)
        sigmas = denoiser.get_sigmas(10)
        for sampler in ("euler", "heun", "dpm_2", "dpmpp_2m", "lms"):
            sample = getattr(K.sampling, f"sample_{sampler}")
            yield f"{name}/{sampler}", sample(denoiser, start() * sigmas[0], sigmas, disable=True)


def azula() -> Outputs:
    from azula.denoise import KarrasDenoiser
    from azula.noise import CosineSchedule
    from azula.sample import DDIMSampler

    denoiser = KarrasDenoiser(Formula(), CosineSchedule())
    yield "x", DDIMSampler(denoiser, steps=10, silent=True)(start())


def lucidrains() -> Outputs:
    with torchvision_stub.stand_ins():
        from denoising_diffusion_pytorch import GaussianDiffusion

    network: Any = Formula(1e-2)
    network.channels = network.out_dim = 1
    network.self_condition = network.random_or_learned_sinusoidal_cond = False
    for objective in ("pred_noise", "pred_x0", "pred_v"):
        diffusion = GaussianDiffusion(
            network, image_size=4, objective=objective, sampling_timesteps=10
        )
        yield objective, 2 * _from_start(diffusion.ddim_sample, SHAPE) - 1


def flows() -> Outputs:
    import torchdiffeq
    from flow_matching.solver import ODESolver

    network = Formula()
    grid = torch.linspace(0, 1, 11)
    yield (
        "euler",
        torchdiffeq.odeint(lambda t, x: network(x, t), start(), grid, method="euler")[-1],
    )
    yield (
        "midpoint",
        ODESolver(network).sample(x_init=start(), method="midpoint", step_size=0.1),
    )


def diffusers() -> Outputs:
    import diffusers as df

    schedulers = {
        "DDIM": df.DDIMScheduler(clip_sample=False),
        "DPM++": df.DPMSolverMultistepScheduler(
            prediction_type="v_prediction", final_sigmas_type="zero"
        ),
        "flow": df.FlowMatchEulerDiscreteScheduler(shift=3.0),
    }
    for name, scheduler in schedulers.items():
        scheduler.set_timesteps(10)
        x = start()
        for t in scheduler.timesteps:
            x = scheduler.step(Formula(1e-2)(x, t), t, x).prev_sample
        yield f"{name}/x", x
        yield f"{name}/times", scheduler.sigmas[:-1] if name == "flow" else scheduler.timesteps


def _from_start(sample: Callable[..., Tensor], *arguments: object) -> Tensor:
    r"""What a sampler that draws its own noise makes of ours."""

    drawn, torch.randn = torch.randn, lambda *_, **__: start()
    try:
        return sample(*arguments)
    finally:
        torch.randn = drawn


def _imported(folder: str, *names: str) -> list[Module]:
    r"""Modules of a repository, that are not of its neighbours of the same names."""

    sys.path.insert(0, folder)
    with torchvision_stub.stand_ins("distutils", "distutils.util", "mpi4py", "blobfile"):
        found = [__import__(name, fromlist=["_"]) for name in names]
    sys.path.remove(folder)
    return found


def main(edm_folder: str, score_sde_folder: str, guided_folder: str) -> None:
    torch.set_grad_enabled(False)
    made = {
        "edm": edm(edm_folder),
        "score_sde": score_sde(score_sde_folder),
        "guided_diffusion": guided_diffusion(guided_folder),
        "k_diffusion": k_diffusion(),
        "azula": azula(),
        "lucidrains": lucidrains(),
        "flows": flows(),
        "diffusers": diffusers(),
    }
    found = {f"{name}/{key}": x.numpy() for name, all_ in made.items() for key, x in all_}
    np.savez_compressed(Path(__file__).parent.parent / "data" / "sources.npz", **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
