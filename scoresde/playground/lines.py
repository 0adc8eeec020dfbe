r"""The Python lines and the commands of each view. The page runs these lines, so they are what it shows."""

import inspect
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from . import densities
from .choices import Choices
from .sharing import plan_of, states_of

BUDGETS = (5, 10, 20, 40)  # beside the cost of the steps that were chosen
OTHERS = ("ddim", "dpmpp_2m", "unipc")  # beside the solver that was chosen
FEW = {
    "paths": (400, 32),
    "error": (64, 8),
    "spectra": (0, 32),
    "likelihood": (64, 4),
    "round trip": (100, 16),
}  # samples at most, of points and of digits
WITH_DATA = ("paths", "spectra", "likelihood", "round trip")
SAVE = """python -c "import numpy, model; numpy.save('x.npy', model.x)"\n"""
MODULES = {"base64.": "import base64", "math.": "import math", "np.": "import numpy as np",
           "torch.": "import torch", "Tensor": "from torch import Tensor"}  # fmt: skip

STANDARD = ("import base64", "import math")


@dataclass(frozen=True)
class Lines:
    r"""What one view is made by.

    Arguments:
        run: The Python lines of the measurement, in terms of `model`, `exact` and `x`.
        draw: The lines that draw its file and state its `figures`.
        command: The command that makes the same from model.py and, where it reads data, x.npy.
        name: The name of the file that the lines draw.
        planned: Whether it follows a plan; else only solver, steps, grid and eta.
    """

    run: str
    draw: str
    command: str
    name: str
    planned: bool = False


FOLLOW = "t = ss.geometry.follow(model, {count}, {run}, seed={seed})\n"
VIEWS: Mapping[str, Lines] = MappingProxyType({
    "paths": Lines(
        FOLLOW,
        "ss.plots.paths({file}, t, step={state})\n"
        "figures = {{\"noise level\": float(t.levels[{state}])}}\n"
        "apart = energy_distance(t.guided[-1].flatten(1), x.flatten(1))\n"
        "figures[\"energy distance of the last estimates to data\"] = apart\n",
        "scoresde plot paths model.py:model -n {count} --step {state} {options} --seed {seed} --out {name}",
        "paths.png",
        planned=True,
    ),
    "geometry": Lines(
        "t = ss.geometry.follow(model, 1, {run}, seed={seed})\n",
        "ss.plots.geometry({file}, t, step={step})\n"
        "figures = ss.geometry.measure(t)[{step}]\n",
        "scoresde plot geometry model.py:model --step {step} {options} --seed {seed} --out {name}",
        "geometry.png",
        planned=True,
    ),
    "error": Lines(
        "c = ss.compare(model, {solvers}, {budgets}, {grids}samples={count}, seed={seed},\n"
        "               reference_tolerance=1e-4, progress=False)\n",
        "c.plot({file})\n"
        "figures = {{f\"{{row.solver}}, {{row.budget:g}} calls\": row.value(\"error\") for row in c.rows}}\n",
        "scoresde compare model.py:model --solvers {names} --budgets {calls} {gridded}-n {count} --seed {seed} "
        "--reference-tolerance 1e-4 --plot {name}",
        "error.png",
    ),
    "spectra": Lines(
        FOLLOW,
        "hinges = ss.plots.spectrum({file}, x, followed=t, seed={seed})\n"
        "figures = {{f\"hinge at noise level {{s:g}}, cycles per pixel\": at for s, at in hinges.items()}}\n",
        SAVE + "scoresde plot spectrum model.py:model --data x.npy -n {count} {options} --seed {seed} "
        "--out {name}",
        "spectra.png",
        planned=True,
    ),
    "likelihood": Lines(
        "l = ss.log_likelihood(model, x, {run}, {probes}seed={seed})\n",
        "budget = {{part: float(error.nanmean()) for part, error in l.budget.items()}}\n"
        "ss.plots.bars({file}, {{part: error for part, error in budget.items() if error > 0}}, \"nats\")\n"
        "figures = {{\"nats\": float(l.nats.mean()), \"possible error\": float(l.total.mean()), **budget}}\n",
        SAVE + "scoresde likelihood model.py:model --data x.npy {options} {probed}--seed {seed} --json",
        "budget.png",
    ),
    "round trip": Lines(
        "r = ss.reconstruct(model, x, {run})\n",
        "latents = r.latent.x / r.latent.x.std() / 2\n"
        "ss.plots.samples({file}, {{\"data\": x, \"latents\": latents, \"what comes back\": r.x}})\n"
        "figures = {{\"root mean square error\": float(r.rms.mean()), \"largest error\": float(r.max.max())}}\n"
        "figures[\"calls per sample\"] = float(r.calls.double().mean())\n",
        SAVE + "scoresde encode model.py:model --data x.npy {options} --out latents.npz\n"
        "scoresde decode model.py:model --data latents.npz --no-denoise --out back.npy",
        "round_trip.png",
    ),
})  # fmt: skip


def model_lines(choices: Choices) -> str:
    r"""Returns the lines that define `exact`, `model` and the data `x`: the content of model.py."""

    make = getattr(densities, choices.data)
    sources = [make, *([densities.Planted] if choices.error else [])]
    source = "\n\n".join(inspect.getsource(part).rstrip() + "\n" for part in sources)
    ink = f", {_text(choices.ink)}" if choices.data == "drawn" else ""
    lines = [
        f"exact = {choices.data}(ss.{choices.process}(){ink})",
        _model(choices),
        *_data(choices),
    ]
    body = f"{source}\n\n" + "\n".join(lines) + "\n"
    return f"{_imports(body, choices)}\n\n\n{body}"


