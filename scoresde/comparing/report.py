r"""A comparison as a self-contained page: tables, curves, pictures, and the command to repeat it."""

import base64
import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from .. import plots
from ..models.conditions import Condition, check_conditions
from ..models.score_model import ScoreModel
from ..plots.drawn import drawing_of
from ..plots.figures import check_libraries
from ..runs.plan import describe_conditions, fingerprint
from ..runs.takes import check_model
from ..sampling import sample
from .measured import Measured
from .tables import entries, notes

TEMPLATE = Path(__file__).with_name("report.html")
SHOWN, PICTURES, POINTS = 10, 16, 400  # solvers; images and points of each


def write_report(
    c: Measured, file: Path, model: ScoreModel | None, **condition: Condition
) -> Path:
    r"""Writes the page.

    Arguments:
        c: The comparison.
        file: The file to write.
        model: The model, to show samples of each solver, of any data that :func:`scoresde.plots.samples` draws.
        condition: Conditions of the model, each with leading size 1.

    Raises:
        ImportError: If jinja2 or matplotlib is missing.
    """

    check_libraries()
    from jinja2 import Environment

    page = Environment(autoescape=True).from_string(TEMPLATE.read_text())
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        curves = [(name, _embed(c.plot(room / "curves.png", name))) for name in _metrics(c)]
        budget, groups, missing = _pictures(c, model, condition)
        if groups:
            plots.samples(room / "samples.png", groups, across=min(3, len(groups)))
        pictures = _embed(room / "samples.png") if groups else None
    table = entries(c)
    text = page.render(
        title=f"Solvers on {c.setup['model']}",
        notes=[*notes(c), *([f"no pictures of samples: {missing}"] if missing else [])],
        head=list(table[0]) if table else [],
        table=[list(row.values()) for row in table],
        curves=curves,
        pictures=pictures,
        budget=budget,
        best=[
            (n, p.calls, p.value, p.row.options.get("plan") or str(c.plan(p.row)))
            for n in _metrics(c)
            for p in c.front(n)
        ],
        call=_call(c),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def _metrics(c: Measured) -> list[str]:
    return [name for name in c.setup["metrics"] if c.points(name)]


def _pictures(
    c: Measured, model: ScoreModel | None, condition: Mapping[str, Condition]
) -> tuple[float | None, dict[str, Tensor], str]:
    r"""Samples of each solver at equal calls, for the budget nearest to ten; or why there are none."""

    if model is None:
        return None, {}, "pass the model, c.html(file, model), to draw some"
    _check_same(c, model, condition)
    if model.shape is None:
        return None, {}, "the model does not know the shape of its samples"
    try:
        drawing_of(tuple(model.shape))
    except ValueError as error:
        return None, {}, str(error).removesuffix(".")
    rows = [row for row in c.rows if row.status == "ok" and row.grid not in ("plan", "tolerance")]
    if not rows:
        return None, {}, "no solver on a grid succeeded"
    budget = min({row.budget for row in rows}, key=lambda b: abs(b - 10))
    count = PICTURES if len(model.shape) == 3 else POINTS
    given, groups = model.given(**check_conditions(model, condition, count)), {}
    for row in [row for row in rows if row.budget == budget][:SHOWN]:
        s = sample(given, count, plan=c.plan(row), seed=c.setup["seed"])
        groups[f"{row.curve}: {row.calls:g} calls"] = s.x
    return budget, groups, ""


def _check_same(c: Measured, model: ScoreModel, condition: Mapping[str, Condition]) -> None:
    r"""Refuses a model or condition that differs from the compared one."""

    check_model(model)
    theirs = {"model": c.setup["model"], "conditions": c.setup["conditions"]}
    bound = model.given(**check_conditions(model, condition, None))
    mine = {"model": fingerprint(model), "conditions": describe_conditions(bound)}
    for name, value in theirs.items():
        if mine[name] != value:
            raise ValueError(f"{name} of the comparison: {value}, but of model=: {mine[name]}.")


def _embed(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()


def _call(c: Measured) -> str:
    solvers = list(dict.fromkeys(row.solver for row in c.rows))
    budgets = sorted({int(row.budget) for row in c.rows if row.grid not in ("plan", "tolerance")})
    grids = list(
        dict.fromkeys(r.grid for r in c.rows if r.grid not in ("plan", "tolerance", "even"))
    )
    tolerances = sorted({row.budget for row in c.rows if row.grid == "tolerance"}, reverse=True)
    metrics = f", metrics={c.setup['metrics']}" + (", data=data" if c.setup["data"] else "")
    return (
        f"ss.compare(model, {solvers}, {budgets}, grids={grids}, tolerances={tolerances}{metrics}, "
        f"samples={c.setup['samples']}, seed={c.setup['seed']}, "
        f"reference_tolerance={c.setup['reference tolerance']:g})"
        + "".join(f"  # {name}={value}" for name, value in c.setup["conditions"].items())
        + "".join("  # with functions or features of your own" for _ in c.setup["functions"][:1])
    )
