r"""Distances between samples and data, each with its uncertainty and the floor set by finite data.

A distance is a function of samples and data that is 0, on average or at best, for samples of the same
distribution. Distances with a reference implementation are computed by that library, which is imported only when
needed: `pip install 'scoresde[metrics]'`.
"""

import importlib
import math
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType

import torch
from torch import Tensor, nn

from solvers.doors.signatures import checked
from solvers.doors.values import MOST, Array, as_whole, is_number, shown

from .doors.data import as_data, as_pair, as_state

__all__ = [
    "c2st",
    "energy_distance",
    "fid",
    "floor",
    "get",
    "kid",
    "nearest",
    "sliced_wasserstein",
    "with_error",
]

# Of samples and data; some return the distance with its standard error.
Distance = Callable[[Tensor, Tensor], float | tuple[float, float]]
PARTS = 10  # of the jackknife
SHARED = 1.25  # by which folds, which share training data, spread more than a binomial: measured
LARGEST = 1e30  # an entry whose sixth power still fits into float64, for the kernel of "kid"
FOLDS = 5  # of the cross-validation


@checked
def energy_distance(x: Array, y: Array) -> float:
    r"""Returns the unbiased energy distance between two sets of samples.

    .. math:: 2 \, \mathbb{E} |X - Y| - \mathbb{E} |X - X'| - \mathbb{E} |Y - Y'|

    It is 0 on average for samples of the same distribution, and can then be negative.

    Arguments:
        x: Samples, with shape (N, *).
        y: Samples, with shape (M, *).

    References:
        | Energy Statistics (Szekely and Rizzo, 2013), equation (5)
        | https://doi.org/10.1016/j.jspi.2013.03.018

    Examples:
        >>> from scoresde import metrics
        >>> metrics.energy_distance(torch.zeros(2, 1), torch.ones(2, 1))  # 2 - 0 - 0
        2.0
    """

    return float(energy(*_flat(x, y, at_least=2)))


def energy(x: Tensor, y: Tensor) -> Tensor:
    r"""Returns the same for samples with shapes (N, d) and (M, d), as a tensor that can be differentiated."""

    within = [torch.cdist(s, s).sum() / (len(s) * (len(s) - 1)) for s in (x, y)]
    return 2 * torch.cdist(x, y).mean() - within[0] - within[1]


@checked
def sliced_wasserstein(x: Array, y: Array, *, projections: int = 128) -> float:
    r"""Returns the sliced Wasserstein distance of order 2, over fixed random directions.

    Arguments:
        x: Samples, with shape (N, *).
        y: Samples, with shape (M, *).
        projections: The number of directions.

    References:
        | Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015), section 4
        | https://doi.org/10.1007/s10851-014-0506-3

    Examples:
        >>> from scoresde import metrics
        >>> round(metrics.sliced_wasserstein(torch.zeros(4, 1), torch.ones(4, 1)), 4)
        1.0
    """

    projections = as_whole("projections", projections, at_least=1, at_most=MOST)
    ot = _library("ot")
    x, y = (s.cpu() for s in _flat(x, y, at_least=1))
    return float(ot.sliced_wasserstein_distance(x, y, n_projections=projections, seed=0))


@checked
def c2st(x: Array, y: Array, *, trees: int = 100) -> tuple[float, float]:
    r"""Returns how much better than chance a classifier tells samples from data, and the standard error.

    It is the cross-validated accuracy of a random forest, minus 1/2: 0 is chance, and 1/2 means that every
    sample is distinguished from data.

    Arguments:
        x: Samples, with shape (N, *).
        y: Samples, with shape (M, *).
        trees: The number of trees.

    References:
        | Revisiting Classifier Two-Sample Tests (Lopez-Paz and Oquab, 2017), section 3
        | https://arxiv.org/abs/1610.06545

    Examples:
        >>> from scoresde import metrics
        >>> value, error = metrics.c2st(torch.zeros(20, 2), torch.ones(20, 2), trees=5)
        >>> round(value, 4)
        0.5
    """

    x, y = _flat(x, y, at_least=FOLDS)
    trees = as_whole("trees", trees, at_least=1, at_most=MOST)
    selection, forests = _library("sklearn.model_selection"), _library("sklearn.ensemble")
    size = min(len(x), len(y))  # equally many of both, so that a guess is right half of the time
    draw = torch.Generator().manual_seed(0)  # data may be sorted
    parts = [s[torch.randperm(len(s), generator=draw)[:size].to(s.device)] for s in (x, y)]
    both = torch.cat([part.cpu() for part in parts]).numpy()
    labels = torch.arange(2).repeat_interleave(size).numpy()
    folds = selection.StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    forest = forests.ExtraTreesClassifier(trees, random_state=0)
    right = float(selection.cross_val_score(forest, both, labels, cv=folds).mean())
    spread = math.sqrt(max(right * (1 - right), 0.25 / size) / (2 * size))
    return right - 0.5, SHARED * spread


