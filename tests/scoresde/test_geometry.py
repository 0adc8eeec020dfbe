r"""Trajectories, planes and measures: each against what the formulas of guidance say."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import scoresde as ss
from scoresde import geometry, guidance, plots
from scoresde.geometry.plane import of_path, of_step

PROCESSES = {"EDM": ss.EDM(), "VP": ss.VP(), "Interpolant": ss.Interpolant()}
D = 12
LABEL = torch.tensor([1])


def mixture(process: ss.Process, d: int = D) -> ss.MixtureOracle:
    draw = torch.Generator().manual_seed(3)
    means = torch.randn(3, d, generator=draw)
    model = ss.MixtureOracle(means, torch.tensor([0.3, 0.4, 0.5]), process=process)
    model.data_std = 1.0
    return model


def followed(solver: str = "ddim", process: ss.Process | None = None, d: int = D, **options: object
             ) -> geometry.Trajectory:  # fmt: skip
    guided = ss.classifier_free(mixture(process or ss.EDM(), d), 3.0, label=LABEL)
    settings: dict[str, object] = {"steps": 8, "seed": 5, **options}
    return geometry.follow(guided, 4, solver=solver, **settings)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize(
    "solver", ["ddim", "ancestral", "em", "dpmpp_2m_sde", "heun", "dpmpp_sde"]
)
def test_a_trajectory_is_the_run_that_sampling_makes(solver: str, process: ss.Process) -> None:
    model = mixture(process)
    guided = ss.classifier_free(model, 3.0, label=LABEL)
    t = geometry.follow(guided, 4, solver=solver, steps=8, seed=5, first_index=2)
    s = ss.sample(
        guided, 4, solver=solver, steps=8, seed=5, first_index=2, path=True, denoise=False
    )
    alphas = process.scales(s.times)[0]
    assert torch.allclose(t.states[-1] * alphas[-1], s.x, rtol=1e-12)
    assert torch.allclose(t.levels, torch.exp(-process.log_snr(s.times)))
    for i in (0, 3, 8):
        x, time = s.path[i], s.times[i]
        assert torch.allclose(t.guided[i], guided.denoise(x, time))
        assert torch.allclose(t.estimates["unconditional"][i], model.denoise(x, time))
        assert torch.allclose(t.estimates["conditional"][i], model.denoise(x, time, label=LABEL))
    assert torch.allclose(t.push, 2 * t.difference)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_noise_is_told_apart_from_the_step(process: ss.Process, eta: float) -> None:
    r"""An ancestral step with the exact solution of the linear equation."""

    t = followed("ancestral", process, eta=eta)
    ratio = (t.levels[1:] / t.levels[:-1]).reshape(-1, 1, 1)
    mean = t.guided[:-1] + ratio ** (1 + eta**2) * (t.states[:-1] - t.guided[:-1])
    assert torch.allclose(t.means, mean, atol=1e-8)
    std = t.levels[1:] * (1 - ratio.flatten() ** (2 * eta**2)).sqrt()
    sizes = t.noise.square().mean((1, 2)).sqrt() / std
    assert sizes.mean() == pytest.approx(1.0, abs=0.15)


def test_noise_that_steps_do_not_tell_is_not_guessed() -> None:
    assert followed("ddim").noise.abs().max() == 0
    assert followed("dpmpp_2m_sde").means is None  # remembers the last step
    assert followed("dpmpp_sde").means is None  # draws more than once
    assert followed("em").means is not None


def test_a_plane_hides_nothing_of_classifier_free_guidance() -> None:
    t = followed("ancestral")
    for i in range(8):
        plane = of_step(t, 2, i)
        mean = t.means[i] - t.states[i]
        for direction in (
            t.push[i, 2],
            t.difference[i, 2],
            mean[2],
            (t.guided[i] - t.states[i])[2],
        ):
            assert float(plane.hidden(direction[None])) < 1e-9 or direction.norm() < 1e-9
        points = torch.stack(
            [
                t.states[i, 2],
                t.guided[i, 2],
                t.means[i, 2],
                *(e[i, 2] for e in t.estimates.values()),
            ]
        )
        assert torch.allclose(
            torch.cdist(plane(points), plane(points)), torch.cdist(points, points), atol=1e-8
        )
    shares = torch.stack(
        [of_step(t, b, i).hidden(t.noise[i, b][None]) for b in range(4) for i in range(8)]
    )
    assert float(shares.mean()) == pytest.approx(1 - 2 / D, abs=0.06)


def test_planes_of_mixtures_are_spanned_by_their_parts() -> None:
    parts = [mixture(ss.EDM()).given(label=torch.tensor([k])) for k in (0, 2)]
    t = geometry.follow(
        guidance.mixture(parts, lambda x, t: x[:, :2]), 2, solver="ancestral", steps=6
    )
    apart = t.estimates["part 1"] - t.estimates["part 2"]
    assert float(of_step(t, 0, 3).hidden(apart[3, 0][None])) < 0.02


def test_planes_are_true_to_scale() -> None:
    draw = torch.Generator().manual_seed(0)
    origin, directions = (
        torch.randn(2, 3, generator=draw),
        list(torch.randn(2, 2, 3, generator=draw)),
    )
    for dimensions in (2, 3):
        plane = geometry.Plane.spanned(origin, directions, dimensions)
        flat = plane.basis.flatten(1)
        assert torch.allclose(flat @ flat.T, torch.eye(dimensions))
        assert torch.allclose(plane.hidden(torch.stack(directions)), torch.zeros(2), atol=1e-12)
        along = plane.along(directions[0][None])[0]
        assert torch.allclose(along[1:], torch.zeros(dimensions - 1), atol=1e-9)
        assert along[0] == pytest.approx(float(directions[0].norm()))
        v = torch.randn(7, 2, 3, generator=draw)
        shown = plane.along(v).square().sum(1) / v.flatten(1).square().sum(1)
        assert torch.allclose(plane.hidden(v), 1 - shown)
    own = geometry.Plane.spanned(torch.ones(2), [torch.tensor([0.3, 0.4])])
    assert torch.allclose(own(torch.tensor([[5.0, 6.0]])), torch.tensor([[5.0, 6.0]]))
    one = geometry.Plane.spanned(origin, [directions[0], 0 * directions[0]])
    assert torch.allclose(one.basis.flatten(1) @ one.basis.flatten(1).T, torch.eye(2))
    with pytest.raises(ValueError, match="no view of 3"):
        geometry.Plane.spanned(torch.ones(2), directions, 3)
    with pytest.raises(ValueError, match="dimensions must be 2 or 3"):
        geometry.Plane.spanned(origin, directions, 4)


def test_the_plane_of_a_way_shows_most_of_it() -> None:
    t = followed()
    plane = of_path(t, 0)
    every = torch.cat([t.states[:, 0], *(e[:, 0] for e in t.estimates.values())]) - t.guided[-1, 0]
    shown = plane.along(every).square().sum()
    assert torch.allclose(shown, torch.linalg.svdvals(every)[:2].square().sum())
    assert float(shown) > 0.9 * float(every.square().sum())
    steps = t.states[1:, 0] - t.states[:-1, 0]
    best = float(plane.along(steps).square().sum())
    assert best == pytest.approx(float(((1 - plane.hidden(steps)) * steps.square().sum(1)).sum()))


def test_measures_are_those_of_the_guidance() -> None:
    t = followed("ancestral")
    rows = geometry.measure(t)
    assert len(rows) == 9
    for i, row in enumerate(rows):
        assert row["noise level"] == pytest.approx(float(t.levels[i]))
        assert row["push"] == pytest.approx(2 * row["difference"])
        way = (t.estimates["conditional"] - t.states)[i]
        cosine = torch.cosine_similarity(t.push[i], way).mean()
        assert row["cos(push, way)"] == pytest.approx(float(cosine))
    assert math.isnan(rows[0]["cos(push, last)"])
    assert math.isnan(rows[-1]["step"])
    turn = torch.cosine_similarity(t.push[4], t.push[3]).mean()
    assert rows[4]["cos(push, last)"] == pytest.approx(float(turn))
    assert rows[2]["noise"] == pytest.approx(float(t.noise[2].square().mean(1).sqrt().mean()))
    free = mixture(ss.EDM())
    projected = guidance.adaptive_projected(free.given(label=LABEL), free, 3.0)
    for row in geometry.measure(geometry.follow(projected, 3, solver="ddim", steps=5)):
        assert abs(row["cos(push, estimate)"]) < 1e-6  # the part along it was taken out
    interval = ss.classifier_free(free, 3.0, interval=(0.5, 5.0), label=LABEL)
    for row in geometry.measure(geometry.follow(interval, 3, solver="ddim", steps=8)):
        assert (row["push"] == 0) == (not 0.5 <= row["noise level"] <= 5.0)
    assert "push" not in geometry.measure(geometry.follow(free, 2, solver="ddim", steps=3))[0]


def test_gradients_and_ones_own_guidance_have_their_parts() -> None:
    free = mixture(ss.EDM())
    t = geometry.follow(
        guidance.universal(free, lambda x: x.square().sum(1), 0.1), 2, solver="ddim", steps=4
    )
    assert list(t.estimates) == ["guided", "model"]
    assert t.difference is None

    class Own(ss.ScoreModel):
        def __init__(self) -> None:
            super().__init__()
            self.resemble(free)

        def denoise(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
            return 0.5 * free.denoise(x, t)

    t = geometry.follow(
        Own(),
        2,
        solver="ddim",
        steps=4,
        parts={"conditional": free, "weak": free.given(label=LABEL)},
    )
    assert torch.allclose(t.push, -0.5 * t.estimates["conditional"])
    assert torch.allclose(t.difference, t.estimates["conditional"] - t.estimates["weak"])
    late = geometry.follow(ss.classifier_free(free, 2.0, label=LABEL), 2, solver="ddim", steps=4)
    assert list(late.estimates) == ["guided", "unconditional", "conditional"]


def test_names_of_parts_do_not_hide_what_the_solver_sees() -> None:
    free = mixture(ss.EDM())
    guided = ss.classifier_free(free, 4.0, label=LABEL)
    model = guidance.rescaled(guided, free.given(label=LABEL))
    t = geometry.follow(model, 2, solver="ddim", steps=4)
    assert list(t.estimates) == ["guided", "before", "conditional"]
    alone = torch.stack([model.denoise(x, s) for x, s in zip(t.states, t.levels, strict=True)])
    assert torch.allclose(t.guided, alone)
    with pytest.raises(ValueError, match="must not be named 'guided'"):
        geometry.follow(free, 2, solver="ddim", steps=2, parts={"guided": free})


def test_densities_behind_are_of_all_data_in_its_units() -> None:
    for process in PROCESSES.values():
        t = followed("ddim", process, d=2)
        axis = torch.linspace(-12, 12, 400)
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2)
        mass = t.density(grid, 1.0).exp().sum() * (axis[1] - axis[0]) ** 2
        assert float(mass) == pytest.approx(1.0, abs=1e-3)
    parts = [mixture(ss.EDM(), 2), mixture(ss.EDM(), 2)]
    both = guidance.mixture(parts, lambda x, t: x)
    assert geometry.follow(both, 2, solver="ddim", steps=2).density is None


def test_degenerate_data_and_guidance_have_their_say() -> None:
    free = mixture(ss.EDM())
    none = ss.classifier_free(free, lambda level: 1 + 0 * level, label=LABEL)
    rows = geometry.high_dimensions(geometry.follow(none, 2, solver="ddim", steps=3))
    assert "cosine of noise and the estimate, size" in [claim.name for claim in rows]
    line = geometry.follow(mixture(ss.EDM(), 1), 2, solver="ddim", steps=3)
    assert "hidden" not in geometry.measure(line)[0]
    with pytest.raises(ValueError, match="one dimension has no angles"):
        geometry.high_dimensions(line)
    origin = torch.randn(5)
    plane = geometry.Plane.spanned(origin, [torch.zeros(5)])
    assert torch.allclose(plane.basis @ plane.basis.T, torch.eye(2))


def test_high_dimensions_in_numbers() -> None:
    t = geometry.follow(mixture(ss.EDM(), 400), 8, solver="ddim", steps=4)
    rows = {claim.name: (claim.flat, claim.here) for claim in geometry.high_dimensions(t)}
    expected = {
        "length of noise, spread over mean": (math.sqrt(4 / math.pi - 1), 1 / math.sqrt(800)),
        "noise of less than half its usual length": (1 - math.exp(-0.25), 0.0),
        "cosine of two draws of noise, size": (2 / math.pi, math.sqrt(2 / (math.pi * 400))),
        "cosine of noise and the estimate, size": (2 / math.pi, math.sqrt(2 / (math.pi * 400))),
        "share of noise that a plane shows": (1.0, 0.005),
    }
    assert rows.keys() == expected.keys()
    for name, (flat, here) in expected.items():
        assert rows[name][0] == pytest.approx(flat, rel=0.06)
        assert rows[name][1] == pytest.approx(here, rel=0.06)


@pytest.mark.parametrize("d", [2, pytest.param(3, marks=pytest.mark.slow), D])
def test_pictures_and_animations_are_written(d: int, tmp_path: Path) -> None:
    t = followed("ancestral", d=d)
    drawn = plots.geometry(tmp_path / "step.png", t, step=4)
    assert float(drawn.hidden(t.push[4, 0][None])) < 1e-9
    plots.geometry(tmp_path / "way.png", t, sample=1)
    plots.geometry(str(tmp_path / "way.gif"), t, highest=20.0)
    plots.geometry(tmp_path / "way.html", t, highest=20.0)
    shown = int((t.levels[:-1] <= 20.0).sum())
    plots.geometry(tmp_path / "whole.gif", t)
    few = int((t.levels[:-1] <= 4 * t.data_std).sum())
    assert Image.open(tmp_path / "whole.gif").n_frames == (8 if d > 3 else few)
    assert Image.open(tmp_path / "way.gif").n_frames == shown
    page = (tmp_path / "way.html").read_text()
    assert page.count("data:image/png;base64,") == shown
    assert "http" not in page
    assert "{{" not in page
    if d > 2:
        space = plots.geometry(tmp_path / "space.png", t, step=4, dimensions=3)
        assert len(space.basis) == 3
    plots.trajectory(tmp_path / "course.png", t)
    assert {f.suffix for f in tmp_path.iterdir()} == {".png", ".gif", ".html"}


def test_films_are_of_images(tmp_path: Path) -> None:
    model = ss.GaussianOracle(torch.zeros(1, 4, 4), torch.eye(16), ss.EDM())
    t = geometry.follow(model, 2, solver="ddim", steps=4)
    plots.film(tmp_path / "film.png", t, sample=1)
    plots.geometry(tmp_path / "step.png", t, step=2)
    assert Image.open(tmp_path / "film.png").size[0] > 200
    with pytest.raises(ValueError, match=r"sample must lie in \[0, 1\]"):
        plots.film(tmp_path / "none.png", t, sample=2)
    with pytest.raises(ValueError, match="a film is of grey images"):
        plots.film(tmp_path / "none.png", followed())
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sample": 4}, r"sample must lie in \[0, 3\], but is 4"),
        ({"step": 8}, r"step must lie in \[0, 7\], but is 8"),
        ({"dimensions": 4}, "dimensions must be 2 or 3"),
        ({"highest": 0.0}, "highest must be a positive"),
        ({"seconds": 0.0}, "seconds must be positive"),
    ],
)
def test_pictures_say_what_is_wrong(options: dict[str, int], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        plots.geometry(tmp_path / "none.png", followed(), **options)
    assert not list(tmp_path.iterdir())


def test_following_says_what_is_wrong(tmp_path: Path) -> None:
    model = mixture(ss.EDM())
    with pytest.raises(ValueError, match="leave out step="):
        plots.geometry(tmp_path / "a.gif", followed(), step=2)
    with pytest.raises(TypeError, match="file must be a path, but is a Trajectory"):
        plots.geometry(followed(), "a.png")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="step must be a whole number"):
        plots.geometry(tmp_path / "a.png", followed(), step=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one log-density per point"):
        plots.geometry(tmp_path / "a.png", followed(d=2), step=1, density=lambda x, s: x)
    with pytest.raises(ValueError, match="must end in one of .png"):
        plots.trajectory(tmp_path / "a.gif", followed())
    with pytest.raises(TypeError, match="parts must be a dictionary, but is a list"):
        geometry.follow(model, 2, steps=2, parts=[model])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="what ss.geometry.follow"):
        plots.geometry(tmp_path / "a.png", model)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on a grid: pass steps="):
        geometry.follow(model, 2, rtol=1e-3)
    with pytest.raises(ValueError, match="max_calls= has no effect"):
        geometry.follow(model, 2, steps=3, max_calls=10)
    with pytest.raises(ValueError, match="one grid for all samples"):
        geometry.follow(model, 2, solver="ddim", times=torch.tensor([[8.0, 8.0], [1.0, 2.0]]))
    with pytest.raises(TypeError, match="did you mean steps"):
        geometry.follow(model, 2, step=3)
