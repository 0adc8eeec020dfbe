r"""What a linear classifier reads from the layers of the embedded digits network, against the noise level.

python -m benchmarks.probe
"""

import torch

import scoresde as ss
from scoresde import autoencoders
from scoresde.autoencoders import Probe
from scoresde.training.digits_data import digits

from . import report
from .gallery import PICTURES
from .report import save

LEVELS = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 5.0)
LAYERS = ("first", "down.1", "middle.2", "up.6")
POOL = "mean"


def pixels(x: torch.Tensor, labels: torch.Tensor, held_out: torch.Tensor) -> Probe:
    r"""Returns the same of the noisy pixels themselves, by a network that returns what it gets."""

    same = torch.nn.Sequential(torch.nn.Identity())
    network = ss.NetworkScore(lambda x, t: same(x), ss.EDM(), "data", shape=(1, 8, 8))
    found = autoencoders.layers(network)[-1]
    return autoencoders.linear_probe(
        network, x, labels, levels=LEVELS, layer=found, pool="none", held_out=held_out
    )


def picture() -> None:
    r"""The accuracy against the noise level, from what was measured."""

    rows = report.load("probe")
    layers = tuple(name for name in rows[0] if name != "noise level")
    accuracy = torch.tensor([[float(row[name]) for name in layers] for row in rows])
    labels = digits("test").labels
    chance = float(labels.bincount().max() / len(labels))
    levels = tuple(row["noise level"] for row in rows)
    Probe(levels, layers, accuracy, len(labels), chance).plot(PICTURES / "probe.png")


def main() -> None:
    torch.set_num_threads(1)
    parts = [digits(split) for split in ("train", "test")]
    x, labels = torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])
    model = ss.load("digits")  # without a label
    unseen = torch.arange(len(x)) >= len(parts[0].images)  # by the network
    probe = autoencoders.linear_probe(
        model, x, labels, levels=LEVELS, layer=LAYERS, pool=POOL, held_out=unseen
    )
    plain = pixels(x, labels, unseen)
    accuracy = torch.cat([plain.accuracy, probe.accuracy], 1)
    both = Probe(probe.levels, ("noisy pixels", *LAYERS), accuracy, probe.count, probe.chance)
    save("probe", both.table(), held_out=probe.count, pool=POOL)
    picture()


if __name__ == "__main__":
    main()