@checked
def fid(network: nn.Module) -> Distance:
    r"""Returns the Frechet distance between features of a network, as a function of samples and data.

    Arguments:
        network: A network from samples, with shape (N, *), to features.

    References:
        | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), equation (6)
        | https://arxiv.org/abs/1706.08500

    Examples:
        >>> from scoresde import metrics
        >>> x, distance = model.data(20), metrics.fid(torch.nn.Identity())
        >>> round(float(distance(x, x + 1)), 3)  # of the means alone, in two dimensions
        2.0
    """

    def distance(x: Tensor, y: Tensor) -> float:
        image = _library("torchmetrics.image.fid")
        found = _features(network, x, y)
        metric = image.FrechetInceptionDistance(feature=_Known(found[0].shape[1]))
        metric.set_dtype(torch.float64)
        return _update(metric, *found)

    return distance


@checked
def kid(network: nn.Module) -> Distance:
    r"""Returns the unbiased kernel distance between features of a network, as a function of samples and data.

    Arguments:
        network: A network from samples, with shape (N, *), to features.

    References:
        | Demystifying MMD GANs (Binkowski et al., 2018), section 4
        | https://arxiv.org/abs/1801.01401

    Examples:
        >>> from scoresde import metrics
        >>> metrics.kid(torch.nn.Identity())(torch.zeros(4, 1), torch.ones(4, 1))  # 2^3 + 1 - 2
        7.0
    """

    def distance(x: Tensor, y: Tensor) -> float:
        image = _library("torchmetrics.image.kid")
        found = _features(network, x, y)
        size, known = min(len(x), len(y)), _Known(found[0].shape[1])
        with warnings.catch_warnings():  # of the memory that features take
            warnings.simplefilter("ignore")
            metric = image.KernelInceptionDistance(known, subsets=20, subset_size=size)
        with torch.random.fork_rng(devices=[]):  # it draws subsets from the global generator
            torch.manual_seed(0)
            return _update(metric, *found)

    return distance


DISTANCES: dict[str, Distance] = {
    "energy": energy_distance,
    "sliced_wasserstein": sliced_wasserstein,
    "c2st": c2st,
}
OF_FEATURES: dict[str, Callable[[nn.Module], Distance]] = {"fid": fid, "kid": kid}


@checked
def get(name: str, features: nn.Module | None = None) -> Distance:
    r"""Returns the distance with the given name.

    Arguments:
        name: "energy", "sliced_wasserstein" or "c2st"; with a feature network, also "fid" and "kid".
        features: The feature network.

    Raises:
        ValueError: If there is no distance with this name, or it needs a feature network.

    Examples:
        >>> from scoresde import metrics
        >>> metrics.get("energy")(torch.zeros(2, 1), torch.ones(2, 1))
        2.0
    """

    if name in OF_FEATURES and features is None:
        raise ValueError(f"metric {name!r} needs features=, a network from samples to features.")
    if name in OF_FEATURES and features is not None:
        return OF_FEATURES[name](features)
    if name not in DISTANCES:
        raise ValueError(
            f"metric {name!r} is unknown; there are {', '.join(['error', *DISTANCES, *OF_FEATURES])}."
        )
    return DISTANCES[name]


