r"""Pictures of samples of any shape, and of data before and after an edit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import scoresde as ss
from scoresde import plots
from scoresde.plots import figures

DRAW = torch.Generator().manual_seed(0)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    r"""The figures, which are not written to files."""

    found: list[Figure] = []
    monkeypatch.setattr(figures, "write", lambda made, file: found.append(made))
    return found


def test_curves_are_quantiles_of_the_samples(written: list[Figure], tmp_path: Path) -> None:
    x = torch.randn(101, 2, 30, generator=DRAW, dtype=torch.float64)
    plots.samples(tmp_path / "x.png", {"a": x, "b": 2 * x})
    [figure] = written
    for axis, scale in zip(figure.axes, (1, 2), strict=False):
        lines = [line.get_ydata() for line in axis.lines]
        assert np.allclose(lines, (scale * x.median(0).values).numpy())
        band = axis.collections[0].get_paths()[0].vertices[:, 1]  # the widest of the first channel
        assert band.min() == pytest.approx(float(scale * x[:, 0].quantile(0.05, 0).min()))
        assert band.max() == pytest.approx(float(scale * x[:, 0].quantile(0.95, 0).max()))
    assert [axis.get_title() for axis in figure.axes[:2]] == ["a", "b"]


@pytest.mark.parametrize(("shape", "mark"), [
    ((1,), lambda axis: len(axis.patches) == 40), ((2,), lambda axis: len(axis.collections) == 1),
    ((3,), lambda axis: axis.name == "3d"), ((7,), lambda axis: len(axis.lines) == 4),
    ((3, 9), lambda axis: len(axis.lines) == 3), ((1, 5, 4), lambda axis: len(axis.images) == 1),
    ((3, 5, 4), lambda axis: axis.images[0].get_array().shape[-1] == 3),
])  # fmt: skip
def test_each_shape_has_its_drawing(
    shape: tuple[int, ...], mark: Callable, written: list[Figure], tmp_path: Path
) -> None:
    plots.samples(tmp_path / "x.png", torch.rand(12, *shape, generator=DRAW))
    assert mark(written[0].axes[0])


@pytest.mark.parametrize("shape", [(20, 5), (2, 5, 4), (1, 2, 3, 4)])
def test_what_cannot_be_drawn_is_told(shape: tuple[int, ...], tmp_path: Path) -> None:
    for call in (
        lambda: plots.samples(tmp_path / "x.png", torch.zeros(3, *shape)),
        lambda: plots.before_after(
            tmp_path / "x.png", torch.zeros(3, *shape), torch.ones(3, *shape)
        ),
    ):
        with pytest.raises(ValueError, match=r"cannot be drawn, only one number, points"):
            call()
    with pytest.raises(ValueError, match=r"the same shape, but have \(2,\), \(3,\)"):
        plots.samples(tmp_path / "x.png", {"a": torch.zeros(3, 2), "b": torch.zeros(3, 3)})
    with pytest.raises(ValueError, match="as many samples, but are 3 and 4"):
        plots.before_after(tmp_path / "x.png", torch.zeros(3, 2), torch.zeros(4, 2))


def test_the_difference_of_images_has_a_scale_about_zero(
    written: list[Figure], tmp_path: Path
) -> None:
    x = torch.rand(4, 1, 5, 6, generator=DRAW)
    y = x.clone()
    y[2, 0, 1, 3] += 0.75
    plots.before_after(tmp_path / "x.png", x, y, columns=3)
    rows = [axis.images for axis in written[0].axes[:3]]
    assert [picture.get_clim() for picture in rows[2]] == 3 * [pytest.approx((-0.75, 0.75))]
    found = np.stack([picture.get_array() for picture in rows[2]])
    assert np.allclose(found, (y - x)[:3, 0])
    assert [bool(axis.get_visible()) for axis in written[0].axes[3:]] == [False, False, True]


@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_is_drawn_between_images(channels: int, tmp_path: Path) -> None:
    white = torch.ones(3, channels, 8, 8)
    plots.before_after(tmp_path / "x.png", white, -white)
    page = np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).astype(int)
    above, middle = page[: len(page) // 3], page[len(page) // 3 : 2 * len(page) // 3]
    left = middle[:, : middle.shape[1] // 2].sum(2)
    row = left[
        (left == 0).sum(1).argmax()
    ]  # across black images, of which one and a half are here
    runs = np.diff(np.flatnonzero(np.diff(row)))
    assert set(np.unique(row)) == {0, 3 * 255}
    assert above[-above.shape[0] // 2 :].min() == 255
    assert 0.03 < runs[1] / runs[0] < 0.09


def test_the_difference_of_series_and_points(written: list[Figure], tmp_path: Path) -> None:
    x = torch.randn(2, 3, 8, generator=DRAW)
    plots.before_after(tmp_path / "x.png", x, x - 0.25)
    below = written[0].axes[2]
    assert np.allclose([line.get_ydata() for line in below.lines[:3]], -0.25)
    assert below.get_ylim()[0] == -below.get_ylim()[1]
    oracle = ss.MixtureOracle(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), 0.3, process=ss.VP())
    s = ss.sample(oracle, 5, steps=3)
    e = ss.edit(oracle, oracle, s, strength=0.5, method="noise", steps=3)
    plots.before_after(tmp_path / "x.png", s, e)
    arrows = written[1].axes[0].collections[0]
    assert np.allclose(np.stack([arrows.U, arrows.V], 1), (e.x - s.x).numpy())


def test_colours_of_tiles_stand_where_they_were() -> None:
    x = torch.rand(5, 3, 2, 4, generator=DRAW)
    found = plots.tile(x, columns=3, gap=1)
    assert found.shape == (2 * 3, 3 * 5, 3)
    assert np.allclose(found[3:5, 5:9], x[4].permute(1, 2, 0))
    assert np.allclose(
        plots.tile(x[:, :1], columns=3, gap=1), plots.tile(x[:, 0], columns=3, gap=1)
    )


def test_reports_show_series(tmp_path: Path) -> None:
    model = ss.GaussianOracle(torch.zeros(6), torch.eye(6), ss.VP())
    c = ss.compare(model, ["ddim"], [4], samples=8, progress=False)
    assert "samples of each solver" in c.html(tmp_path / "c.html", model).read_text()
