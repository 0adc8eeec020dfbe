r"""Paths of many samples are drawn where they are, over the density that the states have."""

import json
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import scoresde as ss
from scoresde.plots import figures
from scoresde.plots.over_density import _scaled

from ..test_cli import within
from .cases import gaussian


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    r"""The figures that would be written."""

    made: list[Figure] = []
    monkeypatch.setattr(figures, "write", lambda figure, file: made.append(figure))
    return made


def test_points_lie_where_the_states_are_on_the_scale_of_the_data(written: list[Figure]) -> None:
    way = ss.geometry.follow(gaussian(ss.VP()), 5, steps=3)
    ss.plots.paths("way.png", way, step=2)
    [axis] = written[0].axes
    scale = (1 + way.levels**2 / way.data_std**2) ** 0.5
    shown = torch.as_tensor(axis.collections[-1].get_offsets().data)
    assert torch.allclose(shown, way.states[2] / scale[2])
    lines = [torch.as_tensor(line.get_xydata()) for line in axis.lines]
    assert torch.allclose(torch.stack(lines, 1), (way.states / scale[:, None, None])[:3])
    assert f"{float(way.levels[2]):.3g}" in axis.get_title()


@pytest.mark.parametrize("level", [0.0, 0.5, 10.0])
def test_the_density_behind_is_that_of_the_scaled_states(level: float) -> None:
    r"""Of Gaussian data with one standard deviation, it is the same Gaussian at every noise level."""

    model = ss.GaussianOracle(torch.zeros(2), 0.7)
    way = ss.geometry.follow(model, 2, steps=2)
    assert way.density is not None
    level = max(level, float(way.levels[-1]))
    y = torch.randn(6, 2)
    found = _scaled(way, way.density)(y, level)
    squares = -y.square().sum(1) / (2 * 0.7**2)
    assert torch.allclose(found - found[0], squares - squares[0], atol=1e-9)


def test_images_are_drawn_above_their_estimates(written: list[Figure], tmp_path: Path) -> None:
    flat = ss.GaussianOracle(torch.zeros(1, 4, 4), 0.5)
    way = ss.geometry.follow(flat, 3, steps=2)
    ss.plots.paths(tmp_path / "way.png", way, step=1)
    assert [axis.get_title() for axis in written[0].axes][1] == "denoised estimates"


def test_an_animation_has_every_state(tmp_path: Path) -> None:
    way = ss.geometry.follow(gaussian(ss.EDM()), 3, steps=2)
    ss.plots.paths(tmp_path / "way.gif", way)
    with Image.open(tmp_path / "way.gif") as film:
        assert film.n_frames == 3


@pytest.mark.parametrize(
    ("name", "shape", "step", "sentence"),
    [
        ("way.png", (2,), 3, "step must be at most 2, but is 3"),
        ("way.gif", (2,), 1, "an animation shows all states; leave out step="),
        ("way.txt", (2,), None, "must end in one of"),
        ("way.gif", (1, 2, 2), None, "must end in one of .png"),
        ("way.png", (5,), None, "paths are drawn of points with 2 entries and of images"),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence(
    name: str, shape: tuple[int, ...], step: int | None, sentence: str, tmp_path: Path
) -> None:
    way = ss.geometry.follow(ss.GaussianOracle(torch.zeros(shape), 0.5), 2, steps=2)
    with pytest.raises(ValueError, match=sentence):
        ss.plots.paths(tmp_path / name, way, step=step)


def test_the_command_draws_the_same(tmp_path: Path) -> None:
    plan = ss.Plan({"solver": "heun", "steps": 3}).save(tmp_path / "plan.json")
    done = within("plot", "paths", "digits", "--label", "3", "-n", "2", "--step", "1", "--plan", plan,
                  "--out", "command.png", "--json", folder=tmp_path)  # fmt: skip
    assert done.exit_code == 0, done.exception
    torch.set_default_dtype(torch.float32)
    model = ss.load("digits").given(label=3)
    way = ss.geometry.follow(model, 2, solver="heun", steps=3)
    assert json.loads(done.stdout)["lowest noise level"] == pytest.approx(float(way.levels[-1]))
    ss.plots.paths(tmp_path / "mine.png", way, step=1)
    assert (tmp_path / "mine.png").read_bytes() == (tmp_path / "command.png").read_bytes()