@checked
def with_error(distance: Distance, x: Array, y: Array) -> tuple[float, float]:
    r"""Returns a distance and its standard error due to the finite number of samples.

    Unless the distance returns its own error, each tenth of the samples is left out in turn (the jackknife).
    They are not resampled with replacement (the bootstrap), because an unbiased distance takes two copies of a
    sample for a lack of variety.

    Arguments:
        distance: The distance.
        x: Samples, with shape (N, *).
        y: Data, with shape (M, *), taken as exact.

    Raises:
        ValueError: If there are fewer than four samples.

    References:
        | The Jackknife, the Bootstrap and Other Resampling Plans (Efron, 1982), chapter 3
        | https://doi.org/10.1137/1.9781611970319

    Examples:
        >>> from scoresde import metrics
        >>> metrics.with_error(metrics.energy_distance, torch.zeros(20, 1), torch.ones(20, 1))
        (2.0, 0.0)
    """

    x, y = as_pair(x, y)
    whole = distance(x, y)
    if isinstance(whole, tuple):
        return float(whole[0]), float(whole[1])
    whole = _value(whole)
    count = min(PARTS, len(x) // 2)
    if count < 2:
        raise ValueError(f"a distance with its error needs at least 4 samples, but has {len(x)}.")
    parts = torch.arange(len(x), device=x.device) % count
    left = torch.tensor([_value(distance(x[parts != p], y)) for p in range(count)])
    variance = (count - 1) / count * (left - left.mean()).square().sum()
    return whole, float(variance.sqrt())


def _value(found: float | tuple[float, float]) -> float:
    value = found[0] if isinstance(found, tuple) and found else found
    if not is_number(value):
        raise TypeError(f"distance must return a number, but returned {shown(value)}.")
    return float(value)


@checked
def floor(
    data: Array,
    size: int,
    *,
    distance: Distance = energy_distance,
    repeats: int = 20,
    seed: int = 0,
) -> tuple[float, float]:
    r"""Returns the mean and standard deviation of the distance between parts of the data.

    Arguments:
        data: Data, with shape (N, *), whose disjoint parts are compared.
        size: The number of samples per part, at most N / 2.
        distance: The distance.
        repeats: The number of random splits.
        seed: The seed of the splits.

    Examples:
        >>> from scoresde import metrics
        >>> mean, std = metrics.floor(model.data(40), 20, repeats=2)
        >>> abs(mean) < 0.5
        True
    """

    data, size = as_data("data", data), as_whole("size", size, at_least=1)
    repeats = as_whole("repeats", repeats, at_least=2, at_most=MOST)
    draw = torch.Generator().manual_seed(as_whole("seed", seed))
    size = min(size, len(data) // 2)
    values = []
    for _ in range(repeats):
        order = torch.randperm(len(data), generator=draw)
        values.append(_value(distance(data[order[:size]], data[order[size:]])))
    distances = torch.tensor(values)
    return float(distances.mean()), float(distances.std())


@checked
def nearest(x: Array, data: Array) -> Tensor:
    r"""Returns the distance of each sample from the nearest data point, with shape (N,).

    Arguments:
        x: Samples, with shape (N, *).
        data: Data, with shape (M, *).

    Examples:
        >>> from scoresde import metrics
        >>> metrics.nearest(torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [5.0]])).tolist()
        [1.0, 2.0]
    """

    x, data = as_pair(x, data, ("x", "data"))
    kind = torch.promote_types(torch.promote_types(x.dtype, data.dtype), torch.float32)
    return torch.cdist(x.flatten(1).to(kind), data.flatten(1).to(kind)).amin(1)


def check_distances(names: Sequence[str], features: nn.Module | None) -> dict[str, Distance]:
    r"""Returns distances by name."""

    return {name: get(name, features) for name in names}


class _Known(nn.Module):
    r"""The network that torchmetrics asks for, when features are already computed."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x


def _features(network: nn.Module, x: Array, y: Array) -> tuple[Tensor, Tensor]:
    r"""Returns the features of samples and data, each with shape (N, d), on the CPU."""

    x, y = as_state("x", x), as_state("y", y)
    _flat(x, y, at_least=2)
    with torch.no_grad():
        found = [torch.cat([network(part) for part in s.split(256)]) for s in (x, y)]
    seen = _flat(found[0], found[1], at_least=2, noun="the features of ")
    return seen[0].cpu(), seen[1].cpu()


def _flat(x: Array, y: Array, at_least: int, noun: str = "") -> tuple[Tensor, Tensor]:
    r"""Returns samples and data in float64 with shape (N, d), after checking that a distance is defined."""

    x, y = as_state("x", x), as_state("y", y)
    if x.shape[1:] != y.shape[1:]:
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"samples and data must have the same shape, but have {shapes}.")
    for given, name, s in (("x", "samples", x), ("y", "data", y)):
        bad = (~(s.flatten(1).double().abs() <= LARGEST).all(1)).nonzero()[:, 0].tolist()
        if bad:
            words = f"{noun}{name} {bad[:8]} are not finite, or beyond {LARGEST:g}"
            raise ValueError(f"{words}; leave them out of {given}, or check what made them.")
    for given, name, s in (("x", "samples", x), ("y", "data", y)):
        if len(s) < at_least:
            raise ValueError(
                f"this distance needs at least {at_least} {name}, but {given} has {len(s)}."
            )
    return x.flatten(1).double(), y.flatten(1).double()


def _update(metric: nn.Module, x: Tensor, y: Tensor) -> float:
    metric.update(x, real=False)  # type: ignore[operator]
    metric.update(y, real=True)  # type: ignore[operator]
    found = metric.compute()  # type: ignore[operator]
    return float(found[0] if isinstance(found, tuple) else found)


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = {"ot": "POT", "sklearn": "scikit-learn"}.get(name.split(".")[0], "torchmetrics")
        words = f"this metric needs {package}: pip install 'scoresde[metrics]'."
        raise ImportError(words) from None
