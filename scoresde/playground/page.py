r"""The page: controls on the left, one view on the right, and below it the code and the files to share."""

import hashlib
import html
import math
import shutil
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
import numpy as np

import solvers

from ..runs.grids import NAMES
from ..training import TrainingError
from .choices import CLASSES, KINDS, PROCESSES, USUAL, VIEWS, Choices, read
from .drawing import ink_of
from .sharing import address, files, opened
from .stopping import Stopped, until
from .views import View, view

OURS = (
    ValueError,
    TypeError,
    OSError,
    ImportError,
    solvers.SolverError,
    TrainingError,
    Stopped,
)
MINUTE = 60  # seconds
KEPT = (
    MINUTE,
    60 * MINUTE,
)  # how often files that gradio copied are looked at, and how old they get
CANVAS = 240  # pixels of the drawing along each side
NARROW = 125  # pixels of a small control, of which two fit beside each other
AT_ONCE = 4  # views that are computed at the same time
STYLE = """
#sentence .said {border-left: 4px solid var(--color-accent); padding: 0.3em 0.8em; margin: 0.2em 0}
#picture img {background: white; object-fit: contain; width: 100%}
"""
FOLLOW_ADDRESS = """(address) => {
  const theme = new URLSearchParams(window.location.search).get("__theme");
  const link = new URL(address);
  if (theme) link.searchParams.set("__theme", theme);
  window.history.replaceState(null, "", link);
}"""  # shows the settings in the address of the browser


