r"""From data to latents and back by every method: calls, round trip, distance to the exact latents, stability.

Two models are exact: a rotated product of mixtures in 16 dimensions, of which the flow is known in closed form, and real digits
under a kernel, of which it is known to 1e-10. EDM's process, sigma 0.002 to 80; every method takes as many steps as fit into 100 network calls
on the way there, evenly in sigma^(1/7). The round trip decodes on the same grid backwards without a last denoising.

    python -m benchmarks.inversion
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

import scoresde as ss
import solvers
from solvers.catalogue import INVERTIBLE

from . import testbed
from .report import save

CALLS, COUNT = 100, 32
PLAIN = ("ddim", "heun", "dpmpp_2m", "exponential_3")
METHODS = (*PLAIN, *(str(solver) for solver in INVERTIBLE))
STEPS = (10, 30, 100, 300, 1000)
STABLE = ("ddim", "reversible_heun", "lattice_heun", "o_belm", "moment_belm", "leapfrog", "bdia", "edict",
          "rex_midpoint", "rex_noise_midpoint", "anderson_ddim")  # fmt: skip


def product(dtype: torch.dtype) -> ss.QuantileOracle:
    draw = torch.Generator().manual_seed(7)
    means = torch.randn(16, 3, generator=draw, dtype=torch.float64)
    stds = 0.05 + 0.3 * torch.rand(16, 3, generator=draw, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=draw, dtype=torch.float64))[0]
    return ss.QuantileOracle(means.to(dtype), stds.to(dtype), rotation=rotation.to(dtype))


def digits(dtype: torch.dtype) -> ss.KernelOracle:
    return testbed.exact_digits(ss.EDM(), dtype)


PROBLEMS: dict[str, Callable[[torch.dtype], ss.Oracle]] = {
    "product of mixtures, d = 16": product,
    "exact digits, d = 64": digits,
}


@functools.cache
def data(problem: str) -> tuple[Tensor, Tensor]:
    r"""Data, and its latents by the exact flow from sigma 0.002."""

    model = PROBLEMS[problem](torch.float64)
    x = model.data(COUNT, seed=3)
    if isinstance(model, ss.QuantileOracle):
        return x, model.flow(x, 0.002, 80.0)
    return x, ss.encode(model, x, t_min=0.002, solver="dopri5", rtol=1e-10, atol=1e-11).x


def trip(
    problem: str, name: str, steps: int, dtype: torch.dtype, one_state: bool = False
) -> ss.Reconstruction:
    model, x = PROBLEMS[problem](dtype), data(problem)[0].to(dtype)
    return ss.reconstruct(
        model, x, solver=name, steps=steps, t_min=0.002, one_state=one_state, on_failure="partial"
    )


def figure(problem: str, name: str, steps: int) -> dict:
    double, single = (
        trip(problem, name, steps, dtype) for dtype in (torch.float64, torch.float32)
    )
    exact = data(problem)[1]
    off = (double.latent.x - exact).square().mean(1).sqrt().mean().item() / 80
    row = {
        "problem": problem, "method": name, "steps": steps, "calls there": int(double.latent.calls.max()),
        "calls both ways": int(double.calls.max()), "round trip, float32": worst(single), "round trip, float64": worst(double),
        "distance to the exact latent": off, "std of the latents": double.latent.x.std().item() / 80,
    }  # fmt: skip
    if solvers.get(name).reversible:
        row["float64, one state kept"] = worst(
            trip(problem, name, steps, torch.float64, one_state=True)
        )
    return row


def worst(trip: ss.Reconstruction) -> float:
    return trip.max.nan_to_num(nan=float("inf")).max().item()


def steps_for(name: str) -> int:
    solver = solvers.get(name)
    return max(steps for steps in range(1, CALLS + 1) if solver.calls(steps) <= CALLS)


def main() -> None:
    torch.set_num_threads(2)
    rows = [
        {**figure(problem, name, steps_for(name)), "table": "methods"}
        for problem in PROBLEMS
        for name in METHODS
    ]
    problem = next(iter(PROBLEMS))
    rows += [
        {**figure(problem, name, steps), "table": "steps"} for name in STABLE for steps in STEPS
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    save("inversion", [{name: row.get(name) for name in names} for row in rows], samples=COUNT)


if __name__ == "__main__":
    main()
