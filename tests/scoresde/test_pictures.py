r"""Pictures show what they are of: numbers on axes, gaps between images, points of samples."""

import json
import math
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin

import scoresde as ss
from scoresde import plots
from scoresde.cli import tiles
from scoresde.cli.files import check_out
from scoresde.plots import figures, ticks

from .cases import mixture


class Written:
    r"""The figures that are written, instead of files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.figures: list[Figure] = []
        whole = figures.write

        def write(made: Figure, file: Path) -> None:
            self.figures.append(made)
            whole(made, file)

        monkeypatch.setattr(figures, "write", write)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    return Written(monkeypatch)


# ---- axes


@pytest.mark.slow
@given(st.floats(-12, 12), st.floats(0.02, 20))
def test_every_logarithmic_axis_has_enough_numbers_that_fit(low: float, decades: float) -> None:
    numbers = ticks.logarithmic(10**low, 10 ** (low + decades))
    assert 3 <= len(numbers) <= 12
    assert numbers == sorted(numbers)
    assert all(10**low * (1 - 1e-6) <= n <= 10 ** (low + decades) * (1 + 1e-6) for n in numbers)


@pytest.mark.slow
def test_numbers_on_axes_are_the_round_ones() -> None:
    assert ticks.logarithmic(0.9, 12000) == pytest.approx([1, 10, 100, 1000, 10000])
    assert ticks.logarithmic(0.09, 5) == pytest.approx([0.1, 0.3, 1, 3])
    assert ticks.logarithmic(1.1, 2.1) == pytest.approx([1.2, 1.4, 1.6, 1.8, 2.0])
    assert ticks.signed(-0.5, 0.5, 1.0) == pytest.approx([-0.4, -0.2, 0, 0.2, 0.4])
    assert ticks.signed(-2, 200, 1.0) == pytest.approx([-1, 0, 1, 10, 100])


@pytest.mark.slow
@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-4, 2))
def test_axes_that_are_linear_near_zero_have_numbers(a: float, b: float, near: float) -> None:
    low, high = sorted((a, b + 0.01))
    if high - low > 0.01 and low <= 0 <= high:
        assert len(ticks.signed(low, high, 10**near)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("values", [(1.1, 1.6, 2.1), (2e-7, 3e-7, 4e-7), (3.0, 3.02, 3.05)])
def test_charts_have_labels_within_a_decade(
    values: tuple[float, ...], written: Written, tmp_path: Path
) -> None:
    points = [(5.0 + i, value, 0.0) for i, value in enumerate(values)]
    plots.work_precision(tmp_path / "a.png", {"a": points}, [points[-1][:2]], "energy")
    plots.curves(tmp_path / "b.png", {"a": [point[:2] for point in points]}, "x", "y")
    plots.bars(tmp_path / "c.png", dict(zip("abc", values, strict=True)), "x")
    assert len(written.figures) == 3
    for figure in written.figures:
        [axes] = figure.axes
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts = [tick.label1.get_text() for tick in axis.get_major_ticks()]
            shown = [t for t, at in zip(texts, axis.get_majorticklocs(), strict=True)
                     if t and low <= at <= high]  # fmt: skip
            assert len(set(shown)) >= 3, shown


@pytest.mark.slow
def test_axis_that_is_linear_near_zero_says_so(written: Written, tmp_path: Path) -> None:
    lines = {"a": [(5.0, 0.4, 0.01), (10.0, 0.004, 0.02)], "b": [(5.0, 0.3, 0.01)]}
    plots.work_precision(tmp_path / "a.png", lines, [(5.0, 0.3)], "energy")
    above = {"a": [(5.0, 0.4, 0.01), (10.0, 0.04, 0.02)]}
    plots.work_precision(tmp_path / "b.png", above, [(5.0, 0.4)], "energy")
    near, plain = (figure.axes[0] for figure in written.figures)
    assert near.get_yscale() == "symlog"
    assert near.get_ylabel() == "energy\nlinear from -0.01 to 0.01, logarithmic beyond"
    assert (plain.get_yscale(), plain.get_ylabel()) == ("log", "energy")


@pytest.mark.slow
def test_curves_can_be_told_apart(written: Written, tmp_path: Path) -> None:
    same = [(5.0, 1.0, 0.0), (10.0, 0.5, 0.0)]
    lines = {f"solver {i}": same for i in range(40)}
    plots.work_precision(tmp_path / "a.png", lines, [(5.0, 1.0)], "error")
    looks = [
        (line.get_color(), line.get_marker(), line.get_linestyle())
        for line in written.figures[0].axes[0].get_lines()
        if line.get_marker() not in ("None", None, "")
    ]
    assert len(looks) == len(set(looks)) == 40


@pytest.mark.slow
def test_legends_lie_beside_what_they_name(written: Written, tmp_path: Path) -> None:
    t = ss.geometry.follow(mixture(ss.EDM()), 4, solver="ddim", steps=6)
    plots.trajectory(tmp_path / "t.png", t)
    plots.spectrum(tmp_path / "s.png", torch.randn(4, 1, 6, 6))
    plots.curves(tmp_path / "c.png", {"a": [(1.0, 2.0), (2.0, 3.0)]}, "x", "y")
    plots.histogram(tmp_path / "h.png", {"a": (torch.randn(9), "of nine")}, "x")
    shown = [axes for figure in written.figures for axes in figure.axes]
    assert len(shown) >= 5
    for axes in shown:
        axes.figure.canvas.draw()
        assert not axes.get_legend().get_window_extent().overlaps(axes.get_window_extent())
    names = [text.get_text() for text in shown[0].get_legend().get_texts()]
    assert "step" in names
    assert "fresh noise" not in names  # of a flow


# ---- points


@pytest.mark.parametrize("d", [2, 3])
def test_scatter_shows_points_and_says_how_many_lie_outside(
    d: int, written: Written, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    x = torch.randn(300, d)
    far, lost = x.clone(), x.clone()
    far[:7] = 1e30
    lost[:2] = math.nan
    groups = {"near": x, "far": far, "lost": lost, "grid": 3 * x.sign()}
    plots.scatter(tmp_path / "s.png", groups, behind=x, across=3)
    assert Image.open(tmp_path / "s.png").size[0] > 300
    axes = written.figures[0].axes
    titles = [axis.get_title() for axis in axes]
    assert titles[1] == "far\n7 outside"
    assert titles[2] == "lost\n2 outside"
    counts = [len(axis.collections[1].get_offsets()) for axis in axes[:3]]
    if d == 2:  # projected points are known once they are drawn
        assert counts[1:] == [293, 298]
        inside = np.asarray(axes[0].collections[1].get_offsets())
        assert (inside[:, None] == x.numpy()).all(-1).any(1).all()
    assert len({axis.get_xlim() for axis in axes[:4]}) == 1
    plots.scatter(str(tmp_path / "one.png"), x)


def test_scatter_says_what_it_is_not_of(tmp_path: Path) -> None:
    for x in (torch.zeros(4, 1, 8, 8), torch.zeros(4, 5), torch.zeros(0, 2), [[1.0]]):
        with pytest.raises(ValueError, match="of samples with shape"):
            plots.scatter(tmp_path / "s.png", {"a": x})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"as many entries each, not \(4, 2\), \(4, 3\)"):
        plots.scatter(tmp_path / "s.png", {"a": torch.zeros(4, 2), "b": torch.zeros(4, 3)})
    with pytest.raises(ValueError, match="must end in one of .png"):
        plots.scatter(tmp_path / "s.jpg", torch.zeros(4, 2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("d", [2, 3])
def test_report_of_points_has_a_scatter(d: int, written: Written, tmp_path: Path) -> None:
    model = ss.MixtureOracle(torch.eye(d), 0.3, process=ss.VP())
    c = ss.compare(model, ["ddim", "heun"], [6], samples=8, progress=False)
    page = c.html(tmp_path / "c.html", model).read_text()
    assert page.count("data:image/png;base64,") == 2
    titles = [axis.get_title() for axis in written.figures[-1].axes]
    assert [title.split("\n")[0] for title in titles] == [
        "ddim, rho: 6 calls",
        "heun, rho: 5 calls",
    ]


@pytest.mark.slow
def test_report_says_why_it_has_no_pictures(tmp_path: Path) -> None:
    model = ss.GaussianOracle(torch.zeros(5), 1.0, process=ss.VP())
    c = ss.compare(model, ["ddim"], [6], samples=8, progress=False)
    assert (
        "no pictures of samples: they have shape (5,)"
        in c.html(tmp_path / "c.html", model).read_text()
    )
    assert "no pictures of samples: pass the model" in c.html(tmp_path / "d.html").read_text()


# ---- tiles


def images_of(size: int) -> ss.NetworkScore:
    return ss.NetworkScore(lambda x, t: x, ss.VP(), predicts="noise", shape=(1, size, size))


@pytest.mark.parametrize(("count", "size"), [(1, 8), (10, 8), (64, 8), (5, 6), (3, 120)])
def test_pictures_of_images_have_gaps_and_are_read_back(
    count: int, size: int, tmp_path: Path
) -> None:
    levels = torch.randint(0, 256, (count, 1, size, size))
    x = (2 * levels.double() / 255 - 1).float()
    tiles.write_picture(tmp_path / "x.png", x)
    back = tiles.read_picture(tmp_path / "x.png", images_of(size))
    assert torch.allclose(back, x.to(back), atol=1e-6)  # to the level of grey
    with Image.open(tmp_path / "x.png") as image:
        pixels, made = np.array(image), json.loads(image.text[tiles.KEY])
    zoom, period = made["zoom"], (size + 1) * made["zoom"]
    assert np.isin(pixels[size * zoom : period], (127, 128)).all()
    assert np.isin(pixels[:, size * zoom : period], (127, 128)).all()


def test_pictures_of_others_are_tiles_without_gaps(tmp_path: Path) -> None:
    model = images_of(8)
    grey = (np.arange(16 * 24).reshape(16, 24) % 256).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "x.png")
    x = tiles.read_picture(tmp_path / "x.png", model).double()
    assert x.shape == (6, 1, 8, 8)
    assert torch.allclose(x[4, 0], torch.from_numpy(grey[8:, 8:16]) / 127.5 - 1)
    Image.fromarray(grey[:15]).save(tmp_path / "cut.png")
    with pytest.raises(ValueError, match="15 x 24 pixels, not a multiple of 8 x 8"):
        tiles.read_picture(tmp_path / "cut.png", model)


@pytest.mark.slow
@pytest.mark.parametrize(
    "said", ["", "[]", "{}", '{"gap": -1, "zoom": 1, "count": 1}', '{"gap": 0, "zoom": 0, "count": 1}',
             '{"gap": 1, "zoom": 1e400, "count": 4}', '{"gap": 1, "zoom": 1, "count": null}'],
)  # fmt: skip
def test_pictures_that_say_nonsense_are_refused(said: str, tmp_path: Path) -> None:
    words = PngImagePlugin.PngInfo()
    words.add_text(tiles.KEY, said)
    Image.new("L", (8, 8)).save(tmp_path / "x.png", pnginfo=words)
    with pytest.raises(ValueError, match="describes its tiles wrongly"):
        tiles.read_picture(tmp_path / "x.png", images_of(8))


@pytest.mark.slow
def test_points_are_drawn_where_a_picture_is_asked_for(tmp_path: Path) -> None:
    tiles.write_picture(tmp_path / "x.png", torch.randn(30, 2))
    assert Image.open(tmp_path / "x.png").size[0] > 200


@pytest.mark.slow
def test_images_are_taken_alone_and_on_any_range(written: Written, tmp_path: Path) -> None:
    x = torch.rand(3, 1, 8, 8)
    plots.images(str(tmp_path / "a.png"), x, low=0.0, high=1.0)
    plots.images(tmp_path / "b.png", {"": 2 * x - 1})
    first, second = (figure.axes[0].get_images()[0].get_array() for figure in written.figures)
    assert np.allclose(first, second, atol=1e-6)


# ---- matplotlib's own state


def draw_all(folder: Path) -> None:
    r"""Writes a picture by each of the public functions."""

    t = ss.geometry.follow(mixture(ss.EDM()), 2, solver="ddim", steps=4)
    grey = ss.geometry.follow(
        ss.GaussianOracle(torch.zeros(1, 6, 6), 1.0, ss.EDM()), 2, solver="ddim", steps=4
    )
    flat = ss.GaussianOracle(torch.zeros(1, 6, 6), 1.0, ss.EDM())
    x, points = torch.randn(3, 1, 6, 6), [(1.0, 2.0, 0.1), (2.0, 1.0, 0.1)]
    plots.scatter(folder / "points.pdf", torch.randn(9, 3))
    plots.images(folder / "images.svg", x)
    plots.animate(folder / "images.gif", torch.stack([x, -x]))
    plots.curves(folder / "curves.png", {"a": [(1.0, 2.0), (2.0, 3.0)]}, "x", "y")
    plots.bars(folder / "bars.png", {"a": 1.0, "b": 2.0}, "x")
    plots.histogram(folder / "histogram.png", {"a": (torch.randn(9), "of nine")}, "x")
    plots.work_precision(folder / "work.png", {"a": points}, [points[-1][:2]], "error")
    plots.spectrum(folder / "spectrum.png", x, followed=grey)
    plots.decided(folder / "decided.png", ss.spectra.decided(flat, flat.data(9), [0.5, 1.0, 2.0]))
    plots.errors(folder / "errors.png", {"model": [(0.2, 0.4), (2.0, 0.8)]})
    plots.losses(folder / "losses.png", {"step 9": [(0.2, 0.4), (2.0, 0.8), (8.0, 0.9)]})
    plots.trajectory(folder / "trajectory.png", t)
    plots.paths(folder / "paths.png", t)
    plots.film(folder / "film.png", grey)
    plots.samples(folder / "samples.png", torch.randn(9, 5))
    plots.before_after(folder / "edit.png", x, -x)
    band = torch.tensor([[0.25, 0.5, 0.75], [0.1, 0.3, 0.6], [0.4, 0.7, 0.9]])
    plots.ranks(folder / "ranks.png", {"a": torch.arange(4)}, 3, band)
    plots.coverage(folder / "coverage.png", {"a": torch.arange(4)}, 3, band)
    plots.density(folder / "density.png", ss.GaussianOracle(torch.zeros(1), 1.0), side=8)
    for ending in ("png", "gif", "html"):
        plots.geometry(folder / f"geometry.{ending}", t)


@pytest.mark.slow
def test_pictures_leave_backend_figures_and_style_of_the_user(tmp_path: Path) -> None:
    from matplotlib import pyplot

    before = matplotlib.get_backend()
    pyplot.switch_backend("svg")
    try:
        mine, style = pyplot.figure(), dict(matplotlib.rcParams)
        draw_all(tmp_path)
        assert len(list(tmp_path.iterdir())) == 22
        assert matplotlib.get_backend() == "svg"
        assert pyplot.get_fignums() == [mine.number]
        assert pyplot.gcf() is mine
        assert dict(matplotlib.rcParams) == style
    finally:
        pyplot.close("all")
        pyplot.switch_backend(before)


def test_every_public_picture_is_drawn_by_that_test() -> None:
    drawn = set(draw_all.__code__.co_names)
    assert set(plots.__all__) - drawn == {"MOVIES", "check_gif", "check_picture", "tile"}


def test_pictures_do_without_pyplot(tmp_path: Path) -> None:
    code = f"""
        import sys, torch
        from pathlib import Path
        from tests.scoresde.test_pictures import draw_all
        draw_all(Path({str(tmp_path)!r}))
        print("matplotlib.pyplot" in sys.modules)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("missing", ["matplotlib", "PIL", "jinja2"])
