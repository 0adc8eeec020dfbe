r"""Distances between samples and data: what has no value is refused, in words."""

import math

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde import metrics

ALL = {
    **metrics.DISTANCES,
    "fid": metrics.fid(nn.Identity()),
    "kid": metrics.kid(nn.Identity()),
}


class Half(nn.Module):
    r"""Features in half precision, of which large ones overflow."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.half() * 60000).float()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bad", [math.nan, -math.inf, 1e200])
def test_entries_without_a_distance_are_named(name: str, bad: float) -> None:
    x, y = torch.randn(2, 8, 2, dtype=torch.float64)
    x[3, 1] = bad
    with pytest.raises(ValueError, match=r"samples \[3\] are not finite, or beyond"):
        ALL[name](x, y)
    with pytest.raises(ValueError, match=r"data \[3\] are not finite, or beyond"):
        ALL[name](y, x)


@pytest.mark.parametrize("name", ["fid", "kid"])
def test_features_that_overflow_are_named(name: str) -> None:
    x, y = 0.1 * torch.ones(6, 2), 0.1 * torch.ones(6, 2)
    y[2] = 2.0
    distance = metrics.get(name, Half())
    with pytest.raises(ValueError, match=r"the features of data \[2\] are not finite"):
        distance(x, y)


def test_features_that_overflow_do_not_end_a_comparison() -> None:
    oracle = ss.MixtureOracle(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), 0.3)
    options = {"samples": 8, "progress": False, "metrics": ["fid"], "features": Half()}
    with pytest.raises(ValueError, match="metric 'fid' failed: the features of"):
        ss.compare(oracle, ["ddim"], [5], data=oracle.data(40), **options)


@pytest.mark.parametrize(("name", "least"), [("energy", 2), ("fid", 2), ("kid", 2), ("c2st", 5)])
def test_too_few_samples_are_refused_in_words(name: str, least: int) -> None:
    y = torch.randn(30, 2)
    with pytest.raises(ValueError, match=f"needs at least {least} samples, but x has {least - 1}"):
        ALL[name](y[: least - 1], y)
    with pytest.raises(ValueError, match=f"needs at least {least} data, but y has {least - 1}"):
        ALL[name](y, y[: least - 1])
    found = ALL[name](y[:least], y)
    assert math.isfinite(found[0] if isinstance(found, tuple) else found)


@pytest.mark.parametrize("name", ALL)
def test_samples_of_another_shape_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must have the same shape"):
        ALL[name](torch.randn(8, 2), torch.randn(8, 3))


def test_the_largest_entries_still_have_distances() -> None:
    r"""Energy, sliced Wasserstein and Frechet distances scale with the first and second power."""

    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 20, 3, dtype=torch.float64, generator=draw)
    for name, power in (("energy", 1), ("sliced_wasserstein", 1), ("fid", 2)):
        big = ALL[name](1e29 * x, 1e29 * y) / 1e29**power
        assert big == pytest.approx(ALL[name](x, y), rel=1e-3)  # torchmetrics adds to a diagonal
    assert math.isfinite(ALL["kid"](1e29 * x, 1e29 * y))
