r"""What a user of the page has chosen, from controls or from the address of the page, checked in one place."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import solvers

from ..models.checks import check_count, check_number
from ..processes.process import Process
from ..processes.standard import EDM, VE, VP, Interpolant, SubVP
from ..runs.grids import with_grid
from ..runs.settings import Settings
from .drawing import check_ink

PROCESSES: Mapping[str, type[Process]] = MappingProxyType(
    {"EDM": EDM, "VP": VP, "SubVP": SubVP, "VE": VE, "Interpolant": Interpolant}
)
CLASSES: Mapping[str, int] = MappingProxyType(
    {"pair": 2, "ring": 8, "moons": 2, "drawn": 0, "digits": 10}
)  # of each kind of data
VIEWS: Mapping[str, str] = MappingProxyType(
    {
        "paths": "Paths over the density",
        "geometry": "Geometry of a step",
        "error": "Error against calls",
        "spectra": "Spectra",
        "likelihood": "Likelihood and its budget",
        "round trip": "Round trip",
    }
)
ONE_OF = {"show": VIEWS, "data": CLASSES, "process": PROCESSES}
MOST_STEPS, MOST_SAMPLES, LARGEST = 200, 400, 20.0
COUNTS = {
    "steps": (1, MOST_STEPS),
    "samples": (4, MOST_SAMPLES),
    "seed": (0, 2**31),
    "step": (0, MOST_STEPS),
    "label": (0, None),
}  # and their ranges
NUMBERS = {
    "error": (-2.0, 2.0),
    "guidance": (-LARGEST, LARGEST),
    "guide_from": (0.0, math.inf),
    "guide_to": (0.0, math.inf),
    "eta": (0.0, LARGEST),
}  # and their ranges


@dataclass(frozen=True)
class Choices:
    r"""Everything that the page lets its user choose.

    Arguments:
        show: What to look at: a key of `VIEWS`.
        data: The data: a key of `CLASSES`.
        ink: The drawing, if the data is "drawn": the bits of its squares in base64.
        process: The name of the process.
        error: The size of the planted error of the denoised data, 0 for none.
        label: The class to draw, if any.
        guidance: The scale of classifier-free guidance towards it; without, the conditional model.
        guide_from: The lowest noise level with guidance.
        guide_to: The highest noise level with guidance.
        solver: The name of the solver.
        steps: The number of steps.
        grid: The grid. By default, the solver's own.
        eta: The amount of noise. By default, the solver's own.
        samples: The number of samples.
        seed: The seed.
        step: The step that is shown.
        plan: A plan as JSON text, instead of solver, steps, grid and eta.
    """

    show: str = "paths"
    data: str = "moons"
    ink: str = ""
    process: str = "EDM"
    error: float = 0.0
    label: int | None = None
    guidance: float | None = None
    guide_from: float = 0.0
    guide_to: float = math.inf
    solver: str = "dpmpp_2m"
    steps: int = 10
    grid: str | None = None
    eta: float | None = None
    samples: int = 100
    seed: int = 0
    step: int = 8
    plan: str = ""

    def __post_init__(self) -> None:
        for name, known in ONE_OF.items():
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, but is {value!r}.")
        for name, (least, most) in COUNTS.items():
            check_count(name, getattr(self, name), at_least=least, at_most=most)
        for name, (low, high) in NUMBERS.items():
            if (value := getattr(self, name)) is not None:
                check_number(name, value, low, high)
        if not solvers.get(with_grid(self.solver, self.grid)[0]).can.fixed:
            raise ValueError(
                f"solver {self.solver!r} chooses its own steps by tolerances, for which the page has no fields; "
                "choose one that follows a grid, such as 'dpmpp_2m'."
            )
        Settings(**self.run)
        if self.ink:
            check_ink(self.ink)
        self._check_guidance()

    def _check_guidance(self) -> None:
        classes = CLASSES[self.data]
        if self.label is not None and not self.label < classes:
            known = f"classes 0 to {classes - 1}" if classes else "no classes"
            cure = "choose one of them" if classes else "leave label empty"
            raise ValueError(f"label is {self.label}, but {self.data} has {known}; {cure}.")
        if self.guidance is not None and self.label is None:
            raise ValueError("guidance leads towards a class; choose a label, too.")
        if not self.guide_from < self.guide_to:
            raise ValueError(
                f"guide_from must be below guide_to, but they are {self.guide_from:g} and {self.guide_to:g}."
            )

    @property
    def run(self) -> dict[str, Any]:
        r"""The options of the run, which a plan replaces."""

        every = {name: getattr(self, name) for name in ("solver", "steps", "grid", "eta")}
        return {name: value for name, value in every.items() if value is not None}


KINDS = {field.name: str(field.type) for field in dataclasses.fields(Choices)}
USUAL = Choices()


def read(words: Mapping[str, object]) -> Choices:
    r"""Returns choices from the values of controls or the words of an address; empty ones are the usual.

    Raises:
        ValueError: If a name is not known, or a value is not of its kind or out of its range.
    """

    unknown = sorted(set(words) - set(KINDS))
    if unknown:
        raise ValueError(
            f"the playground has no setting {', '.join(map(repr, unknown))}; it has {', '.join(KINDS)}."
        )
    known: dict[str, Any] = {
        n: _value(n, v) for n, v in words.items() if v is not None and v != ""
    }
    return Choices(**known)


def written(choices: Choices) -> dict[str, str]:
    r"""Returns the choices that differ from the usual ones, as words; `read` is the inverse."""

    every = {name: getattr(choices, name) for name in KINDS}
    return {
        name: value if isinstance(value, str) else repr(value)
        for name, value in every.items()
        if value is not None and value != getattr(USUAL, name)
    }


def _value(name: str, value: object) -> object:
    r"""A value of the kind of its field, from a number or from words."""

    kind = KINDS[name]
    if "str" in kind:
        return str(value)
    try:
        number = float(str(value))
    except ValueError:
        raise ValueError(f"{name} must be a number, but is {value!r}.") from None
    if math.isnan(number):
        raise ValueError(f"{name} must be a number, but is {value!r}.")
    if "int" not in kind:
        return number
    if not number.is_integer():
        raise ValueError(f"{name} must be a whole number, but is {value!r}.")
    return int(number)