class Page:
    r"""Creates the page.

    Arguments:
        folder: The folder for what is written for each session.
        base: The address at which the page is served.
    """

    def __init__(self, folder: Path, base: str) -> None:
        self.folder, self.base = folder, base
        self.running: dict[str, Event] = {}  # of each session
        self.controls: dict[str, gr.components.Component] = {}
        with gr.Blocks(title="scoresde playground", analytics_enabled=False, fill_width=True,
                       delete_cache=KEPT) as self.blocks:  # fmt: skip
            gr.Markdown("# scoresde playground")
            with gr.Row():
                with gr.Column(scale=1, min_width=300):
                    self._draw_controls()
                with gr.Column(scale=2, min_width=300):
                    self._draw_view()
            self._connect()

    def _draw_controls(self) -> None:
        add = self._add
        with gr.Accordion("Data and model"):
            add("data", gr.Radio([*CLASSES], label="data", value=USUAL.data, elem_id="data"))
            with gr.Accordion("Draw a density", open=False):
                self.sketch = gr.Sketchpad(
                    show_label=False, canvas_size=(CANVAS, CANVAS), height=CANVAS + 120, layers=False,
                    transforms=(), brush=gr.Brush(default_size=14, colors=["#000000"], color_mode="fixed"),
                    type="numpy", elem_id="sketch", fixed_canvas=True,
                )  # fmt: skip
            add("ink", gr.Textbox(label="ink", visible=False))
            with gr.Row():
                add("process", _choice("process", [*PROCESSES], "of the noise"))
                add("error", _number("error", "planted, from -2 to 2"))
        with gr.Accordion("Guidance"), gr.Row():
            add("label", _number("label", "a class, or empty"))
            add("guidance", _number("guidance", "its scale, or empty"))
            add("guide_from", _number("guide_from", "lowest noise level"))
            add("guide_to", _number("guide_to", "highest, or empty"))
        with gr.Accordion("Solver"), gr.Row():
            add("solver", _choice("solver", [*solvers.available()], "by name"))
            add("steps", _number("steps", "of the grid, 1 to 200"))
            add("grid", _choice("grid", ["", *NAMES], "empty: the usual one"))
            add("eta", _number("eta", "noise, or empty"))
            add("samples", _number("samples", "4 to 400"))
            add("seed", _number("seed", "of noise and data"))
        with gr.Accordion("Plan", open=False):
            add("plan", gr.Textbox(label="plan", lines=3, max_lines=6, elem_id="plan",
                                   info="JSON of a plan, instead of solver, steps, grid and eta"))  # fmt: skip

    def _draw_view(self) -> None:
        self._add("show", gr.Radio([(words, name) for name, words in VIEWS.items()], label="show",
                                   value=USUAL.show, elem_id="show"))  # fmt: skip
        self.sentence = gr.HTML(elem_id="sentence")
        self.picture = gr.Image(label="picture", type="filepath", interactive=False, elem_id="picture",
                                show_label=False, buttons=["download", "fullscreen"])  # fmt: skip
        self._add(
            "step", gr.Slider(0, USUAL.steps, USUAL.step, step=1, label="step", elem_id="step")
        )
        self.stop = gr.Button("Stop", size="sm", elem_id="stop")
        self.figures = gr.Dataframe(
            headers=["figure", "value"],
            column_widths=["65%", "35%"],
            label="figures",
            interactive=False,
            wrap=True,
        )
        with gr.Accordion("The code for this", open=False):
            self.script = gr.Code(
                language="python", label="Python", interactive=False, elem_id="script"
            )
            self.command = gr.Code(language="shell", label="command, beside model.py", interactive=False,
                                   elem_id="command")  # fmt: skip
        with gr.Accordion("Share", open=False):
            self.link = gr.Textbox(label="address with these settings", interactive=False, elem_id="link",
                                   buttons=["copy"])  # fmt: skip
            self.shared = gr.File(
                label="model.py, plan.json and settings.json",
                interactive=False,
                file_count="multiple",
            )
            self.upload = gr.UploadButton(
                "Open a plan or settings", file_types=[".json"], elem_id="upload"
            )

    def _add(self, name: str, control: gr.components.Component) -> None:
        self.controls[name] = control

    def _connect(self) -> None:
        inputs = [self.controls[name] for name in KINDS]
        outputs = [self.sentence, self.picture, self.controls["step"], self.figures, self.script,
                   self.command, self.link, self.shared]  # fmt: skip
        run = {"inputs": inputs, "outputs": outputs, "concurrency_limit": AT_ONCE, "concurrency_id": "show",
               "api_visibility": "private", "show_progress_on": [self.picture], "preprocess": False}  # fmt: skip
        typed = [name for name in KINDS if name not in ("step", "ink")]
        changed = [*(self.controls[name].input for name in typed), self.controls["plan"].blur]
        gr.on(changed, self.show, trigger_mode="multiple", **run)
        self.controls["step"].input(self.show, trigger_mode="always_last", **run)
        quick = {"api_visibility": "private", "show_progress": "hidden"}
        drawn = [self.controls["ink"], self.controls["data"]]
        marked = self.sketch.change(
            self.take_drawing, self.sketch, drawn, trigger_mode="always_last", **quick
        )
        marked.then(self.show, **run)
        every = {"outputs": [*(c for name, c in self.controls.items() if name != "step"), *outputs],
                 "api_visibility": "private", "show_progress_on": [self.picture]}  # fmt: skip
        self.blocks.load(self.take_address, None, **every)
        self.upload.upload(self.take_file, [self.upload, *inputs], **every)
        self.stop.click(self.halt, queue=False, **quick)
        self.link.change(None, self.link, None, js=FOLLOW_ADDRESS, **quick)
        self.blocks.unload(self.leave)

    def show(self, request: gr.Request, *values: object) -> list[Any]:
        r"""Returns the new content of the view, or a sentence and the last picture."""

        session, asked = _session(request), Event()
        before, self.running[session] = self.running.get(session), asked
        if before is not None:
            before.set()  # whose choices are no longer those of the page
        try:
            choices = read(dict(zip(KINDS, values, strict=True)))
            with until(asked):
                found = view(choices, self._room(session))
            new = self._shown(choices, found, session)
        except OURS as error:
            new = [_said(error), *[gr.skip()] * 7]
        return new if self.running.get(session) is asked else [gr.skip()] * 8

    def _shown(self, choices: Choices, found: View, session: str) -> list[Any]:
        room = self._room(session)
        (room / "model.py").write_text(found.model)
        written = [str(room / "model.py"), *map(str, files(choices, room))]
        rows = [[name, _value(value)] for name, value in found.figures.items()]
        last = found.last - (choices.show == "geometry")
        moves = choices.show in ("paths", "geometry")
        slider = gr.update(maximum=last, value=min(choices.step, last), visible=moves)
        return [_said(*found.warnings), str(found.picture), slider, rows, found.script, found.command,
                address(self.base, choices), written]  # fmt: skip

    def halt(self, request: gr.Request) -> None:
        r"""Stops what the session computes."""

        if (asked := self.running.get(_session(request))) is not None:
            asked.set()

    def leave(self, request: gr.Request) -> None:
        r"""Stops what a closed page computes, and removes its files."""

        self.halt(request)
        session = _session(request)
        self.running.pop(session, None)
        shutil.rmtree(self.folder / "sessions" / session, ignore_errors=True)

    def take_drawing(self, drawing: dict[str, Any]) -> list[Any]:
        r"""Returns a drawing as text, and the choice of it as data."""

        ink = ink_of(_strokes(drawing))
        return [ink, "drawn" if ink else gr.skip()]

    def take_address(self, request: gr.Request) -> list[Any]:
        r"""Returns the controls and the view of the page's address, or the usual ones and a sentence."""

        words = {n: w for n, w in dict(request.query_params).items() if not n.startswith("__")}
        try:
            return self._opened(request, read(words))
        except OURS as error:
            return self._opened(request, USUAL, error)

    def take_file(self, request: gr.Request, file: str, *values: object) -> list[Any]:
        r"""Returns the controls and the view of a file of settings, or with a plan; or a sentence."""

        try:
            now = read(dict(zip(KINDS, values, strict=True)))
        except OURS:
            now = USUAL
        try:
            return self._opened(request, opened(Path(file), now))
        except OURS as error:
            return [*[gr.skip()] * (len(KINDS) - 1), _said(error), *[gr.skip()] * 7]

    def _opened(self, request: gr.Request, choices: Choices, *said: object) -> list[Any]:
        values = {name: _shown_value(name, getattr(choices, name)) for name in KINDS}
        new = self.show(request, *values.values())
        shown = [values[name] for name in self.controls if name != "step"]
        return [*shown, *([_said(*said)] if said else new[:1]), *new[1:]]

    def _room(self, session: str) -> Path:
        room = self.folder / "sessions" / session
        room.mkdir(parents=True, exist_ok=True)
        return room


