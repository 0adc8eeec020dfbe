r"""A billion samples on spot machines, on paper and by simulation: the size of shards that costs least.

A shard of s samples takes :math:`\tau = f + s c`: a fixed time, and the time of its samples. A machine that costs
p per second is taken away at the rate :math:`\lambda`, and another one needs r to come. What it was at is done
again, so a shard costs :math:`p (1 / \lambda + r) (e^{\lambda \tau} - 1)` on average, and requests to the store cost q.
Per sample, the sum is least near :math:`s c = \sqrt{2 (f + q / p) / \lambda}`.

    python -m benchmarks.scale_model

References:
    | A First Order Approximation to the Optimum Checkpoint Interval (Young, 1974)
    | https://doi.org/10.1145/361147.361115
"""

import math
from dataclasses import dataclass

import numpy as np

from .report import save

COUNT = 10**9
SIZES = (64, 256, 1024, 4096, 16_384, 65_536, 262_144)
DRAWS = 4000  # shards that are simulated for each size
BYTES = 3 * 32 * 32 * 4  # of a sample


@dataclass(frozen=True)
class Prices:
    r"""What a run is made of: seconds, and dollars."""

    sample: float = 0.02  # of a network of middle size with 20 calls, on one GPU
    fixed: float = 0.5  # to take a shard, write it and report it
    machine: float = 1.0 / 3600  # a second of a spot machine
    replacement: float = 180.0  # until another machine works, its image and model loaded
    request: float = 5e-6  # a PUT; one for the shard, and its share of the manifest
    requests: float = 2.0


def seconds(prices: Prices, size: float) -> float:
    r"""Returns the time of a shard without interruptions."""

    return prices.fixed + size * prices.sample


def expected(prices: Prices, size: float, rate: float) -> float:
    r"""Returns the expected dollars of a sample."""

    lost = (1 / rate + prices.replacement) * math.expm1(rate * seconds(prices, size))
    return (prices.machine * lost + prices.requests * prices.request) / size


def best(prices: Prices, rate: float) -> float:
    r"""Returns the size of shards that costs least, by the formula of first order."""

    fixed = prices.fixed + prices.requests * prices.request / prices.machine
    return math.sqrt(2 * fixed / (rate * (1 + rate * prices.replacement))) / prices.sample


def simulated(prices: Prices, size: int, rate: float, random: np.random.Generator) -> float:
    r"""Returns the dollars of a sample, over shards whose machines are taken away at random."""

    need, total = seconds(prices, size), 0.0
    for _ in range(DRAWS):
        while (end := random.exponential(1 / rate)) < need:
            total += end + prices.replacement
        total += need
    paid = prices.machine * total + DRAWS * prices.requests * prices.request
    return paid / (DRAWS * size)


def straggling(prices: Prices, size: int, workers: int, random: np.random.Generator) -> float:
    r"""Returns the share of the machines' time that is spent waiting for the last shards.

    One machine in fifty is five times slower, and idle machines are kept until the end.
    """

    slow = np.where(random.random(workers) < 0.02, 5.0, 1.0)
    shards = max(workers, math.ceil(COUNT / size))
    speed = 1 / (slow * seconds(prices, size))
    even = shards / speed.sum()  # if work could be cut anywhere
    done = np.floor(speed * even)
    ends = done / speed
    for _ in range(int(shards - done.sum())):  # each goes to the machine that is free first
        k = int(ends.argmin())
        ends[k] += 1 / speed[k]
    return float(1 - even / ends.max())


def row(prices: Prices, hours: float, size: int, random: np.random.Generator) -> dict[str, object]:
    rate = 1 / (3600 * hours)
    shards = math.ceil(COUNT / size)
    lowest = prices.machine * prices.sample
    drawn = expected(prices, size, rate) < 5 * lowest  # what is not hopeless
    return {
        "hours between interruptions": hours,
        "samples of a shard": size,
        "minutes of a shard": seconds(prices, size) / 60,
        "dollars, on paper": COUNT * expected(prices, size, rate),
        "dollars, simulated": COUNT * simulated(prices, size, rate, random) if drawn else None,
        "over the least possible": expected(prices, size, rate) / lowest,
        "waiting of 1000 machines at the end": straggling(prices, size, 1000, random),
        "files": shards,
        "MiB of a file": size * BYTES / 2**20,
        "requests": int(prices.requests * shards),
    }


def main() -> None:
    prices, random = Prices(), np.random.default_rng(0)
    rows = [row(prices, hours, size, random) for hours in (0.5, 4.0, 24.0) for size in SIZES]
    rows += [
        row(prices, hours, round(best(prices, 1 / (3600 * hours))), random)
        for hours in (0.5, 4.0, 24.0)
    ]
    save("scale_model", rows)


if __name__ == "__main__":
    main()
