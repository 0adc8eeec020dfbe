r"""The held-out digits: bits per dimension with their budget, beside other models; what is unlike
digits; and Bayes' rule as a classifier.
"""

import math

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from torch import Tensor

import scoresde as ss
from scoresde.training.digits_data import CLASSES, LEVELS, digits

from .report import save

UNLIKE, CLASSIFIED = 60, 60


def bits_of(model: ss.ScoreModel, x: Tensor, name: str, **options: object) -> dict:
    found = ss.discrete_log_likelihood(
        model, x, levels=LEVELS, probes=1, batch_size=180, **options
    )
    bits, scale = ss.bits_per_dim(found), x[0].numel() * math.log(2)
    spread = bits.std().item() / len(bits) ** 0.5
    parts = {part: value.mean().item() / scale for part, value in found.budget.items()}
    return {"what": name, "bits/dim": bits.mean().item(), "standard error": spread,
            "each within": found.total.mean().item() / scale, **parts}  # fmt: skip


def peers(train: Tensor, test: Tensor) -> list[dict]:
    r"""Density models of scikit-learn, their settings chosen by held-out parts of the training data."""

    noisy = [ss.dequantize(x, levels=LEVELS, seed=1).flatten(1).double() for x in (train, test)]
    kernel = GridSearchCV(KernelDensity(), {"bandwidth": np.geomspace(0.05, 0.5, 12)}, cv=5)
    mixture = GridSearchCV(
        GaussianMixture(covariance_type="full", random_state=0),
        {"n_components": [5, 10, 20], "reg_covar": [1e-3, 3e-3, 1e-2]}, cv=3,
    )  # fmt: skip
    rows = []
    for name, model in (("kernel density", kernel), ("Gaussian mixture", mixture)):
        best = model.fit(noisy[0].numpy()).best_estimator_
        nats = torch.from_numpy(best.score_samples(noisy[1].numpy()))
        bits = -(nats / 64 + math.log(2 / (LEVELS - 1))) / math.log(2)
        words = ", ".join(f"{key}={value:.3g}" for key, value in model.best_params_.items())
        rows.append({"what": f"scikit-learn {name} ({words})", "bits/dim": bits.mean().item(),
                     "standard error": bits.std().item() / len(bits) ** 0.5})  # fmt: skip
    return rows


def on_levels(x: Tensor) -> Tensor:
    return ((x + 1) * 8).round() / 8 - 1


def unlike(x: Tensor) -> dict[str, Tensor]:
    r"""What is not digits, on the same levels."""

    draw = torch.Generator().manual_seed(0)
    order = torch.rand(len(x), 64, generator=draw).argsort(1)
    half = on_levels((x + 1) / 2 - 1)
    return {
        "pixels shuffled": x.flatten(1).gather(1, order).reshape(x.shape),
        "inverted": -x,
        "half the contrast": half,
        "0.9 of the contrast": on_levels(0.9 * (x + 1) - 1),
        "averages of two digits": on_levels((x + x.roll(1, 0)) / 2),
        "empty images": -torch.ones_like(x),
        "uniform noise": torch.randint(0, LEVELS, x.shape, generator=draw) / 8 - 1,
    }


def classified(model: ss.ScoreModel, x: Tensor, labels: Tensor) -> list[dict]:
    rows = []
    choices = {"flow": {"probes": 1, "rtol": 1e-2, "atol": 1e-2}, "elbo": {"draws": 2}}
    for by, options in choices.items():
        logs = ss.classify(model, x, range(CLASSES), by=by, **options)
        sure, said = logs.exp().max(1)
        right = (said == labels).double()
        parts = torch.bucketize(sure, torch.linspace(0, 1, 11)[1:-1].double())
        gaps = [abs(float((sure - right)[parts == i].sum())) for i in range(10)]
        rows.append({"what": f"class by {by}, {len(x)} images", "accuracy": right.mean().item(),
                     "mean confidence": sure.mean().item(), "calibration error": sum(gaps) / len(x),
                     "nats of the right class": logs.gather(1, labels[:, None]).mean().item()})  # fmt: skip
    return rows


def main() -> None:
    torch.set_num_threads(2)
    model, train, test = ss.load("digits"), digits("train"), digits("test")
    x, normal = test.images, {"dequantization": "truncated_normal"}
    rows = [
        bits_of(model, x, "held-out digits"),
        bits_of(model, x, "held-out digits, with their labels", label=test.labels),
        bits_of(model, x, "held-out digits, truncated normal noise", **normal),
        *peers(train.images, x),
    ]
    rows += [bits_of(model, other[:UNLIKE], name) for name, other in unlike(x).items()]
    rows += classified(model, x[:CLASSIFIED], test.labels[:CLASSIFIED])
    save("digits_likelihood", rows, images=len(x), unlike=UNLIKE)


if __name__ == "__main__":
    main()
