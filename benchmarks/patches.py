r"""The model of 16 x 16 patches of photographs: its error, and which frequencies it decides at which noise level.

It is trained in `runs/patches` by `scoresde train patches`, unless it is there.

python -m benchmarks.patches
"""

from pathlib import Path

import torch

import scoresde as ss
from scoresde import geometry, plots, spectra
from scoresde.training.patches import run
from scoresde.training.patches_data import patches

from .gallery import PICTURES
from .report import save

FOLDER, CARD = Path("runs/patches"), "patches.json"
COUNT, FOLLOWED, STEPS, SHOWN = 1000, 256, 20, 32
ERROR = "squared error over that of the best linear denoiser"


def picture() -> tuple[ss.ScoreModel, spectra.Decided, geometry.Trajectory]:
    r"""Which frequencies are decided when, and patches beside samples; returns what they show."""

    model = ss.load(FOLDER / CARD if (FOLDER / CARD).exists() else run(FOLDER)[0])
    x = patches(COUNT, "test", seed=2)
    found = spectra.decided(model, x)
    plots.decided(PICTURES / "patches_decided.png", found)
    way = geometry.follow(model, FOLLOWED, solver="exponential_2", steps=STEPS)
    plots.images(PICTURES / "patches.png", torch.cat([x[:SHOWN], way.guided[-1, :SHOWN]]))
    return model, found, way


def main() -> None:
    torch.set_num_threads(1)
    model, found, way = picture()
    own, settled = spectra.coarse_to_fine(way)
    rows = [{"table": "errors", "noise level": float(name.removeprefix("noise level ")), ERROR: value}
            for name, value in model.card["metrics"][ERROR].items()]  # fmt: skip
    columns = zip(
        found.data.frequencies, found.data.power, own.power[-1], found.halves, settled, strict=True
    )
    rows += [
        {"table": "rings", "frequency": float(f), "power of held-out patches": float(p), "of samples": float(q),
         "root of the power": float(p.sqrt()), "half decided at": float(half), "half drawn at": float(drawn)}
        for f, p, q, half, drawn in columns
    ]  # fmt: skip
    _, exponent = spectra.power_law(found.data)
    save("patches", rows, training=model.card["training"]["command"], patches=COUNT, samples=FOLLOWED,
         exponent=round(exponent, 2))  # fmt: skip


if __name__ == "__main__":
    main()
