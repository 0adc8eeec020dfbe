r"""The options of one run, checked once on entry and against each other."""

import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict, cast

import torch
from torch import Tensor

from solvers import Brownian, Increments, Solver, get
from solvers.doors.signatures import checked
from solvers.doors.values import MOST, WORD, as_device, as_tensor, as_whole
from solvers.gradients import check_gradients
from solvers.noise.brownian import Seed

from ..doors.data import as_floats
from ..models.autocast import without_autocast
from ..models.checks import check_callback, check_count, check_number
from ..reverse.amounts import Amount, as_amount, told_amount
from .grids import check_levels, with_grid
from .options import (
    Ending,
    Keys,
    Limits,
    LogDensity,
    Noise,
    Numbers,
    Start,
    Stepping,
    Top,
    Watching,
)
from .plan import Described

LENGTHS = ("max_step", "first_step")  # of the steps that tolerances choose
STEPS, FEW, TOLERANCE = 20, 2, 1e-5  # FEW of solvers for few-step models
COUNTS = {"steps": (1, MOST), "batch_size": (1, None), "max_calls": (1, None), "seed": (None, None),
          "first_index": (0, WORD // 2)}  # and their ranges  # fmt: skip
REALS = {
    "rtol": 1.0,
    "atol": math.inf,
    **dict.fromkeys(LENGTHS, math.inf),
    **dict.fromkeys(("t_min", "sigma_min", "sigma_max"), math.inf),
}  # and their maxima
REPLACES = {  # and what has no effect beside it
    "levels": ("times", "steps", "grid", "t_min", "sigma_min", "sigma_max"),
    "times": ("steps", "grid", "sigma_min", "sigma_max"),
    "sigma_min": ("t_min",),
}
FIXED, ADAPTIVE = "dpmpp_2m", "exponential"


class Tolerances(TypedDict):
    r"""The tolerances of a run, in the form that a solver takes."""

    rtol: float | None
    atol: float | None


@checked
@dataclass(frozen=True, repr=False)
class Settings(
    Described, LogDensity, Ending, Top, Start, Watching, Limits, Numbers, Keys, Noise, Stepping
):
    r"""Creates the options of a run.

    They are documented in their groups: :class:`scoresde.runs.options.Stepping`, `Noise`, `Keys`, `Numbers`,
    `Limits`, `Watching`, `Start`, `Top`, `Ending` and `LogDensity`. The name of a solver is replaced by the
    solver, and a seed of `None` by a drawn one.

    Examples:
        >>> settings = ss.Settings(solver="ddim", steps=3)
        >>> settings.solver.name, settings.adaptive
        ('ddim', False)
    """

    def __post_init__(self) -> None:
        default = FIXED if self.rtol is None and self.atol is None else ADAPTIVE
        name, grid = with_grid(default if self.solver is None else self.solver, self.grid)
        object.__setattr__(self, "solver", get(name))
        object.__setattr__(self, "grid", grid)
        for name, (least, most) in COUNTS.items():
            if (count := getattr(self, name)) is not None:
                object.__setattr__(self, name, as_whole(name, count, least, most))
        if self.device is not None:
            object.__setattr__(self, "device", as_device("device", self.device))
        self._check_kinds()
        if self.grad != "none":
            check_gradients(self.method, self.grad)
        self._check_steps()
        if self.seed is None:
            object.__setattr__(self, "seed", secrets.randbits(31))

    @cached_property
    def adaptive(self) -> bool:
        r"""Whether the solver chooses its own steps."""

        if self.rtol is not None or self.atol is not None:
            return True
        gridless = self.steps is None and self.times is None and self.grid is None
        gridless = gridless and self.levels is None
        can = self.method.can
        return can.adaptive and (gridless or not can.fixed)

    @property
    def count(self) -> int:
        r"""The number of steps on a grid by name."""

        return self.steps or (FEW if self.method.can.open else STEPS)

    @cached_property
    def own_times(self) -> Tensor | None:
        r"""The user's own grid, if there is one."""

        assert self.times is None or isinstance(self.times, Tensor)
        return self.times

    @cached_property
    def method(self) -> Solver:
        r"""The solver."""

        assert isinstance(self.solver, Solver)
        return self.solver

    def takes_apart(self, batch: int) -> bool:
        r"""Returns whether a run calls the model for some samples of a batch without the others."""

        can = self.method.can
        size = can.block or self.batch_size or batch
        return self.adaptive or can.exact or size < batch

    @cached_property
    def tolerances(self) -> Tolerances:
        r"""The tolerances, for the solver."""

        if self.adaptive and self.rtol is None and self.atol is None:
            return {"rtol": TOLERANCE, "atol": TOLERANCE}
        return {"rtol": self.rtol, "atol": self.atol}

    @contextmanager
    def gradients(self) -> Iterator[None]:
        r"""The gradient mode of a run, as a context."""

        with torch.set_grad_enabled(self.grad != "none"), without_autocast():
            yield

    def _check_kinds(self) -> None:
        for name, most in REALS.items():
            if (number := getattr(self, name)) is not None:
                object.__setattr__(self, name, check_number(name, number, 0, most))
        if self.eta is not None:
            object.__setattr__(self, "eta", as_amount(self.eta))
        if self.times is not None:
            object.__setattr__(self, "times", as_tensor("times", self.times, torch.float64))
        if self.levels is not None:
            object.__setattr__(self, "levels", check_levels(self.levels, denoise=self.denoise))
        if self.dtype not in (None, torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32 or torch.float64, but is {self.dtype}.")
        if self.noise is not None:
            self._check_noise()
        if self.seeds is not None:
            self._check_seeds()
        if self.callback is not None:
            check_callback(self.callback)

    def _check_noise(self) -> None:
        if isinstance(self.noise, str) and self.noise not in ("increments", "path"):
            raise ValueError(f"noise must be 'increments' or 'path', but is {self.noise!r}.")
        if not isinstance(self.noise, str | Brownian):
            object.__setattr__(self, "noise", as_floats("noise", self.noise, least=3))
        if isinstance(self.noise, Tensor) and not self.method.can.one_normal:
            raise ValueError(
                f"noise of shape (steps, B, *) is not enough for {self.method}, which needs more than one "
                "normal number per step; pass noise='path' or 'increments'."
            )

    def _check_seeds(self) -> None:
        assert self.seeds is not None
        seeds = tuple(check_count("each of seeds", seed, None, None) for seed in self.seeds)
        object.__setattr__(self, "seeds", seeds)
        if self.seed != 0 or self.first_index:
            raise ValueError("seeds= replaces seed= and first_index=; pass it alone.")

    def keys(self, rows: Tensor) -> tuple[Seed, Tensor]:
        r"""Returns the seed of some samples, or one for each, and their indices."""

        if self.seeds is None:
            return self.seed or 0, rows + self.first_index
        return torch.tensor(list(self.seeds), dtype=torch.int64)[rows], torch.zeros_like(rows)

    def check_batch(self, batch: int, steps: int) -> None:
        r"""Refuses options whose entries do not match the number of samples or steps."""

        if isinstance(self.noise, Tensor) and self.noise.shape[:2] != (steps, batch):
            raise ValueError(
                f"noise must have shape (steps, B, *), which starts with ({steps}, {batch}), but has "
                f"shape {tuple(self.noise.shape)}."
            )
        if self.seeds is not None and len(self.seeds) != batch:
            raise ValueError(
                f"seeds must have {batch} entries, one per sample, not {len(self.seeds)}."
            )
        times = self.own_times
        if times is not None and times.ndim > 1 and times.shape[1] != batch:
            shape = tuple(times.shape)
            raise ValueError(
                f"times must have shape (n + 1,) or (n + 1, {batch}), but has {shape}."
            )

    def _said(self, *names: str) -> str | None:
        r"""The first of some options that has a value."""

        for name in names:
            if getattr(self, name) is not None:
                return name
        return None

    def _check_steps(self) -> None:
        choice, tolerance = self._said("steps", "grid"), self._said("rtol", "atol")
        if choice and tolerance:
            raise ValueError(
                f"{choice}= has no effect with {tolerance}=, since {self.method} then chooses "
                f"its own steps; pass one of the two."
            )
        if choice and not self.method.can.fixed:
            raise ValueError(
                f"{choice}= has no effect on {self.method}, which chooses its own steps; pass "
                "rtol= and atol=, or use a solver with fixed steps."
            )
        length = self._said(*LENGTHS)
        if length and not self.adaptive:
            raise ValueError(
                f"{length}= has no effect on the steps of a grid; pass rtol= and atol=, or steps=."
            )
        stepwise = self.noise == "increments" or isinstance(self.noise, Tensor | Increments)
        if self.adaptive and self.method.can.stochastic and stepwise:
            noise = "'increments'" if isinstance(self.noise, str) else type(self.noise).__name__
            raise ValueError(
                f"{self.method} tries steps of any size, so noise must be 'path', not {noise}."
            )
        for name, others in REPLACES.items():
            other = self._said(*others) if getattr(self, name) is not None else None
            if other:
                raise ValueError(f"{other}= has no effect with {name}=; pass one of the two.")


def refuse_noise(settings: Settings) -> None:
    r"""Refuses solvers and options whose path cannot be run backwards."""

    if settings.method.stochastic or settings.eta:
        raise ValueError(
            f"latents and likelihoods need the probability flow, but {settings.method} with "
            f"eta={told_amount(cast(Amount, settings.eta or 1))} is stochastic; use a solver without "
            "noise, such as 'exponential' or 'ddim'."
        )
