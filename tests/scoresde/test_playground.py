r"""The playground without its page: choices, the lines that make a view, and what they share."""

import base64
import contextlib
import json
import math
import sys
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import scoresde as ss
from scoresde.cli import playground as command
from scoresde.cli.app import app
from scoresde.playground import densities, drawing, serving, sharing, warned
from scoresde.playground.choices import CLASSES, PROCESSES, VIEWS, Choices, read, written
from scoresde.playground.lines import script
from scoresde.playground.stopping import Stoppable, Stopped, until
from scoresde.playground.views import view

SMALL = {"samples": 8, "steps": 3, "step": 2}
INK = drawing.ink_of(np.pad(np.ones((10, 20, 4)), ((0, 230), (0, 220), (0, 0))))
PLAN = ss.Plan({"solver": "ddim", "grid": None}, noise_levels=(50.0, 2.0, 0.1))

some = st.fixed_dictionaries(
    {},
    optional={
        "show": st.sampled_from([*VIEWS]),
        "process": st.sampled_from([*PROCESSES]),
        "error": st.floats(-2, 2),
        "solver": st.sampled_from(["ddim", "heun", "torchsde/srk"]),
        "steps": st.integers(1, 200),
        "grid": st.sampled_from(["rho", "rho:5"]),
        "samples": st.integers(4, 400),
        "seed": st.integers(0, 9),
        "guide_to": st.floats(0.1, math.inf),
    },
)


