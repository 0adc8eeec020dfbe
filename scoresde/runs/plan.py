r"""Plans: a solver, its grid and settings, chosen by measurement for one model."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

import solvers
from solvers import Solver
from solvers.catalogue import label
from solvers.doors.signatures import checked
from solvers.doors.values import is_number, shown
from solvers.methods.exponential import ExponentialMultistep

from ..doors.tables import html_table
from ..doors.warning import warn
from ..files import (
    Entry,
    Json,
    check_entries,
    damaged,
    each,
    finite,
    mapping,
    read_json,
    text,
    write_json,
)
from ..models.checks import check_number
from ..models.conditions import leaves
from ..models.score_model import ScoreModel
from ..reverse.amounts import MOST, ByStep
from .grids import level_times

KIND = "plan of scoresde"
PROBES = 64  # numbers of a tensor that enter a fingerprint
ENTRIES = {
    "options": Entry("options by name", mapping),
    "noise_levels": Entry(
        "noise levels that are positive and fall, two at least, or none",
        lambda levels: levels is None or _falling(levels),
    ),
    "additions": Entry("lists of finite numbers", each(each(finite))),
    "model": Entry("the fingerprint of a model", text),
    "figures": Entry("figures by name", mapping),
}


@dataclass(frozen=True)
class Plan:
    r"""A choice of solver, grid and settings, with the measurements behind it.

    Arguments:
        options: The options of :func:`scoresde.sample` that it sets, as plain data. `eta` may be a list, with one
            amount of noise for each step between `noise_levels`.
        noise_levels: The grid as noise levels :math:`\sigma / \alpha`, from noise to data, unless the grid has a
            name.
        additions: The learned numbers of each step, in the form of a multistep solver's `additions`.
        model: The fingerprint of the model that it was measured on.
        figures: The measurements, whose names include their units.

    Raises:
        ValueError: If the options name no solver, or noise levels do not decrease.

    Examples:
        >>> plan = ss.Plan({"solver": "ddim", "steps": 3})
        >>> ss.sample(model, 4, plan=plan)
        Solution((4, 2) by ddim, 3 intervals, 4 calls per sample)
    """

    options: Json
    noise_levels: tuple[float, ...] | None = None
    additions: tuple[tuple[float, ...], ...] = ()
    model: str = ""
    figures: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_entries(dict(vars(self)), ENTRIES, "the plan: ")
        if not isinstance(self.options.get("solver"), str | Solver):
            raise ValueError(f"'options' must name a 'solver', but are {self.options}.")
        solvers.get(self.options["solver"])
        _check_eta(self.options.get("eta"), self.noise_levels)

    @checked
    def save(self, file: str | Path) -> Path:
        r"""Writes the plan as JSON."""

        if not isinstance(self.options["solver"], str):
            raise ValueError(
                f"a file holds only the name of a solver, and {self.options['solver']} differs from the "
                "solver of that name in the catalogue; pass the plan itself."
            )
        return write_json(file, KIND, dataclasses.asdict(self))

    @staticmethod
    @checked
    def load(file: str | Path) -> "Plan":
        r"""Reads a plan.

        Raises:
            ValueError: If the file does not hold a plan.
        """

        content = read_json(file, KIND)
        if content.get("scales"):
            raise ValueError(
                f"{file} holds learned weights in the form of earlier versions; search it again with "
                "ss.tune(..., learned=True)."
            )
        with damaged(file, "plan"):
            if "scales" in content:  # of an earlier version, without learned weights
                content = {"additions": content.pop("scales"), **content}
            check_entries(content, ENTRIES)
            levels, rows = content.pop("noise_levels"), content.pop("additions")
            plan = Plan(
                **content,
                noise_levels=None if levels is None else tuple(levels),
                additions=tuple(map(tuple, rows)),
            )
            plan.solver  # noqa: B018  # refuses numbers that do not fit it
            return plan

    @checked
    def options_for(self, model: ScoreModel) -> Json:
        r"""Returns the options for a model, with a warning unless the plan was measured on it."""

        mine = fingerprint(model)
        if self.model and mine != self.model:
            warn(
                f"the plan was measured on the model {self.model}, but this model is {mine}, so its "
                "figures may not hold; measure again with ss.compare or ss.tune."
            )
        options = self.chosen
        if self.noise_levels is not None:
            options["times"] = self._times(model)
        if self.additions:
            options["solver"] = self.solver
        return options

    @property
    def solver(self) -> Solver:
        r"""The solver, with its learned weights."""

        solver, rows = solvers.get(self.options["solver"]), self.additions
        if not rows:
            return solver
        if not isinstance(solver, ExponentialMultistep):
            raise ValueError(f"the plan has learned weights, but {solver} takes none.")
        if self.noise_levels is not None and len(rows) != len(self.noise_levels) - 1:
            raise ValueError(
                f"the plan has learned weights for {len(rows)} steps, but {len(self.noise_levels) - 1} steps "
                "between its noise levels."
            )
        return dataclasses.replace(solver, name=f"{solver} (learned)", additions=rows)

    @property
    def chosen(self) -> Json:
        r"""The options as runs take them, where one amount of noise per step is a function of the noise level."""

        options, eta = dict(self.options), self.options.get("eta")
        if self.noise_levels is not None and isinstance(eta, list | tuple):
            steps = ByStep(tuple(self.noise_levels), tuple(map(float, eta)))
            options["eta"] = steps if steps else 0.0
        return options

    @property
    def noisy(self) -> bool:
        r"""Whether its runs add noise."""

        eta = self.options.get("eta")
        if eta is None or not self.solver.takes_eta:
            return self.solver.stochastic
        return any(eta) if isinstance(eta, list | tuple) else bool(eta)

    @property
    def plain(self) -> dict[str, object]:
        r"""The options, with the solver as text."""

        return {**self.options, "solver": label(solvers.get(self.options["solver"]))}

    def _times(self, model: ScoreModel) -> Tensor:
        levels = torch.tensor(self.noise_levels, dtype=torch.float64)
        return level_times(model.process, levels, "the plan goes", "make a plan for this model")

    @property
    def name(self) -> str:
        r"""The name of the plan in tables."""

        content = json.dumps([self.plain, self.noise_levels, self.additions])
        return f"{self.plain['solver']} #{hashlib.sha256(content.encode()).hexdigest()[:6]}"

    def __repr__(self) -> str:
        return f"Plan({self}{f', measured on {self.model}' if self.model else ''})"

    @property
    def _table(self) -> dict[str, object]:
        r"""The plan, its model, and the figures measured for it, by name."""

        figures = {n: v for n, v in self.figures.items() if isinstance(v, int | float | str)}
        error = self.figures.get("error")
        if isinstance(error, dict):
            figures |= {f"error, {name}": value for name, value in error.items()}
        return {"plan": str(self), "model": self.model, **figures}

    def _repr_html_(self) -> str:
        return html_table([{"": name, "value": _shown(v)} for name, v in self._table.items()])

    def _repr_markdown_(self) -> str:
        lines = [f"| {name} | {_shown(value)} |" for name, value in self._table.items()]
        return "\n".join(["| | |", "|---|---|", *lines]) + "\n"

    def __str__(self) -> str:
        words = [f"{name}={value}" for name, value in self.options.items()
                 if name != "solver" and not isinstance(value, list | tuple)]  # fmt: skip
        if self.noise_levels is not None:
            words.append(f"{len(self.noise_levels) - 1} steps of its own")
        if self.additions:
            words.append("learned weights")
        if isinstance(self.options.get("eta"), list | tuple):
            words.append("one eta per step")
        return f"{self.plain['solver']} ({', '.join(words)})"


def _falling(levels: object) -> bool:
    r"""Whether these are positive numbers in descending order."""

    if not isinstance(levels, list | tuple) or len(levels) < 2 or not each(finite)(levels):
        return False
    return levels[-1] > 0 and all(a > b for a, b in zip(levels, levels[1:], strict=False))


def _check_eta(eta: object, levels: tuple[float, ...] | None) -> None:
    r"""Refuses an eta that is neither one number nor one for each step between the noise levels."""

    if eta is None or is_number(eta):
        return
    if not isinstance(eta, list | tuple):
        raise ValueError(
            "eta of a plan must be one number, or a list with one per step, which a file can hold, not "
            f"{shown(eta)}."
        )
    if levels is None:
        raise ValueError(
            f"eta of a plan has {len(eta)} entries, one per step, which need the steps beside them; pass "
            "noise_levels=, or one number."
        )
    if len(eta) != len(levels) - 1:
        raise ValueError(
            f"eta of a plan must be one number, or one for each of the {len(levels) - 1} steps between its "
            f"noise_levels, but has {len(eta)} entries."
        )
    for value in eta:
        if not is_number(value) or math.isnan(value):
            raise ValueError(f"each of eta of a plan must be a number, but is {shown(value)}.")
        check_number("each of eta", value, 0, MOST)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def with_plan(model: ScoreModel, keywords: Mapping[str, object]) -> dict[str, object]:
    r"""Returns keywords with `plan` replaced by the options that it sets.

    Raises:
        TypeError: If it is neither a plan nor the name of a file.
        ValueError: If an option that it sets is also passed.
    """

    keywords = {**keywords}
    plan = keywords.pop("plan", None)
    if plan is None:
        return keywords
    if not isinstance(plan, Plan | str | Path):
        raise TypeError(f"plan must be a Plan or a file, but is a {type(plan).__name__}.")
    plan = plan if isinstance(plan, Plan) else Plan.load(plan)
    fixed = {
        "solver",
        "steps",
        "grid",
        "times",
        "levels",
        "rtol",
        "atol",
        "clock",
        "eta",
        *plan.options,
    }
    for name in fixed & keywords.keys():
        if keywords[name] is not None:
            raise ValueError(f"{name}= is already set by plan=; pass one of the two.")
    return {**keywords, **plan.options_for(model)}


class Described:
    r"""A dataclass of options whose repr shows those that are not the default, in short form."""

    def __repr__(self) -> str:
        said = []
        for option in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, option.name)
            if isinstance(value, Tensor):
                said.append(f"{option.name} of shape {tuple(value.shape)}")
            elif option.name == "solver" or value is not option.default:
                words = getattr(value, "__qualname__", None) or str(value)
                said.append(f"{option.name}={words if len(words) <= 60 else words[:57] + '...'}")
        return f"{type(self).__name__}({', '.join(said)})"


def fingerprint(model: ScoreModel) -> str:
    r"""Returns the fingerprint of a model: from its file, or from its process and some of its numbers."""

    if model.fingerprint is not None:
        return model.fingerprint
    words = [describe_process(model), str(model.data_std)]
    hashed = hashlib.sha256()
    for module in model.modules():
        for name, value in sorted(vars(module).items()):
            if isinstance(value, Tensor):
                words.append(_sketch(value))
            elif callable(value) or name == "predicts":
                words.append(describe_function(value))
    words += [_sketch(value) for value in model.state_dict().values()]
    if model.transform is not None:
        words.append(repr(model.transform))
        words += [_sketch(value) for value in model.transform.tensors.values()]
    hashed.update(" ".join(words).encode())
    return hashed.hexdigest()[:16]


def _sketch(value: Tensor) -> str:
    r"""Some numbers of a tensor, the sum of all, and that of their squares."""

    flat = value.detach().flatten().double()
    some = flat[torch.linspace(0, max(len(flat) - 1, 0), PROBES).long()] if len(flat) else flat
    numbers = torch.cat([some, flat.sum()[None], flat.square().sum()[None]])
    return f"{tuple(value.shape)} {numbers.tolist()}"


def describe_function(function: object) -> str:
    r"""Returns a description that identifies a function: its name and code, as far as they are known."""

    code = getattr(function, "__code__", None)
    text = "" if code is None else f"{code.co_code.hex()} {code.co_consts} {code.co_names}"
    name = getattr(function, "__qualname__", None) or str(function)
    return re.sub(r" at 0x[0-9a-f]+", "", f"{name} {text}")


def describe_process(model: ScoreModel) -> str:
    r"""Returns a description of a model's process that is the same in every run."""

    return re.sub(r" at 0x[0-9a-f]+", "", repr(model.process))  # memory addresses of functions


def describe_conditions(model: ScoreModel) -> dict[str, str]:
    r"""Returns the conditions bound to a model: single values as they are, others by a digest."""

    known: dict[str, str] = {}
    for module in model.modules():
        for name, value in getattr(module, "bound", {}).items():
            words = [str(v.item()) if v.numel() == 1 else digest(v) for v in leaves(value)]
            known[name] = ", ".join(words)
    return known


def digest(value: Tensor) -> str:
    r"""Returns a digest that identifies a tensor."""

    return hashlib.sha256(value.detach().cpu().double().numpy().tobytes()).hexdigest()[:16]
