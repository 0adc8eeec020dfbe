r"""A pipeline of diffusers before and after: its own schedulers against a plan that `ss.tune` put into it.

A `DDPMPipeline` of digits is trained here with diffusers alone and saved as a folder. Then the five lines of the
README: load the folder, check the score, tune a plan for a budget of calls, put it back as the scheduler. The error
is that of images to the exact probability flow from the same noise, on seeds that chose nothing.

    python -m benchmarks.pipeline [FOLDER]
"""

import inspect
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

import scoresde as ss
from scoresde.adapters.diffusers_scheduler import ScoreSDEScheduler
from scoresde.comparing.reference import rms
from scoresde.metrics import energy_distance
from scoresde.training.digits_data import digits

from .report import save

FOLDER = Path("build/digits_pipeline")
STEPS, BATCH, RATE, DECAY = 3000, 64, 2e-3, 0.998
BUDGET, SAMPLES = 8, 128
SEEDS = (11, 12)
STOCK = {  # class: what is set beside the pipeline's config, at its best
    "DDIMScheduler": {"clip_sample": False},
    "DPMSolverMultistepScheduler": {"final_sigmas_type": "zero"},
    "DPMSolverSinglestepScheduler": {"final_sigmas_type": "zero"},
    "UniPCMultistepScheduler": {"final_sigmas_type": "zero"},
    "DEISMultistepScheduler": {"final_sigmas_type": "zero"},
    "EulerDiscreteScheduler": {},
    "HeunDiscreteScheduler": {},
    "LMSDiscreteScheduler": {},
}
GRIDS: dict[str, dict[str, Any]] = {
    "leading": {"timestep_spacing": "leading"},
    "trailing": {"timestep_spacing": "trailing"},
    "linspace": {"timestep_spacing": "linspace"},
    "karras": {"use_karras_sigmas": True},
    "lu": {"use_lu_lambdas": True},
}


def network() -> diffusers.UNet2DModel:
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(24, 48),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )


def train(folder: Path) -> None:
    r"""Trains a pipeline on digits as its tutorial does, with an average of the weights, and saves it."""

    torch.manual_seed(0)
    scheduler = diffusers.DDPMScheduler(clip_sample=False)
    trained, mean = network(), network()
    mean.load_state_dict(trained.state_dict())
    images = digits("train").images
    optimizer = torch.optim.AdamW(trained.parameters(), lr=RATE, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        x = images[torch.randint(len(images), (BATCH,))]
        t = torch.randint(scheduler.config["num_train_timesteps"], (BATCH,))
        noise = torch.randn_like(x)
        loss = (trained(scheduler.add_noise(x, noise, t), t).sample - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        decay.step()
        with torch.no_grad():
            for kept, new in zip(mean.parameters(), trained.parameters(), strict=True):
                kept.lerp_(new, 1 - min(DECAY, (1 + step) / (10 + step)))
    diffusers.DDPMPipeline(mean.eval(), scheduler).save_pretrained(folder)


def start(model: ss.ScoreModel, seed: int) -> Tensor:
    return model.process.prior_sample((SAMPLES, 1, 8, 8), seed=seed, dtype=torch.float32)


@torch.no_grad()
def loop(network: torch.nn.Module, scheduler: Any, steps: int, z: Tensor) -> tuple[Tensor, int]:
    r"""The images of a scheduler from given noise, as a pipeline's loop makes them, and the network calls."""

    scheduler.set_timesteps(steps)
    x = z * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        F = network(scheduler.scale_model_input(x, t), t).sample
        x = scheduler.step(F, t, x).prev_sample
    return x, len(scheduler.timesteps)


def stock(network: torch.nn.Module, config: Any) -> Iterator[tuple[str, Any, int]]:
    r"""The schedulers of diffusers on their grids, with the steps that fit into the budget of calls."""

    for name, settings in STOCK.items():
        kind = getattr(diffusers, name)
        known = inspect.signature(kind).parameters
        for words, grid in GRIDS.items():
            if grid.keys() <= known.keys():
                steps = (BUDGET + 1) // 2 if name == "HeunDiscreteScheduler" else BUDGET
                yield f"{name}, {words}", kind.from_config(config, **settings, **grid), steps


def measure(folder: Path) -> list[dict]:
    model = ss.from_diffusers(folder)
    pipe = diffusers.DDPMPipeline.from_pretrained(folder, local_files_only=True)
    held_out = digits("test").images
    print(ss.check_score(model, held_out))
    plan = ss.tune(model, BUDGET, samples=48, held_out=64, progress=False)
    plain = replace(plan, model="")
    ours = ScoreSDEScheduler.from_config(pipe.scheduler, plan=plain)
    entries = [*stock(pipe.unet, pipe.scheduler.config)]
    entries.append((f"ss.tune: {plan}", ours, len(plan.noise_levels or ())))
    starts = [start(model, seed) for seed in SEEDS]
    truths = [ss.decode(model, z, rtol=1e-5, atol=1e-5).x for z in starts]
    rows = []
    for name, scheduler, steps in entries:
        found = [loop(pipe.unet, scheduler, steps, z) for z in starts]
        errors = torch.cat([rms(x, y) for (x, _), y in zip(found, truths, strict=True)])
        rows.append(
            {
                "scheduler": name,
                "calls": found[0][1],
                "error": errors.mean().item(),
                "stderr": (errors.std() / len(errors) ** 0.5).item(),
                "energy distance x 1000": 1e3 * energy_distance(found[0][0], held_out),
            }
        )
    return sorted(rows, key=lambda row: row["error"])


def main() -> None:
    torch.set_num_threads(2)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    if not folder.exists():
        train(folder)
    save("pipeline", measure(folder), seeds=SEEDS, steps_of_training=STEPS)


if __name__ == "__main__":
    main()
