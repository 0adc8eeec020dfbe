r"""Simulation-based inference with a small network: posteriors against the exact ones, and their calibration.

Parameters are uniform on a square of half width 2, and observations are (theta_1 + theta_2^2 / 2, theta_2) with noise of
deviation 0.5, so the exact posterior of any observations is known on a grid.

    python -m benchmarks.inference
"""

from typing import Any

import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde import guidance, inference, plots
from scoresde.training.loop import train
from solvers import SolverError

from .gallery import PICTURES
from .report import Row, save

HALF, NOISE = 2.0, 0.5
TRUTH = torch.tensor([0.8, -1.2])
STEPS, BATCH, WIDTH = 3000, 512, 96
SAMPLES, PAIRS, DRAWS = 2000, 400, 100
GRID = 401


def mean_of(theta: Tensor) -> Tensor:
    r"""The mean of the observations, with shape (B, 2)."""

    return torch.stack([theta[:, 0] + theta[:, 1] ** 2 / 2, theta[:, 1]], 1)


def simulated(count: int, seed: int, theta: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Parameters from the prior, unless they are given, and an observation of each."""

    generator = torch.Generator().manual_seed(seed)
    if theta is None:
        theta = HALF * (2 * torch.rand(count, 2, generator=generator) - 1)
    return theta, mean_of(theta) + NOISE * torch.randn(count, 2, generator=generator)


class Network(nn.Module):
    r"""A network of parameters, noise level and observation."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (5, WIDTH, WIDTH, WIDTH)
        layers = [
            part
            for a, b in zip(sizes, sizes[1:], strict=False)
            for part in (nn.Linear(a, b), nn.SiLU())
        ]
        self.layers = nn.Sequential(*layers, nn.Linear(WIDTH, 2))

    def forward(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        return self.layers(torch.cat([x, t[:, None], observation / 2], 1))


def trained() -> ss.ScoreModel:
    r"""The posterior of one observation."""

    torch.manual_seed(0)
    network = Network()

    def wrapped(network: nn.Module) -> ss.ScoreModel:
        return ss.NetworkScore(
            network,
            ss.EDM(),
            "edm",
            conditions=["observation"],
            shape=(2,),
            data_std=HALF / 3**0.5,
        )

    def loss(step: int) -> Tensor:
        theta, x = simulated(BATCH, step + 1000)
        generator = torch.Generator().manual_seed(step)
        log_snr = (0.8 + 1.5 * torch.randn(BATCH, generator=generator)).clamp(-4, 6)
        z = torch.randn(BATCH, 2, generator=generator)
        return ss.losses.denoising(wrapped(network), theta, log_snr, z, observation=x).mean()

    *_, last = train(network, loss, steps=STEPS)
    return wrapped(last.average.requires_grad_(False))


def exact(observations: Tensor) -> Tensor:
    r"""Samples of the exact posterior of all observations, from a grid."""

    axis = HALF * (2 * (torch.arange(GRID) + 0.5) / GRID - 1)
    theta = torch.cartesian_prod(axis, axis)
    apart = (observations[:, None] - mean_of(theta)) / NOISE
    weights = torch.softmax(-apart.square().sum(2).sum(0).double() / 2, 0)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(weights, 4 * SAMPLES, replacement=True, generator=generator)
    return theta[drawn] + 2 * HALF / GRID * (torch.rand(4 * SAMPLES, 2, generator=generator) - 0.5)


def compared(
    number: int, method: str, x: Tensor, right: Tensor, calls: int, weights: Tensor | None = None
) -> Row:
    r"""Means and deviations of samples against the exact ones, the worse of two parameters."""

    w = torch.full((len(x),), 1 / len(x)) if weights is None else weights.float()
    mean = w @ x
    deviation = (w @ (x - mean).square()).sqrt()
    off = (mean - right.mean(0)).abs() / right.std(0)
    ratio = deviation / right.std(0)
    return {"observations": number, "method": method, "error of means / deviation": float(off.max()),
            "deviation / exact, lowest": float(ratio.min()), "highest": float(ratio.max()),
            "calls": calls}  # fmt: skip


def posteriors(model: ss.ScoreModel) -> list[Row]:
    r"""Posteriors of one and of several observations, and a picture."""

    prior = ss.UniformOracle([-HALF, -HALF], [HALF, HALF])
    box: dict[str, Any] = {"low": -HALF, "high": HALF}
    rows, groups = [], {}
    for number in (1, 5, 20):
        _, x = simulated(number, 7, TRUTH.expand(number, 2))
        right = exact(x)
        composed = inference.iid(model, prior, draws=500, observation=x)
        try:
            d = inference.draw(composed, SAMPLES, steps=30, **box)
        except SolverError as error:
            rows.append({"observations": number, "method": "iid", "note": error.failure.kind})
            continue
        rows.append(compared(number, "iid", d.samples[0], right, 31 * composed.cost))
        if number > 1:
            models, exponents = inference.factors(model, prior, observation=x)
            naive = ss.sample(guidance.product(prior, models[1:]), SAMPLES, steps=30)
            rows.append(compared(number, "sum of scores", naive.x, right, int(naive.calls[0])))
        if number == 5:
            s = ss.weighted_sample(models, exponents, SAMPLES, steps=100)
            print(s)
            rows.append(
                compared(
                    number, "weighted_sample", s.x, right, int(s.calls[0]), s.log_weights.exp()
                )
            )
        groups[f"exact, {number}"] = right[:1000]
        groups[f"model, {number}"] = d.samples[0, :1000]
        print(number, d)
    plots.scatter(PICTURES / "inference.png", groups, across=4)
    return rows


def calibration(model: ss.ScoreModel) -> list[Row]:
    r"""Ranks and coverage of the model, and of samples with other deviations, and pictures."""

    theta, x = simulated(PAIRS, 99)
    samples = inference.draw(model, DRAWS, low=-HALF, high=HALF, steps=30, observation=x).samples
    rows = []
    for factor in (1.0, 0.7, 1.5):
        mean = samples.mean(1, keepdim=True)
        some = mean + factor * (samples - mean)
        ranks, coverage = inference.sbc(some, theta), inference.tarp(some, theta)
        print(ranks, coverage)
        if factor == 1:
            ranks.plot(PICTURES / "inference_ranks.png")
            coverage.plot(PICTURES / "inference_coverage.png")
        said = "; ".join(ranks.findings + coverage.findings)
        p = [*ranks.p_values.tolist(), float(coverage.p_values)]
        rows.append({"deviation x": factor, "p, ranks of entry 0": p[0], "p, ranks of entry 1": p[1],
                     "p, coverage": p[2], "passes": not said})  # fmt: skip
    return rows


def pictures() -> list[Row]:
    r"""Draws posteriors, ranks and coverage, and returns what they were compared with."""

    model = trained()
    return [*posteriors(model), *calibration(model)]


def main() -> None:
    torch.set_num_threads(1)
    save("inference", pictures(), steps=STEPS, samples=SAMPLES)


if __name__ == "__main__":
    main()
