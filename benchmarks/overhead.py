r"""What a step costs beside the network: our loops against loops written by hand.

States of shape (16, 3, 32, 32) in float32, and a network that returns its input. Times are medians over
repeats that take turns, so that what else the machine does falls on all alike; a ratio is the median of those
of neighbouring runs.
"""

import contextlib
import io
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import scoresde as ss
from solvers import Increments, Path

from .report import save

STEPS, COUNTS, REPEATS = 100, (1, 20, 100, 400), 25
SHAPE = (16, 3, 32, 32)
PROCESS = ss.EDM()


class Terminal(io.StringIO):
    r"""Takes what progress bars write, as a terminal does."""

    def isatty(self) -> bool:
        return True


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


def ours(solver: str, **options: object) -> Callable[[Tensor, list[float]], Tensor]:
    model = ss.NetworkScore(free, PROCESS, "data")

    def run(x: Tensor, sigmas: list[float]) -> Tensor:
        times = torch.tensor(sigmas, dtype=torch.float64)
        return ss.decode(model, x, solver=solver, times=times, denoise=False, **options).x

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
    "DPM++ 2M": {
        "hand": hand_2m, "scoresde dpmpp_2m": ours("dpmpp_2m"),
        "scoresde dpmpp_2m, progress": ours("dpmpp_2m", progress=True),
        "scoresde unipc": ours("unipc"), "scoresde ipndm_4": ours("ipndm_4"),
    },
    "Euler-Maruyama": {
        "hand": hand_em, "scoresde em": ours("em"), "scoresde em, one path": ours("em", noise="path"),
        "scoresde torchsde/euler": ours("torchsde/euler"), "scoresde torchsde/srk": ours("torchsde/srk"),
    },
}  # fmt: skip


def noise() -> dict[str, Callable[[Tensor, list[float]], Tensor]]:
    r"""The noise alone: fresh, keyed by the step, and of one path in log-SNR."""

    def motion(kind: type[Increments] | type[Path]) -> Callable[[Tensor, list[float]], Tensor]:
        def run(x: Tensor, sigmas: list[float]) -> Tensor:
            keyed, times = kind(0, torch.arange(len(x)), x), -torch.tensor(sigmas).double().log()
            for i in range(len(times) - 1):
                w = keyed.increment(i, times[i], times[i + 1])
            return w

        return run

    def fresh(x: Tensor, sigmas: list[float]) -> Tensor:
        for _ in sigmas[1:]:
            w = torch.randn_like(x)
        return w

    return {"hand": fresh, "increments": motion(Increments), "path": motion(Path)}


def end_to_end() -> dict[str, Callable[[Tensor, list[float]], Tensor]]:
    r"""The digits U-Net: its calls alone, and sampling with it, progress and checks on."""

    model = ss.load("digits")

    def network(x: Tensor, sigmas: list[float]) -> Tensor:
        y, t = torch.randn(64, 1, 8, 8), torch.zeros(64)
        for _ in sigmas:
            D = model.network(y, t)
        return D

    def sampling(x: Tensor, sigmas: list[float]) -> Tensor:
        return ss.sample(model, 64, steps=len(sigmas) - 1, progress=True).x

    return {"hand": network, "scoresde dpmpp_2m": sampling}


def smallest() -> dict[str, Callable[[Tensor, list[float]], Tensor]]:
    r"""A run of one step and the last denoising on two numbers."""

    model = ss.NetworkScore(free, PROCESS, "data", shape=(2,))

    def hand(x: Tensor, sigmas: list[float]) -> Tensor:
        return free(hand_2m(80 * torch.randn(1, 2), sigmas), torch.full((1,), sigmas[-1]))

    def sampling(x: Tensor, sigmas: list[float]) -> Tensor:
        return ss.sample(model, 1, solver="dpmpp_2m", steps=1, seed=0).x

    return {"hand": hand, "scoresde dpmpp_2m": sampling}


def compare(
    family: str, runs: dict[str, Callable[[Tensor, list[float]], Tensor]], steps: int
) -> list[dict]:
    x, sigmas = torch.randn(SHAPE), karras(steps)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(REPEATS + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run(x, sigmas)
            if repeat:  # the first warms up
                times[name].append((time.perf_counter() - start) * 1e3)
    return [
        {"method": family, "loop": name, "steps": steps, "ms": statistics.median(values),
         "ms per step": statistics.median(values) / steps,
         "ratio": statistics.median(a / b for a, b in zip(values, times["hand"], strict=True))}
        for name, values in times.items()
    ]  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    with torch.no_grad(), contextlib.redirect_stderr(Terminal()):
        for family, runs in CASES.items():
            for steps in COUNTS if family == "DPM++ 2M" else (STEPS,):
                rows += compare(family, runs, steps)
        rows += compare("one step on two numbers", smallest(), 1)
        rows += compare("Noise", noise(), STEPS)
        rows += compare("digits U-Net, 64 samples", end_to_end(), 20)
    save("overhead", rows, shape=SHAPE, steps=STEPS)


if __name__ == "__main__":
    main()
