r"""The figures of the page on choosing a solver, each a comparison on one model.

The comparisons themselves are kept as `ss.compare` writes them, in JSON: they resume where they stopped.

python -m benchmarks.choosing [families noise grids guidance]
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch

import scoresde as ss
from scoresde import plots
from scoresde.training.digits_data import digits

from . import report
from .distance import mixture

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
Curves = dict[str, list[tuple[float, float]]]


def kept(name: str) -> Path:
    return report.RESULTS / f"choosing_{name}.json"


def families() -> None:
    c = ss.compare(
        ss.load("digits"),
        ["ddim", "dpm_2", "edm_heun", "dpmpp_2m", "dpmpp_3m", "deis_3", "ipndm_4", "unipc",
         "moment_ipndm_2", "exponential", "dopri5", "torchdiffeq/rk4"],
        [5, 6, 8, 10, 15, 20, 40],
        grids=["tan"], tolerances=[0.1, 0.03, 0.01, 1e-3, 1e-4], samples=128, file=kept("families"),
    )  # fmt: skip
    c.plot(PICTURES / "choosing_families.png", "error")


def noise() -> None:
    data = torch.cat([digits(part).images for part in ("train", "test")])
    c = ss.compare(
        ss.load("digits"),
        ["dpmpp_2m", "unipc", "ancestral", "dpmpp_2m_sde", "er_sde", "em", "exponential"],
        [5, 8, 10, 20, 40, 80],
        grids=["tan"], tolerances=[0.1, 0.01], metrics=["energy"], data=data, samples=500, file=kept("noise"),
    )  # fmt: skip
    c.plot(PICTURES / "choosing_noise.png", "energy")


def grids() -> None:
    oracle = mixture()
    model = ss.MixtureOracle(oracle.means, 0.3, process=ss.VP())
    c = ss.compare(
        model, ["dpmpp_2m"], [5, 6, 8, 10, 15, 20, 40, 80], grids=["t", "rho", "log_snr", "tan", "asinh"],
        samples=256, file=kept("grids"),
    )  # fmt: skip
    c.plot(PICTURES / "choosing_grids.png", "error")


def guidance() -> None:
    model, lines = ss.load("digits"), Curves()
    label = torch.arange(128) % 10
    for scale in (1.0, 2.0, 4.0):
        guided = ss.classifier_free(model, scale, label=label)
        c = ss.compare(
            guided, ["dpmpp_2m", "exponential"], [6, 10, 16, 20, 40, 80], grids=["tan"],
            tolerances=[0.1, 0.01, 1e-3], samples=128, file=kept(f"guidance_{scale:g}"),
        )  # fmt: skip
        for point in c.points("error"):
            lines.setdefault(f"{point.row.solver}, scale {scale:g}", []).append(
                (point.calls, point.value)
            )
    plots.curves(
        PICTURES / "choosing_guidance.png",
        lines,
        "network calls per sample",
        "median error of a sample",
    )


FIGURES: dict[str, Callable[[], None]] = {
    "families": families,
    "noise": noise,
    "grids": grids,
    "guidance": guidance,
}


def main() -> None:
    torch.set_num_threads(2)
    for name in sys.argv[1:] or list(FIGURES):
        FIGURES[name]()


if __name__ == "__main__":
    main()