def _session(request: gr.Request) -> str:
    r"""The name of a session, which is safe as that of a folder, whatever the browser says."""

    return hashlib.sha256(str(request.session_hash).encode()).hexdigest()[:16]


def _number(name: str, info: str) -> gr.Number:
    value = _shown_value(name, getattr(USUAL, name))
    return gr.Number(label=name, info=info, value=value, min_width=NARROW, elem_id=name)


def _choice(name: str, known: list[str], info: str) -> gr.Dropdown:
    r"""A list of known words, in which others can be typed, such as a grid with numbers."""

    value = _shown_value(name, getattr(USUAL, name))
    return gr.Dropdown(known, label=name, info=info, value=value, min_width=NARROW, elem_id=name,
                       allow_custom_value=True)  # fmt: skip


def _shown_value(name: str, value: object) -> object:
    if name == "grid" and value is None:
        return ""
    return None if value == math.inf else value


def _strokes(drawing: dict[str, Any] | None) -> np.ndarray | None:
    layers = (drawing or {}).get("layers") or []
    return np.asarray(layers[0]) if layers else None


def _value(value: float | None) -> str:
    return "not known" if value is None or math.isnan(value) else f"{value:.4g}"


def _said(*words: object) -> str:
    r"""Sentences as a paragraph that screen readers announce."""

    return "".join(f'<p class="said" role="alert">{html.escape(str(word))}</p>' for word in words)
