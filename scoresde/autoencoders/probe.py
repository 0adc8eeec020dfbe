r"""Linear probes: how well a linear classifier reads the class from each layer, against the noise level."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import Array, as_tensor, is_number

from ..doors.amounts import positive
from ..doors.data import as_data, as_seed
from ..doors.tables import html_table
from ..models.conditions import Condition, verb
from ..models.score_model import ScoreModel
from ..models.transforms import Data
from .features import Pool, check_layers, network_of, pool_of, representation, time_of

LEAST = 2  # samples of each class, one on either side of the split


@dataclass(frozen=True)
class Probe:
    r"""The accuracy of linear classifiers on held-out samples, by noise level and layer.

    Arguments:
        levels: The noise levels, in units of the data.
        layers: The names of the layers.
        accuracy: The share of held-out samples that are classified rightly, with shape (levels, layers).
        count: The number of held-out samples.
        chance: The share of the most frequent class among them.

    Examples:
        >>> found = ss.autoencoders.Probe((0.1, 1.0), ("middle",), torch.tensor([[0.9], [0.5]]), 100, 0.1)
        >>> found.best
        (0.1, 'middle')
        >>> found
        Probe(1 layers at 2 noise levels; best 0.9 +- 0.03 in 'middle' at 0.1, chance 0.1)
    """

    levels: tuple[float, ...]
    layers: tuple[str, ...]
    accuracy: Tensor
    count: int
    chance: float

    @property
    def stderr(self) -> Tensor:
        r"""The standard error of the accuracy due to the number of held-out samples."""

        return (self.accuracy * (1 - self.accuracy) / self.count).sqrt()

    @property
    def best(self) -> tuple[float, str]:
        r"""The noise level and the layer of the highest accuracy."""

        level, layer = divmod(int(self.accuracy.argmax()), len(self.layers))
        return self.levels[level], self.layers[layer]

    def table(self) -> list[dict[str, Any]]:
        r"""Returns a row for each noise level, with a column for each layer."""

        return [
            {"noise level": level, **dict(zip(self.layers, row, strict=True))}
            for level, row in zip(self.levels, self.accuracy.tolist(), strict=True)
        ]

    @checked
    def plot(self, file: str | Path) -> None:
        r"""Draws the accuracy against the noise level, a curve for each layer with bands of two standard errors.

        Arguments:
            file: The file to write.
        """

        from ..plots import figures  # which asks for matplotlib

        figures.check_picture(Path(file))
        made, [axis] = figures.figure(1, 1, (6.0, 3.8))
        for layer, values, errors in zip(self.layers, self.accuracy.T, self.stderr.T, strict=True):
            [line] = axis.plot(self.levels, values.tolist(), "o-", markersize=4, label=layer)
            low, high = ((values + k * errors).clamp(0, 1).tolist() for k in (-2, 2))
            axis.fill_between(self.levels, low, high, color=line.get_color(), alpha=0.15)
        axis.axhline(self.chance, color="black", linewidth=0.8, linestyle=":", label="chance")
        axis.set_xscale("log")
        axis.set_xlabel("noise level, in units of the data")
        axis.set_ylabel("held-out accuracy of a linear classifier")
        axis.grid(alpha=0.3, linewidth=0.5)
        figures.legend(axis, below=False)
        figures.write(made, Path(file))

    def __repr__(self) -> str:
        level, layer = self.best
        at = int(self.accuracy.argmax())
        value, error = (float(t.flatten()[at]) for t in (self.accuracy, self.stderr))
        return (
            f"Probe({len(self.layers)} layers at {len(self.levels)} noise levels; best {value:.3g} +- {error:.1g} "
            f"in {layer!r} at {level:g}, chance {self.chance:.2g})"
        )

    def _repr_html_(self) -> str:
        return html_table(self.table(), repr(self))


@verb(data=("x",))
def linear_probe(
    model: ScoreModel,
    x: Data,
    classes: Array,
    *,
    levels: Sequence[float],
    layer: str | Sequence[str],
    held_out: float | Array = 0.25,
    penalty: float = 1.0,
    pool: str | Pool = "mean",
    noise: bool = True,
    seed: int = 0,
    batch_size: int = 256,
    **condition: Condition,
) -> Probe:
    r"""Returns the accuracy of a linear classifier of the features of each layer, at each noise level.

    The classifier is scikit-learn's logistic regression of standardised features. The same samples are held out
    at all levels.

    Arguments:
        model: The model of a network.
        x: Data, with shape (B, \*).
        classes: The class of each sample, a whole number, with shape (B,).
        levels: The noise levels :math:`\sigma / \alpha`, in units of the data.
        layer: The name of a layer of the network, or several.
        held_out: The share of samples on which accuracy is measured, drawn with equal shares of each class; or
            True for each of these samples, with shape (B,), such as those that the network has not seen.
        penalty: The weight of the squared coefficients, the inverse of scikit-learn's C.
        pool: As for :func:`scoresde.representation`, like `noise`.
        noise: Whether the network sees noisy data.
        seed: The seed of the noise and of the split.
        batch_size: The number of samples of a call.
        condition: The conditions of the model, such as a label that says nothing.

    Raises:
        ValueError: If there are fewer than two classes, or a class has fewer than two samples.
        ImportError: If scikit-learn is missing.

    References:
        | Denoising Diffusion Autoencoders are Unified Self-supervised Learners (Xiang et al., 2023), section 4
        | https://arxiv.org/abs/2303.09769

    Examples:
        >>> x = torch.cat([torch.full((20, 1, 8, 8), value) for value in (-0.5, 0.5)])
        >>> classes = torch.arange(2).repeat_interleave(20)
        >>> found = ss.autoencoders.linear_probe(ss.load("digits"), x, classes, levels=[0.1], layer="middle.0")
        >>> float(found.accuracy)
        1.0
    """

    names = [layer] if isinstance(layer, str) else list(layer)
    x = as_data("x", x)
    known = _classes(classes, len(x))
    if find_spec("sklearn") is None:
        raise ImportError("linear probes need scikit-learn: pip install 'scoresde[metrics]'.")
    check_layers(network_of(model), names)
    pool, penalty = pool_of(pool), positive("penalty", penalty)
    bound = model.given(**condition)
    if not levels:
        raise ValueError("levels must hold at least one noise level, but is empty.")
    for level in levels:
        time_of(bound, level)
    fitted, tested = _split(known, held_out, as_seed("seed", seed))
    truth = known.numpy()
    rows = []
    for level in levels:
        found: dict[str, Tensor] = representation(  # type: ignore[assignment]
            bound, x, noise_level=level, layer=names, pool=pool, noise=noise, seed=seed,
            batch_size=batch_size,
        )  # fmt: skip
        rows.append([_accuracy(found[n], truth, fitted, tested, penalty) for n in names])
    _, counts = np.unique(truth[tested], return_counts=True)
    accuracy = torch.tensor(rows, dtype=torch.float64)
    chance = float(counts.max() / counts.sum())
    return Probe(tuple(map(float, levels)), tuple(names), accuracy, len(tested), chance)


def _classes(classes: Array, count: int) -> Tensor:
    known = as_tensor("classes", classes).cpu()
    if known.shape != (count,) or known.is_floating_point() or known.is_complex():
        raise ValueError(
            f"classes must be {count} whole numbers, one per sample of x, but hold {known.dtype} of shape "
            f"{tuple(known.shape)}."
        )
    return known


def _split(classes: Tensor, held_out: float | Array, seed: int) -> tuple[np.ndarray, np.ndarray]:
    r"""The indices of samples for fitting, and of those held out."""

    there, counts = classes.unique(return_counts=True)
    if len(there) < LEAST:
        raise ValueError(f"classes must hold at least two classes, but are all {int(there[0])}.")
    given = held_out if is_number(held_out) else as_tensor("held_out", held_out)
    if isinstance(given, Tensor) and given.ndim:
        return _said(classes, given)
    share = positive("held_out", given, most=1.0)
    few = there[counts < LEAST]
    if len(few):
        raise ValueError(
            f"classes must have at least {LEAST} samples each, but class {int(few[0])} has one; leave it out."
        )
    tested = math.ceil(share * len(classes))
    if not len(there) <= tested <= len(classes) - len(there):
        raise ValueError(
            f"held_out={share:g} holds out {tested} of {len(classes)} samples, but each of the {len(there)} "
            "classes needs one on either side of the split."
        )
    return _drawn(classes, tested, seed)


def _said(classes: Tensor, given: Tensor) -> tuple[np.ndarray, np.ndarray]:
    r"""The same from a mask of the samples that are held out."""

    if given.dtype != torch.bool or given.shape != classes.shape:
        raise ValueError(
            f"held_out must be a share of the samples, or a Boolean for each of the {len(classes)}, but holds "
            f"{given.dtype} of shape {tuple(given.shape)}."
        )
    mask = given.cpu()
    if not bool(mask.any()) or len(classes[~mask].unique()) < LEAST:
        raise ValueError(
            f"held_out leaves {int((~mask).sum())} samples of {len(classes[~mask].unique())} classes to fit, and "
            f"{int(mask.sum())} to test; at least two classes and one sample are needed."
        )
    return (~mask).nonzero()[:, 0].numpy(), mask.nonzero()[:, 0].numpy()


def _drawn(classes: Tensor, tested: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    fitted, held = train_test_split(
        np.arange(len(classes)), test_size=tested, stratify=classes.numpy(),
        random_state=seed % 2**32,  # the largest seed of scikit-learn
    )  # fmt: skip
    return fitted, held


def _accuracy(
    features: Tensor, truth: np.ndarray, fitted: np.ndarray, tested: np.ndarray, penalty: float
) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    values = features.double().cpu().numpy()
    linear = LogisticRegression(C=1 / penalty, max_iter=2000)
    reader = make_pipeline(StandardScaler(), linear).fit(values[fitted], truth[fitted])
    return float(reader.score(values[tested], truth[tested]))