@given(some)
def test_an_address_keeps_every_choice(words: dict[str, object]) -> None:
    choices = read(words)
    address = sharing.address("http://127.0.0.1:7860/", choices)
    assert read(dict(parse_qsl(urlsplit(address).query))) == choices


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"colour": "red"}, "has no setting 'colour'; it has show, data"),
        ({"show": "nothing"}, "show must be one of paths, geometry"),
        ({"data": "stars"}, "data must be one of pair, ring, moons, drawn, digits, but is 'stars'"),
        ({"process": "XY"}, "process must be one of EDM"),
        ({"error": "much"}, "error must be a number, but is 'much'"),
        ({"error": "nan"}, "error must be a number, but is 'nan'"),
        ({"error": 3}, "error must be a finite number >= -2, at most 2, but is 3"),
        ({"label": 2}, "label is 2, but moons has classes 0 to 1"),
        ({"label": -1}, "label must be at least 0"),
        ({"data": "drawn", "ink": INK, "label": 0}, "drawn has no classes; leave label empty"),
        ({"guidance": 2}, "guidance leads towards a class; choose a label, too"),
        ({"guidance": "1e9", "label": 1}, "guidance must be a finite number"),
        ({"guide_from": 3, "guide_to": 2}, "guide_from must be below guide_to"),
        ({"solver": "dpmp_2m"}, "solver 'dpmp_2m' is unknown; did you mean 'dpmpp_2m'"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": 2.5}, "steps must be a whole number, but is 2.5"),
        ({"steps": 100000}, "steps must be at most 200"),
        ({"grid": "log"}, "grid"),
        ({"eta": -1}, "eta must be"),
        ({"samples": 1}, "samples must be at least 4"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"step": "x"}, "step must be a number"),
        ({"ink": "??"}, "ink must hold 576 squares"),
        ({"plan": "{"}, "plan is not a plan: it is not JSON text"),
        ({"plan": "{\"kind\": \"other\"}"}, "plan is not a plan written by scoresde"),
        ({"show": "spectra"}, "spectra are of images, but moons are points; choose digits"),
        ({"data": "drawn"}, "there is no drawing"),
        ({"show": "error", "eta": 0.5}, "eta is 0.5, but solvers are compared with their own"),
        ({"show": "likelihood", "solver": "ancestral"}, "ancestral"),
        ({"show": "round trip", "eta": 0.5, "solver": "ddim"}, "eta"),
    ],
)  # fmt: skip
def test_a_wrong_choice_is_a_sentence(
    words: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        view(read(words), tmp_path)
    assert sentence in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_drawing_becomes_the_data_where_it_was_drawn() -> None:
    r"""Its first 10 rows and 20 columns of 240 pixels are the first square and the first two."""

    points = densities.drawn(ss.EDM(), INK).points
    assert points.tolist() == [[-11.5 / 8, 11.5 / 8], [-10.5 / 8, 11.5 / 8]]
    assert drawing.ink_of(np.zeros((240, 240, 4))) == drawing.ink_of(None) == ""
    with pytest.raises(ValueError, match="some of them marked"):
        drawing.check_ink(base64.urlsafe_b64encode(bytes(72)).decode())


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_the_planted_error_is_the_stated_one(process: type[ss.Process]) -> None:
    exact = densities.ring(process())
    t = torch.tensor([exact.process.time(-math.log(s)) for s in (0.05, 1.0, 10.0)])
    alpha, sigma = (s[:, None] for s in exact.process.scales(t))
    x, s = torch.randn(3, 2), sigma / alpha
    wrong = densities.Planted(exact, 0.3).denoise(x, t) - exact.denoise(x, t)
    stated = 0.3 * s**2 / (1 + s**2) * torch.sin(3 * x / alpha / (1 + s**2) ** 0.5)
    assert torch.allclose(wrong, stated, atol=1e-12)
    label = torch.tensor([4])
    given = densities.Planted(exact, 0.0).denoise(x, t, label=label)
    assert torch.equal(given, exact.denoise(x, t, label=label))


def test_a_stoppable_model_is_the_same_until_it_is_stopped() -> None:
    model = ss.classifier_free(densities.ring(ss.VP()), 2.0, label=1)
    asked = threading.Event()
    with until(asked):
        for verb in (
            lambda m: ss.sample(m, 3, steps=4, seed=0).x,
            lambda m: ss.log_likelihood(m, torch.zeros(2, 2), steps=8).nats,
            lambda m: ss.geometry.follow(m, 2, steps=3).push,
        ):
            assert torch.equal(verb(Stoppable(model)), verb(model))
        asked.set()
        for verb in (
            lambda m: ss.sample(m, 3, steps=4, seed=0),
            lambda m: ss.compare(m, ["ddim"], [4], samples=4, progress=False),
        ):
            with pytest.raises(Stopped, match="stopped"):
                verb(Stoppable(model))
    assert ss.sample(Stoppable(model), 3, steps=4, seed=0).ok


def ran(text: str, folder: Path) -> dict:
    r"""The names that lines define which run in a folder, as they do in a process of their own."""

    names: dict = {}
    with contextlib.chdir(folder):
        exec(text, names)
    return names


def commanded(text: str, folder: Path) -> str:
    r"""What the last of some commands prints, run in a folder that holds model.py."""

    said = ""
    with contextlib.chdir(folder):
        for line in text.splitlines():
            if line.startswith("python"):
                names = ran((folder / "model.py").read_text(), folder)
                np.save("x.npy", names["x"])
                continue
            words = line.split()
            assert words.pop(0) == "scoresde"
            done = CliRunner().invoke(app, words)
            sys.modules.pop("model", None)
            assert done.exit_code == 0, done.exception
            said = done.stdout
    return said


@pytest.fixture
def float32() -> None:
    torch.set_default_dtype(torch.float32)


CHOICES = [
    {"show": "paths", "data": "pair", "error": 0.1},
    {"show": "geometry", "data": "ring", "plan": json.dumps({"kind": "plan of scoresde", **vars(PLAN)})},
    {"show": "likelihood", "data": "pair", "samples": 4, "solver": "heun", "grid": "rho:5"},
    {"show": "round trip", "data": "ring", "label": 3, "process": "Interpolant"},
    *(pytest.param(words, marks=pytest.mark.slow) for words in (
        {"show": "paths", "data": "drawn", "ink": INK, "solver": "ancestral", "eta": 0.5},
        {"show": "geometry", "data": "moons", "label": 1, "guidance": 2, "guide_to": 9, "process": "VP"},
        {"show": "error", "data": "pair", "samples": 4, "grid": "tan"},
        {"show": "paths", "data": "digits", "label": 3, "guidance": 2},
        {"show": "spectra", "data": "digits", "process": "SubVP"},
        {"show": "likelihood", "data": "digits", "samples": 4},
        {"show": "round trip", "data": "digits", "process": "VE"},
    )),
]  # fmt: skip


@pytest.mark.parametrize("words", CHOICES, ids=lambda words: f"{words['show']}-{words['data']}")
def test_the_code_for_a_view_makes_it(
    words: dict[str, object], tmp_path: Path, float32: None
) -> None:
    choices, mine = read({**SMALL, **words}), tmp_path / "mine"
    mine.mkdir()
    found = view(choices, tmp_path)
    names = ran(script(choices), mine)
    assert names["figures"] == pytest.approx(found.figures, nan_ok=True)
    picture = (mine / found.picture.name).read_bytes()
    assert picture == found.picture.read_bytes()
    (mine / found.picture.name).unlink()
    (mine / "model.py").write_text(found.model)
    sharing.files(choices, mine)
    said = commanded(found.command, mine)
    if choices.show == "likelihood":
        assert json.loads(said)["nats"] == pytest.approx(found.figures["nats"], rel=1e-6)
    elif choices.show == "round trip":
        back = np.load(mine / "back.npy") - np.load(mine / "x.npy")
        assert np.abs(back).max() == pytest.approx(found.figures["largest error"], rel=1e-3)
    else:
        assert (mine / found.picture.name).read_bytes() == picture


def test_files_bring_the_choices_back(tmp_path: Path) -> None:
    choices = read({"data": "ring", "label": 3, "solver": "heun", "steps": 7, "eta": None})
    plan, settings = sharing.files(choices, tmp_path)
    assert sharing.opened(settings, Choices()) == choices
    mine = sharing.opened(plan, read({"data": "pair", "seed": 3}))
    assert mine == read({"data": "pair", "seed": 3, "solver": "heun", "steps": 7})
    assert ss.Plan.load(plan).options == {"solver": "heun", "steps": 7}
    mine = sharing.opened(PLAN.save(tmp_path / "own.json"), choices)
    assert sharing.plan_of(mine.plan) == PLAN
    assert read(written(mine)) == mine
    assert sharing.files(mine, tmp_path)[0].read_text() == (tmp_path / "own.json").read_text()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("no JSON", "mine.json is not JSON text"),
        ("[1]", "mine.json is neither a plan nor settings"),
        ("{\"kind\": \"settings of the playground of scoresde\"}", "mine.json has no settings"),
        ("{\"kind\": \"settings of the playground of scoresde\", \"settings\": {\"steps\": []}}", "steps must be"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        sharing.opened(file, Choices())


@pytest.mark.parametrize("show", ["error", "likelihood", "round trip"])
def test_a_view_without_plans_says_so(show: str, tmp_path: Path) -> None:
    text = PLAN.save(tmp_path / "plan.json").read_text()
    with pytest.raises(ValueError, match="but there is a plan; empty the field of the plan"):
        view(read({"show": show, "plan": text}), tmp_path)


def test_a_plan_ends() -> None:
    text = json.dumps(
        {"kind": "plan of scoresde", **vars(ss.Plan({"solver": "ddim", "steps": 10**6}))}
    )
    with pytest.raises(ValueError, match="steps of the plan must be at most 200"):
        view(read({"plan": text}), Path())


def test_no_text_becomes_code(tmp_path: Path) -> None:
    r"""Words of users stay quoted, in lines that are run and in commands."""

    grid = 'rho"); raise SystemExit("; $(reboot)'
    with pytest.raises(ValueError, match="grid"):
        view(read({"grid": grid}), tmp_path)
    found = written(Choices(solver="DPM++ 2M Karras"))
    assert "--solver 'DPM++ 2M Karras'" in view(read({**SMALL, **found}), tmp_path).command


def test_usual_choices_need_no_words_and_every_kind_of_data_has_its_lines() -> None:
    assert set(written(Choices())) == set()
    assert all(callable(getattr(densities, name)) for name in CLASSES)


def test_warnings_belong_to_their_session() -> None:
    import warnings

    told: dict[str, list[str]] = {}

    def session(name: str) -> None:
        with warned.heard() as words:
            for _ in range(2):
                warnings.warn(f"of {name}", UserWarning, stacklevel=1)
        told[name] = words

    with warned.listening():
        threads = [threading.Thread(target=session, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert told == {"a": ["of a"], "b": ["of b"]}


def test_a_taken_port_is_a_sentence() -> None:
    import socket

    with socket.socket() as place:
        place.bind((serving.HOST, 0))
        place.listen()
        port = place.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} cannot be used .*; pass another as port="):
            serving.check_port(port)
    for port in (0, 70000):
        with pytest.raises(ValueError, match=r"port must lie in \[1, 65535\]"):
            serving.check_port(port)


def test_without_a_browser_the_address_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @contextlib.contextmanager
    def served(folder: Path | None, port: int) -> Iterator[tuple[str, Path]]:
        yield f"http://127.0.0.1:{port}/", tmp_path

    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "served", served)
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    monkeypatch.setattr(threading.Event, "wait", interrupted)
    done = CliRunner().invoke(app, ["playground", "--open", "--port", "7999"])
    assert done.stdout.splitlines()[:2] == [
        "playground: http://127.0.0.1:7999/",
        f"files: {tmp_path}",
    ]
    assert done.stdout.endswith("ended.\n")
    assert done.stderr == "no browser was found; open http://127.0.0.1:7999/ in one.\n"


def test_a_missing_library_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    monkeypatch.setattr(serving, "check_port", lambda port: None)
    with (
        pytest.raises(ImportError, match=r"pip install 'scoresde\[playground\]'"),
        serving.served(),
    ):
        pass


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OSError, match=r"folder .* cannot be written"),
        serving.within(tmp_path / "file"),
    ):
        pass