def view_lines(choices: Choices, file: str | None = None) -> tuple[str, str]:
    r"""Returns the lines that measure, and those that draw and state `figures`.

    Arguments:
        choices: The choices.
        file: The file to draw. By default, that of the view in the working directory.
    """

    view, words = VIEWS[choices.show], _words(choices)
    words["file"] = _text(view.name if file is None else file)
    return _plan_line(choices) + view.run.format(**words), view.draw.format(**words)


def command_lines(choices: Choices) -> str:
    r"""Returns the command that makes the view, beside model.py, plan.json if there is a plan, and x.npy."""

    view = VIEWS[choices.show]
    return view.command.format(**_words(choices), name=view.name) + "\n"


def script(choices: Choices) -> str:
    r"""Returns the whole Python script of a view."""

    return f"{model_lines(choices)}\n{''.join(view_lines(choices))}print(figures)\n"


def last_state(choices: Choices) -> int:
    r"""Returns the number of the last state of a run, which is the number of its steps."""

    return states_of(plan_of(choices.plan)) if choices.plan else choices.steps


def check_view(choices: Choices) -> None:
    r"""Refuses a view that the data or a plan does not have."""

    if choices.show == "spectra" and choices.data != "digits":
        raise ValueError(f"spectra are of images, but {choices.data} are points; choose digits.")
    if choices.plan and not VIEWS[choices.show].planned:
        known = ", ".join(name for name, view in VIEWS.items() if view.planned)
        raise ValueError(
            f"the view {choices.show!r} follows solver, steps, grid and eta, but there is a plan; empty the "
            f"field of the plan, or look at one of {known}."
        )
    if choices.show == "error" and choices.eta is not None:
        raise ValueError(
            f"eta is {choices.eta:g}, but solvers are compared with their own amount of noise; leave eta empty."
        )
    if choices.data == "drawn" and not choices.ink:
        raise ValueError("there is no drawing; draw something, or choose other data.")


def _words(c: Choices) -> dict[str, str]:
    r"""What the lines and commands of views are filled with."""

    last, image = last_state(c), c.data == "digits"
    names, budgets = list(dict.fromkeys([c.solver, *OTHERS])), sorted({*BUDGETS, c.steps + 1})
    options = (
        "--plan plan.json" if c.plan else " ".join(f"--{n} {_word(v)}" for n, v in c.run.items())
    )
    return {
        "run": "plan=plan" if c.plan else ", ".join(f"{n}={_text(v)}" for n, v in c.run.items()),
        "options": options,
        "seed": str(c.seed),
        "count": str(_count(c)),
        "state": str(min(c.step, last)),
        "step": str(min(c.step, last - 1)),  # of the first state of a step
        "solvers": "[" + ", ".join(map(_text, names)) + "]",
        "names": _word(",".join(names)),
        "budgets": str(budgets),
        "calls": ",".join(map(str, budgets)),
        "grids": f"grids=[{_text(c.grid)}], " if c.grid else "",
        "gridded": f"--grids {_word(c.grid)} " if c.grid else "",
        "probes": "probes=1, " if image else "",
        "probed": "--probes 1 " if image else "",
    }


def _imports(body: str, c: Choices) -> str:
    r"""The imports that the lines need, in their usual blocks."""

    needed = [line for word, line in MODULES.items() if word in body]
    ours = ["import scoresde as ss"]
    if c.show == "paths":
        ours.append("from scoresde.metrics import energy_distance")
    if c.data == "digits" and c.show in WITH_DATA:
        ours.append("from scoresde.training import digits_data")
    plain = [line for line in needed if line in STANDARD]
    others = [line for line in needed if line not in STANDARD]
    return "\n\n".join("\n".join(block) for block in (plain, others, ours) if block)


def _model(c: Choices) -> str:
    exact = f"Planted(exact, {c.error!r})" if c.error else "exact"
    if c.label is None:
        return f"model = {exact}"
    if c.guidance is None:
        return f"model = {exact}.given(label={c.label})"
    limits = f"({c.guide_from!r}, {_number(c.guide_to)})"
    whole = limits == '(0.0, float("inf"))'
    within = "" if whole else f", interval={limits}"
    return f"model = ss.classifier_free({exact}, {c.guidance!r}{within}, label={c.label})"


def _data(c: Choices) -> list[str]:
    r"""The lines that make data to compare with, of the label if there is one."""

    count = _count(c)
    if c.show not in WITH_DATA:
        return []
    if c.data == "digits":
        mine = "" if c.label is None else f"[test.labels == {c.label}]"
        return ['test = digits_data.digits("test")', f"x = test.images{mine}[:{count}]"]
    if c.label is None:
        return [f"x = exact.data({count}, seed=1)"]
    return [
        f"x = ss.sample(exact.given(label={c.label}), {count}, rtol=1e-4, atol=1e-4, seed=1).x"
    ]


def _count(c: Choices) -> int:
    r"""The number of samples of a view."""

    return min(c.samples, FEW[c.show][c.data == "digits"]) if c.show in FEW else 1


def _plan_line(c: Choices) -> str:
    if not c.plan:
        return ""
    plan = plan_of(c.plan)
    said = [f"{plan.options!r}"]
    if plan.noise_levels is not None:
        said.append(f"noise_levels={plan.noise_levels!r}")
    if plan.additions:
        said.append(f"additions={plan.additions!r}")
    return f"plan = ss.Plan({', '.join(said)})\n"


def _number(value: float) -> str:
    return 'float("inf")' if value == float("inf") else repr(value)


def _word(value: object) -> str:
    return shlex.quote(str(value))


def _text(value: object) -> str:
    r"""A value in Python, with double quotes around plain text."""

    plain = isinstance(value, str) and value.isprintable() and not set(value) & set('"\\')
    return f'"{value}"' if plain else repr(value)
