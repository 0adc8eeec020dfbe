r"""Edits that go up to a noise level and down again: by the flow, by noise, or by the noise path.

Each takes the model of the given data, that of the edited data, the data, the time up to which it goes, and
options; it returns the solution of the way down, whose calls count both ways.
"""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor

from solvers import Solution
from solvers.noise.brownian import START, keyed_normal
from solvers.shapes import align

from ..latents import encode_noise
from ..latents.encoding import ENCODE, encode
from ..models.checks import check_data
from ..models.scale import signal
from ..models.score_model import ScoreModel
from ..runs.noise import keyed_by_rows
from ..runs.options import Keys, Options, UntimedOptions, Watching, names
from ..runs.settings import Settings
from ..runs.takes import gridded
from ..sampling import decode, return_from

RUNNING = names(Watching, "progress", "batch_size", "on_failure")
SEEDING = names(Keys, "dtype", "device")


def by_flow(
    source: ScoreModel,
    target: ScoreModel,
    x: Tensor,
    t_max: float,
    **options: Unpack[UntimedOptions],
) -> Solution:
    r"""Transports data up by the source's flow and down by the target's; what both agree on stays.

    References:
        | Dual Diffusion Implicit Bridges (Su et al., 2023), algorithm 1
        | https://arxiv.org/abs/2203.08382
    """

    up = encode(source, x, t_max=t_max, **ENCODE.with_conditions(options))
    denoise = options.get("denoise", True)
    down = return_from(target, up, options, denoise=denoise)
    down = down if denoise else in_data_units(target, down)
    return replace(down, calls=up.calls + down.calls)


def by_noise(
    source: ScoreModel,
    target: ScoreModel,
    x: Tensor,
    t_max: float,
    **options: Unpack[UntimedOptions],
) -> Solution:
    r"""Adds fresh noise to data, and removes it with the target; the source is not called.

    References:
        | SDEdit: Guided Image Synthesis and Editing (Meng et al., 2022), algorithm 1
        | https://arxiv.org/abs/2108.01073
    """

    options = {"solver": "exponential_3" if gridded(options) else "exponential", **options}
    noisy, keyed = noised(target, x, t_max, options)
    down = decode(target, noisy, t_max=t_max, **keyed)
    return down if options.get("denoise", True) else in_data_units(target, down)


def by_noise_path(
    source: ScoreModel,
    target: ScoreModel,
    x: Tensor,
    t_max: float,
    **options: Unpack[UntimedOptions],
) -> Solution:
    r"""Finds the noise with which the source would make the data, and uses it with the target.

    References:
        | CycleDiffusion (Wu and De la Torre, 2023), section 4.2
        | https://arxiv.org/abs/2210.05559
    """

    own: Options = {name: value for name, value in options.items() if name not in RUNNING}
    path = encode_noise(source, x, t_max=t_max, **own)
    running: Options = {name: value for name, value in options.items() if name in RUNNING}
    down = path.replay(target, **running)
    return replace(down, calls=path.calls + down.calls)


def with_a_seed(options: Mapping[str, object]) -> Options:
    r"""Returns options with a definite seed, drawn for `None`."""

    if options.get("seeds") is not None:
        return {**options}
    seed = options.get("seed", 0)
    return {**options, "seed": secrets.randbits(31) if seed is None else seed}


def with_said_seeds(solution: Solution, options: Mapping[str, object]) -> Solution:
    r"""Returns a solution that records the seeds of the given options, not those derived from them."""

    said = {"seed": options.get("seed", 0), "first_index": options.get("first_index", 0)}
    made = {**solution.provenance, **said, "seeds": options.get("seeds")}
    return replace(solution, provenance=made)


def noised(
    model: ScoreModel, x: Tensor, t: float, options: Mapping[str, object]
) -> tuple[Tensor, Options]:
    r"""Returns noisy data at a time, and the options of the way down.

    All noise is keyed by the values of each row, besides its seed and index, because data may have been made
    with noise of the same seed.
    """

    seeding: Options = {name: options[name] for name in SEEDING if name in options}
    settings = Settings(**seeding)
    x = check_data(model, x, "x", settings.dtype, settings.device)
    settings = keyed_by_rows(settings, x)
    z = keyed_normal(*settings.keys(torch.arange(len(x))), START, 0, x[0].numel())
    sigma = model.process.scales(torch.tensor(t, dtype=torch.float64))[1].item()
    left = {name: value for name, value in options.items() if name not in ("seed", "first_index")}
    noisy = signal(model, t) * x + sigma * z.to(x).reshape(x.shape)
    return noisy, {**left, "seeds": settings.seeds}


def in_data_units(model: ScoreModel, solution: Solution) -> Solution:
    r"""Returns a solution that ended without a denoising, in the units of the data."""

    alpha = model.process.scales(solution.times[-1])[0].to(solution.x)
    made = {**solution.provenance, "in data units": True}
    return replace(solution, x=solution.x / align(alpha, solution.x), provenance=made)