def test_a_missing_library_is_named_with_its_extra_before_the_work(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda name: None if name == missing else name)
    said = rf"need {missing}: pip install 'scoresde\[plots\]'\."
    x, c = torch.zeros(2, 1, 8, 8), ss.Comparison({"model": "none"})
    for draw in (
        lambda: check_out(tmp_path / "x.png"),
        lambda: tiles.write_picture(tmp_path / "x.png", x),
        lambda: plots.images(tmp_path / "x.png", x),
        lambda: plots.animate(tmp_path / "x.gif", x[None]),
        lambda: c.html(tmp_path / "x.html"),
    ):
        with pytest.raises(ImportError, match=said):
            draw()
    check_out(tmp_path / "x.npz")


def test_threads_that_draw_leave_the_style_of_the_user() -> None:
    style, entered, left = dict(matplotlib.rcParams), threading.Event(), threading.Event()

    def first() -> None:
        with figures.styled():
            entered.set()
            left.wait(0.2)  # in which the other would enter

    def second() -> None:
        entered.wait()
        with figures.styled():
            left.set()
            threads[0].join(1.0)  # the first would leave before

    threads = [threading.Thread(target=act) for act in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(matplotlib.rcParams) == style


# ---- density maps


def test_a_density_map_shows_the_density(written: Written, tmp_path: Path) -> None:
    means = torch.tensor([[-1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    model = ss.MixtureOracle(means, torch.tensor([0.5, 0.8]))
    box = torch.tensor([[-2.0, -1.0], [2.0, 2.0]], dtype=torch.float64)
    label = torch.tensor([1])
    for options in ({}, {"label": label}):
        found = plots.density(tmp_path / "d.png", model, box=box, side=5, over=means, **options)
        axis, bar = written.figures[-1].axes
        assert bar.get_ylabel() == "log-density (nats)"
        mesh, dots = axis.collections
        at = torch.as_tensor(np.asarray(mesh._coordinates)).reshape(-1, 2)
        t = torch.tensor(found.t_min).double()
        one = ss.GaussianOracle(means[1], 0.8)
        want = one.log_prob(at, t) if options else model.log_prob(at, t)
        shown = torch.as_tensor(np.asarray(mesh.get_array())).reshape(-1)
        assert torch.allclose(shown, want, atol=2 * found.total.max().item())
        assert mesh.get_clim()[1] == pytest.approx(shown.max().item())
        assert torch.equal(torch.as_tensor(np.asarray(dots.get_offsets())), means)
    assert Image.open(tmp_path / "d.png").size[0] > 300


def test_a_density_of_one_dimension_is_a_curve(written: Written, tmp_path: Path) -> None:
    model = ss.GaussianOracle(torch.tensor([1.0]).double(), 0.5)
    found = plots.density(tmp_path / "d.png", model, side=9)
    [axis] = written.figures[-1].axes
    x, y = (torch.as_tensor(np.asarray(v)) for v in axis.lines[0].get_data())
    assert x[[0, -1]].tolist() == pytest.approx([-0.5, 2.5])  # 3 standard deviations
    want = model.log_prob(x[:, None], torch.tensor(found.t_min).double())
    assert torch.allclose(y, want, atol=2 * found.total.max().item())


def test_a_density_map_says_what_it_is_not_of(tmp_path: Path) -> None:
    flat, deep = (ss.GaussianOracle(torch.zeros(d), 1.0) for d in (2, 3))
    for model, options, words in (
        (deep, {}, r"shape \(1,\) or \(2,\), but this one's is \(3,\)"),
        (flat, {"box": torch.zeros(2, 2)}, "the lower first"),
        (flat, {"over": torch.zeros(4, 3)}, r"over must hold samples with shape \(B, 2\)"),
        (flat, {"side": 1}, "side must be at least 2"),
    ):
        with pytest.raises(ValueError, match=words):
            plots.density(tmp_path / "d.png", model, **options)
    assert not list(tmp_path.iterdir())
