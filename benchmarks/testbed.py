r"""The exact digits: real data under a kernel, of which the flow is known to any accuracy."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor

import scoresde as ss

WIDTH, SIGMA_MIN, SIGMA_MAX = 0.1, 0.002, 80.0
PROCESSES: dict[str, ss.Process] = {
    "VP": ss.VP(),
    "VP cosine": ss.VP(ss.Cosine()),
    "sub-VP": ss.SubVP(),
    "VE": ss.VE(ss.Geometric(0.01, 100.0)),
    "EDM": ss.EDM(),
    "interpolant": ss.Interpolant(),
}


def exact_digits(process: ss.Process, dtype: torch.dtype = torch.float64) -> ss.KernelOracle:
    data = torch.from_numpy(load_digits().data).to(dtype) / 8 - 1
    return ss.KernelOracle(data, WIDTH, process)


def measured(model: ss.ScoreModel, data: Tensor) -> ss.ScoreModel:
    r"""Returns the model with its statistics by noise level."""

    model.moments = ss.statistics(model, data)
    return model


def start(count: int) -> Tensor:
    return ss.EDM().prior_sample((count, 64), seed=0, dtype=torch.float64)


def truth(z: Tensor) -> Tensor:
    r"""Where the flow carries states at sigma 80 to 0.002, to 1e-10."""

    oracle = exact_digits(ss.EDM())
    options = {"t_min": SIGMA_MIN, "denoise": False, "rtol": 1e-10, "atol": 1e-11}
    return ss.decode(oracle, z, solver="dopri5", **options).x


def diffusers_edm(
    name: str, model: ss.ScoreModel, z: Tensor, steps: int, sigma_min: float
) -> Tensor:
    r"""What a scheduler of diffusers makes of states at sigma 80, on its own Karras grid.

    The grid ends with sigma 0, so the last of its steps is a denoising.
    """

    import diffusers

    scheduler = getattr(diffusers, name)(sigma_min=sigma_min, sigma_max=SIGMA_MAX, sigma_data=0.5)
    scheduler.set_timesteps(steps)
    x = z * float(scheduler.sigmas[0]) / SIGMA_MAX
    for i, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[i].double()
        scheduler.scale_model_input(x, t)
        D = model.denoise(x, sigma.clamp(SIGMA_MIN, SIGMA_MAX))
        total = sigma**2 + 0.25  # what the scheduler multiplies out again
        skip, out = 0.25 / total, sigma * 0.5 / total.sqrt()
        x = scheduler.step((D - skip * x) / out, t, x).prev_sample
    return x.to(z.dtype)


def odeint(method: str, model: ss.ScoreModel, z: Tensor, steps: int, sigma_min: float) -> Tensor:
    r"""What a fixed-step method of torchdiffeq makes of them, on the Karras grid, with a denoising."""

    import torchdiffeq

    i = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    times = (SIGMA_MAX ** (1 / 7) + i * (sigma_min ** (1 / 7) - SIGMA_MAX ** (1 / 7))) ** 7
    flow = ss.probability_flow(model)
    x = torchdiffeq.odeint(lambda t, x: flow.drift(t.double(), x), z, times, method=method)[-1]
    return model.denoise(x, times[-1])
