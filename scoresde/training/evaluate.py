r"""Measurements of the digits model: likelihood, labels, novelty."""

import math

import torch
from torch import Tensor

from ..likelihood import bits_per_dim, discrete_log_likelihood
from ..metrics import energy_distance, floor, nearest
from ..models.score_model import ScoreModel
from ..sampling import sample
from .digits_data import CLASSES, LEVELS, digits

SAMPLES = 1000


def evaluate(model: ScoreModel) -> dict[str, float | list[float]]:
    r"""Returns the figures for the card, measured on held-out digits and on samples."""

    return {**held_out_bits(model), **label_agreement(model)}


def held_out_bits(model: ScoreModel) -> dict[str, float]:
    r"""Returns bits per dimension of the held-out digits, without and with their labels.

    The standard error is over images; the last figure states the error of each single image.
    """

    images, labels = digits("test")
    figures: dict[str, float] = {}
    models = {"without label": model, "with label": model.given(label=labels)}
    for name, known in models.items():
        found = discrete_log_likelihood(known, images, levels=LEVELS, probes=1, batch_size=180)
        bits = bits_per_dim(found)
        within = found.total.mean().item() / (found.dimension * math.log(2))
        figures[f"bits/dim {name}"] = round(bits.mean().item(), 4)
        figures[f"bits/dim {name}, standard error"] = round(
            bits.std().item() / len(bits) ** 0.5, 4
        )
        figures[f"bits/dim {name}, each within"] = round(within, 4)
    return figures


def label_agreement(model: ScoreModel, samples: int = SAMPLES) -> dict[str, float | list[float]]:
    r"""Returns a comparison of labelled samples with digits.

    A support vector machine, trained on the training split, decides which digits they show, and distances to the
    nearest training images show whether they are copies; both are given for held-out digits, too.
    """

    from sklearn.svm import SVC

    train, test = digits("train"), digits("test")
    classifier = SVC(C=10.0).fit(train.images.flatten(1).numpy(), train.labels.numpy())
    asked = torch.arange(samples) % CLASSES
    x = sample(model, samples, solver="dpmpp_2m", steps=20, seed=0, label=asked, batch_size=250).x

    def agreement(images: Tensor, labels: Tensor) -> float:
        said = torch.from_numpy(classifier.predict(images.flatten(1).numpy()))
        return round(float((said == labels).double().mean()), 4)

    own = nearest(test.images, train.images)
    near = nearest(x, train.images)
    mean, spread = floor(torch.cat([train.images, test.images]), len(test.images))
    return {
        "samples labelled as asked": agreement(x, asked),
        "held-out digits labelled rightly": agreement(test.images, test.labels),
        "distance to nearest training image, samples, median": round(float(near.median()), 3),
        "distance to nearest training image, held-out, median": round(float(own.median()), 3),
        "samples nearer than 1 % of held-out": round(
            float((near < own.quantile(0.01)).double().mean()), 4
        ),
        "energy distance to held-out digits": round(energy_distance(x, test.images), 4),
        "energy distance, real against real": [round(mean, 4), round(spread, 4)],
    }
