r"""Samples under processes on blocks of the state against the exact flow, by solver and calls.

python -m benchmarks.matrices
"""

import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.processes.process import Process

from .report import Row, save

COUNT, FINE, CALLS = 64, 400, (10, 20, 40, 80)
SHAPE = (1, 4, 4)
SOLVERS = (
    "ddim",
    "exponential_2",
    "exponential_3",
    "dpmpp_2m",
    "unipc",
    "deis_2",
    "heun",
    "torchdiffeq/rk4",
)


def turning(t: Tensor) -> Tensor:
    r"""Rates that do not commute at different times."""

    rows = [[-1 - t, 3 * torch.cos(5 * t)], [-(t**2), -2 * torch.ones_like(t)]]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def processes() -> dict[str, Process]:
    correlated = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    return {
        "VP": ss.VP(),
        "CLD": ss.CLD(),
        "correlated noise": ss.CorrelatedNoise(ss.VP(), correlated),
        "blurring": ss.Blurring(SHAPE, blur=2.0),
        "matrices that do not commute": ss.MatrixProcess(
            turning, 2**0.5 * torch.eye(2, dtype=torch.float64), t_max=4.0
        ),
    }


def mixture(process: Process) -> ss.MixtureOracle:
    r"""Three modes of points, or of images that vary smoothly."""

    if not isinstance(process, ss.Blurring):
        means = torch.tensor([[-1.0, 0.3], [0.8, 0.8], [0.4, -1.0]], dtype=torch.float64)
        return ss.MixtureOracle(means, 0.2, process=process)
    i = torch.arange(4, dtype=torch.float64)
    waves = [torch.outer(torch.cos(0.7 * k * i), torch.sin(0.5 * i + k)) for k in range(3)]
    return ss.MixtureOracle(torch.stack(waves)[:, None], 0.1, process=process)


def errors(name: str, process: Process) -> list[Row]:
    model = mixture(process)
    shape = (COUNT, *(model.shape or ()))
    z = process.prior_sample(shape, dtype=torch.float64)
    options = {"grid": "log_snr", "seed": 0}
    exact = ss.decode(model, z, solver="exponential_4", steps=FINE, **options).x
    rows = []
    for solver in SOLVERS:
        row: Row = {"process": name, "solver": solver}
        for calls in CALLS:
            steps = (calls - 1) // solvers.get(solver).can.calls_per_step
            x = ss.decode(model, z, solver=solver, steps=steps, **options).x
            row[f"{calls} calls"] = float((x - exact).square().mean().sqrt())
        rows.append(row)
    return rows


def main() -> None:
    torch.set_num_threads(1)
    rows = [row for name, process in processes().items() for row in errors(name, process)]
    save("matrices", rows, samples=COUNT, reference=f"exponential_4 in {FINE} steps")


if __name__ == "__main__":
    main()
