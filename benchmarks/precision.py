r"""Half precision and compilation of the embedded network: what they do to samples, and what they save.

Errors are mean distances of samples from the exact flow of the network in float32, for states in float32 and in
float64. Times are medians over repeats that take turns, for 20 steps and 64 samples; those of a step's arithmetic
alone are for the states of `benchmarks.overhead`.

    python -m benchmarks.precision
"""

import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import scoresde as ss
from scoresde.comparing.reference import flow_reference, rms

from .overhead import SHAPE
from .report import save

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
STEPS, COUNT, REPEATS = (5, 10, 20, 40, 80), 32, 7


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def errors() -> list[dict]:
    model = ss.load("digits")
    exact = flow_reference(model, (COUNT, 1, 8, 8), 0, 1e-6, {}).x
    rows = []
    for network in DTYPES:
        made = copy.deepcopy(model)
        made.network.to(network)
        for state in (torch.float32, torch.float64):
            for steps in STEPS:
                x = ss.sample(made, COUNT, solver="dpmpp_2m", steps=steps, dtype=state, seed=0).x
                rows.append({"network": name(network), "state": name(state), "calls": steps + 1,
                             "error": rms(x, exact).mean().item()})  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def sampling(model: ss.ScoreModel) -> Callable[[], Tensor]:
    return lambda: ss.sample(model, 64, solver="dpmpp_2m", steps=20, seed=0).x


def arithmetic(step: Callable[..., Tensor]) -> Callable[[], Tensor]:
    x, D, old = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    decay, new, before = (torch.tensor(value) for value in (0.7, 0.4, -0.1))

    def run() -> Tensor:
        y = x
        for _ in range(100):
            y = step(y, D, old, decay, new, before)
        return y

    return run


def eager(x: Tensor, D: Tensor, old: Tensor, decay: Tensor, new: Tensor, before: Tensor) -> Tensor:
    return (x * decay).addcmul_(D, new).addcmul_(old, before)


def compiled() -> list[dict]:
    r"""The time and the samples of what is compiled, beside those of what is not."""

    model, fast, half = ss.load("digits"), ss.load("digits"), ss.load("digits")
    fast.network = torch.compile(fast.network)
    half.network.to(torch.bfloat16)
    cases = {
        "the network, 20 steps": {"as it is": sampling(model), "compiled": sampling(fast),
                                  "bfloat16": sampling(half)},
        "the arithmetic of 100 steps": {"as it is": arithmetic(eager), "compiled": arithmetic(torch.compile(eager))},
    }  # fmt: skip
    rows = []
    for case, runs in cases.items():
        first = {way: run() for way, run in runs.items()}
        times: dict[str, list[float]] = {way: [] for way in runs}
        for _ in range(REPEATS):
            for way, run in runs.items():
                start = time.perf_counter()
                run()
                times[way].append(time.perf_counter() - start)
        for way, values in times.items():
            ratio = statistics.median(
                a / b for a, b in zip(values, times["as it is"], strict=True)
            )
            off = rms(first[way], first["as it is"]).max().item()
            rows.append({"case": case, "way": way, "ms": 1e3 * statistics.median(values), "ratio": ratio,
                         "largest difference of a sample": off})  # fmt: skip
    return rows


def main() -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        save("precision", [*compiled(), *errors()], samples=COUNT)


if __name__ == "__main__":
    main()
