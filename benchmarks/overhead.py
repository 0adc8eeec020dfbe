r"""What a step costs beside the network: our loops against loops written by hand.

States of shape (16, 3, 32, 32) in float32, and a network that returns its input. Times are medians over
repeats that take turns, so that what else the machine does falls on all alike.
"""

import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import scoresde as ss

from .report import save

STEPS, REPEATS = 100, 15
SHAPE = (16, 3, 32, 32)
PROCESS = ss.EDM()


def free(x: Tensor, t: Tensor) -> Tensor:
    return x


def karras(steps: int) -> list[float]:
    i = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return ((80 ** (1 / 7) + i * (0.01 ** (1 / 7) - 80 ** (1 / 7))) ** 7).tolist()


def hand_euler(x: Tensor, sigmas: list[float]) -> Tensor:
    ones = x.new_ones(len(x))
    for s, s1 in zip(sigmas[:-1], sigmas[1:], strict=True):
        d = (x - free(x, s * ones)) / s
        x = x + (s1 - s) * d
    return x


def hand_2m(x: Tensor, sigmas: list[float]) -> Tensor:
    ones, old, h_old = x.new_ones(len(x)), None, 0.0
    for s, s1 in zip(sigmas[:-1], sigmas[1:], strict=True):
        D, h = free(x, s * ones), math.log(s / s1)
        mix = D if old is None else (1 + h / (2 * h_old)) * D - h / (2 * h_old) * old
        x = (s1 / s) * x - math.expm1(-h) * mix
        old, h_old = D, h
    return x


def hand_em(x: Tensor, sigmas: list[float]) -> Tensor:
    ones = x.new_ones(len(x))
    for s, s1 in zip(sigmas[:-1], sigmas[1:], strict=True):
        d = (x - free(x, s * ones)) / s
        x = x + 2 * (s1 - s) * d + math.sqrt(2 * s * (s - s1)) * torch.randn_like(x)
    return x


def ours(solver: str) -> Callable[[Tensor, list[float]], Tensor]:
    model = ss.NetworkScore(free, PROCESS, "data")

    def run(x: Tensor, sigmas: list[float]) -> Tensor:
        times = torch.tensor(sigmas, dtype=torch.float64)
        return ss.decode(model, x, solver=solver, times=times, denoise=False).x

    return run


def odeint(x: Tensor, sigmas: list[float]) -> Tensor:
    import torchdiffeq

    ones = x.new_ones(len(x))
    times = torch.tensor(sigmas)
    return torchdiffeq.odeint(lambda t, x: (x - free(x, t * ones)) / t, x, times, method="euler")[
        -1
    ]


CASES: dict[str, dict[str, Callable[[Tensor, list[float]], Tensor]]] = {
    "Euler": {
        "hand": hand_euler, "scoresde euler": ours("euler"), "torchdiffeq directly": odeint,
        "scoresde torchdiffeq/euler": ours("torchdiffeq/euler"),
    },
    "DPM++ 2M": {"hand": hand_2m, "scoresde dpmpp_2m": ours("dpmpp_2m")},
    "Euler-Maruyama": {
        "hand": hand_em, "scoresde em": ours("em"), "scoresde torchsde/euler": ours("torchsde/euler"),
        "scoresde torchsde/srk": ours("torchsde/srk"),
    },
}  # fmt: skip


def main() -> None:
    torch.set_num_threads(2)
    x, sigmas, rows = torch.randn(SHAPE), karras(STEPS), []
    with torch.no_grad():
        for family, runs in CASES.items():
            times: dict[str, list[float]] = {name: [] for name in runs}
            for repeat in range(REPEATS + 1):
                for name, run in runs.items():
                    start = time.perf_counter()
                    run(x, sigmas)
                    if repeat:  # the first warms up
                        times[name].append((time.perf_counter() - start) / STEPS * 1e3)
            base = statistics.median(times["hand"])
            for name, values in times.items():
                ms = statistics.median(values)
                rows.append(
                    {"method": family, "loop": name, "ms per step": ms, "ratio": ms / base}
                )
    save("overhead", rows, shape=SHAPE, steps=STEPS)


if __name__ == "__main__":
    main()
