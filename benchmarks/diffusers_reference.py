r"""Writes what diffusers' schedulers return on the exact digits, to test ours against.

The network is exact at the scheduler's own noise level, so what differs is arithmetic alone: their
noise levels are float32. States are those of VP; the grid, its start and the noise of each call are kept.

    python -m benchmarks.diffusers_reference
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import scoresde as ss

from . import testbed

FILE = Path(__file__).parent.parent / "tests" / "data" / "diffusers.npz"
STEPS, COUNT = 9, 4
MULTISTEP = {"final_sigmas_type": "sigma_min", "lower_order_final": False}
CASES: dict[str, tuple[str, dict]] = {
    **{f"unipc_{k}_{b}": ("UniPCMultistepScheduler", {"solver_order": k, "solver_type": b, **MULTISTEP})
       for k in (1, 2, 3) for b in ("bh1", "bh2")},
    **{f"deis_{k}": ("DEISMultistepScheduler", {"solver_order": k, "lower_order_final": False})
       for k in (1, 2, 3)},
    **{f"dpmpp_2m_{kind}": ("DPMSolverMultistepScheduler",
                            {"solver_order": 2, "solver_type": kind, **MULTISTEP})
       for kind in ("midpoint", "heun")},
    "dpmpp_3m": ("DPMSolverMultistepScheduler", {"solver_order": 3, **MULTISTEP}),
    "dpm_2m": ("DPMSolverMultistepScheduler",
               {"solver_order": 2, "algorithm_type": "dpmsolver", **MULTISTEP}),
    **{f"sa_{p}_{c}": ("SASolverScheduler",
                       {"predictor_order": p, "corrector_order": c, "tau_func": lambda t: 1.0,
                        "lower_order_final": False})
       for p, c in ((1, 2), (2, 3), (3, 4))},
}  # fmt: skip


def run(name: str, settings: dict, X: Tensor) -> dict[str, Tensor]:
    import diffusers

    oracle = testbed.exact_digits(ss.VE(ss.Karras(0.001, 200.0)))
    scheduler = getattr(diffusers, name)(
        beta_schedule="linear", prediction_type="sample", timestep_spacing="linspace", **settings
    )
    scheduler.set_timesteps(STEPS)
    sigmas = scheduler.sigmas.double()
    if name != "UniPCMultistepScheduler" and "final_sigmas_type" not in settings:
        sigmas = sigmas.clamp(min=0.002)
    alphas = 1 / (1 + sigmas**2).sqrt()
    x = X * sigmas[0] / testbed.SIGMA_MAX * alphas[0]
    draw = torch.Generator().manual_seed(0)
    for i, t in enumerate(scheduler.timesteps):
        D = oracle.denoise(x / alphas[i], sigmas[i])
        extra = {"generator": draw} if name == "SASolverScheduler" else {}
        x = scheduler.step(D, t, x, return_dict=False, **extra)[0]
    return {"sigmas": sigmas, "x": x / alphas[-1]}


def main() -> None:
    X = testbed.start(COUNT)
    draw = torch.Generator().manual_seed(0)
    noise = torch.stack(
        [torch.randn(X.shape, generator=draw, dtype=X.dtype) for _ in range(STEPS)]
    )
    kept = {"start": X, "noise": noise}
    for case, (name, settings) in CASES.items():
        kept.update({f"{case}/{key}": value for key, value in run(name, settings, X).items()})
    np.savez_compressed(FILE, **{name: value.numpy() for name, value in kept.items()})
    print(f"wrote {FILE}")


if __name__ == "__main__":
    main()
