r"""The options that all verbs share, checked once at the door."""

import dataclasses
import math
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from solvers import Brownian, Event, Increments, Solver, get
from solvers.doors.signatures import checked
from solvers.doors.values import MOST, WORD, as_device, as_tensor
from solvers.noise.brownian import Seed
from solvers.solver import check_gradients

from ..doors.data import as_floats
from ..doors.warning import warn
from ..models.autocast import without_autocast
from ..models.checks import check_callback, check_count, check_number, check_transforms
from ..models.conditions import check_conditions, check_names
from ..models.score_model import ScoreModel
from ..reverse.linear_part import CONVENTIONS
from .grids import with_grid
from .plan import Described, with_plan

LENGTHS = ("max_step", "first_step")  # of the steps that tolerances choose
STEPPING = (
    "steps",
    "times",
    "grid",
    "rtol",
    "atol",
    *LENGTHS,
    "clock",
)  # options that say where steps are
STEPS, TOLERANCE = 20, 1e-5
COUNTS = {"steps": (1, MOST), "batch_size": (1, None), "max_calls": (1, None), "seed": (None, None),
          "first_index": (0, WORD // 2)}  # and their ranges  # fmt: skip
REALS = {
    "rtol": 1.0,
    "atol": math.inf,
    **dict.fromkeys(LENGTHS, math.inf),
    "eta": 1e15,
    "t_min": math.inf,
}  # and what is most
FIXED, ADAPTIVE = "dpmpp_2m", "exponential"


@checked
@dataclass(frozen=True, repr=False)
class Settings(Described):
    r"""Creates the options of a verb.

    Arguments:
        solver: The name of a solver, or a solver. By default "dpmpp_2m", or "exponential" if there
            are tolerances.
        steps: The number of intervals of the grid. By default 20, unless the solver chooses its
            own steps.
        grid: "log_snr", "rho", "tan", "asinh", "logistic" or "t". By default "rho"; "logistic" for flows,
            processes of one's own, and where levels are cut; or for solvers that need equal steps, one that
            is even in their clock.
        times: An explicit grid of times of the process, with shape (n + 1,), or (n + 1, B) when
            samples have their own.
        rtol: The relative tolerance, for solvers that choose their own steps. If these get neither
            steps nor tolerances, both are 1e-5.
        atol: The absolute tolerance, in units of the state x.
        max_step: The largest step under tolerances, in log-SNR (in t for processes without), so that none leaps
            over where data comes out of noise. By default 0.2 times the order of the solver.
        first_step: The first step under tolerances, in log-SNR. By default, the solver chooses it.
        clock: The time that ODE and SDE solvers see: "t" or "log_snr". By default "t", but
            "log_snr" under tolerances.
        eta: The amount of noise: 0 is the probability flow, 1 the reverse SDE. By default 1 for
            stochastic solvers and 0 for others.
        eta_convention: What `eta` means: "canonical"; "ddim", where it scales the noise of each step,
            as in k-diffusion's ancestral samplers too; or "k_diffusion", its square, as in that
            library's SDE samplers.
        noise: "increments", keyed by the time of the step; "path", one Brownian path in log-SNR
            that is the same at any number of steps; standard normals of shape (steps, B, *); or a
            :class:`solvers.Brownian`. By default "increments", and "path" under tolerances.
        seed: The seed of start and noise: 0, so that equal calls draw equal samples. `None` draws one.
        seeds: One seed per sample, in place of seed and index.
        first_index: The index of the first sample: row i depends on `first_index + i` alone.
        batch_size: The largest number of samples that are integrated at once.
        dtype: The dtype of the state. By default that of the data, else of the network.
        device: The device of the state. By default that of the data, else of the model.
        path: Whether to keep the states at all times of the grid.
        callback: A function that is told about each accepted step, as a :class:`solvers.Event`. If
            it returns a truth value that is true, the run ends there.
        progress: Whether to show a progress bar.
        max_calls: The largest number of network calls of a sample.
        on_failure: "raise", or "partial" to end the samples concerned and keep what there is.
        grad: What gradients the result carries, with respect to start, weights and conditions: "none";
            "backprop" through all steps; "checkpoint", the same in the memory of one network call, each
            being made again; or "adjoint", torchdiffeq's, for its methods.
        t_min: The time at which data is taken to be. By default the process's, for the use.
        denoise: Whether decoding ends with one denoising.
    """

    solver: str | Solver | None = None
    steps: int | None = None
    grid: str | None = None
    times: Tensor | None = None
    rtol: float | None = None
    atol: float | None = None
    max_step: float | None = None
    first_step: float | None = None
    clock: Literal["t", "log_snr"] | None = None
    eta: float | None = None
    eta_convention: Literal["canonical", "ddim", "k_diffusion"] = "canonical"
    noise: Literal["increments", "path"] | Tensor | Brownian | None = None
    seed: int | None = 0
    seeds: Sequence[int] | None = None
    first_index: int = 0
    batch_size: int | None = None
    dtype: torch.dtype | None = None
    device: torch.device | str | None = None
    path: bool = False
    callback: Callable[[Event], object] | None = None
    progress: bool = False
    max_calls: int | None = None
    on_failure: Literal["raise", "partial"] = "raise"
    grad: Literal["none", "backprop", "checkpoint", "adjoint"] = "none"
    t_min: float | None = None
    denoise: bool = True

    def __post_init__(self) -> None:
        default = FIXED if self.rtol is None and self.atol is None else ADAPTIVE
        name, grid = with_grid(default if self.solver is None else self.solver, self.grid)
        object.__setattr__(self, "solver", get(name))
        object.__setattr__(self, "grid", grid)
        for name, (least, most) in COUNTS.items():
            object.__setattr__(self, name, check_count(name, getattr(self, name), least, most))
        object.__setattr__(self, "device", as_device("device", self.device))
        self._check_kinds()
        if self.on_failure not in ("raise", "partial"):
            raise ValueError(f"on_failure must be 'raise' or 'partial', not {self.on_failure!r}.")
        check_gradients(self.method, self.grad)
        self._check_steps()
        if self.seed is None:
            object.__setattr__(self, "seed", secrets.randbits(31))

    @property
    def adaptive(self) -> bool:
        r"""Whether the solver chooses its own steps."""

        if self.rtol is not None or self.atol is not None:
            return True
        gridless = self.steps is None and self.times is None and self.grid is None
        return self.method.adaptive and (gridless or not self.method.fixed)

    @property
    def method(self) -> Solver:
        r"""The solver."""

        assert isinstance(self.solver, Solver)
        return self.solver

    def takes_apart(self, batch: int) -> bool:
        r"""Returns whether a run asks some samples of a batch without the others."""

        method = self.method
        size = method.block or self.batch_size or batch
        return self.adaptive or method.exact or size < batch

    @property
    def tolerances(self) -> dict[str, float | None]:
        r"""The tolerances, for the solver."""

        if self.adaptive and self.rtol is None and self.atol is None:
            return {"rtol": TOLERANCE, "atol": TOLERANCE}
        return {"rtol": self.rtol, "atol": self.atol}

    @contextmanager
    def gradients(self) -> Iterator[None]:
        r"""The context in which a run is made."""

        with torch.set_grad_enabled(self.grad != "none"), without_autocast():
            yield

    def _check_kinds(self) -> None:
        for name, most in REALS.items():
            object.__setattr__(self, name, check_number(name, getattr(self, name), 0, most))
        if self.times is not None:
            object.__setattr__(self, "times", as_tensor("times", self.times, torch.float64))
        if self.eta_convention not in CONVENTIONS:
            raise ValueError(
                f"eta_convention must be one of {', '.join(CONVENTIONS)}, not {self.eta_convention!r}."
            )
        if self.clock not in (None, "t", "log_snr"):
            raise ValueError(f"clock must be 't' or 'log_snr', but is {self.clock!r}.")
        if self.dtype not in (None, torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32 or torch.float64, but is {self.dtype}.")
        self._check_noise()
        if self.seeds is not None:
            self._check_seeds()
        check_callback(self.callback)

    def _check_noise(self) -> None:
        if isinstance(self.noise, str) and self.noise not in ("increments", "path"):
            raise ValueError(f"noise must be 'increments' or 'path', but is {self.noise!r}.")
        if self.noise is not None and not isinstance(self.noise, str | Brownian):
            object.__setattr__(self, "noise", as_floats("noise", self.noise, least=3))
        if isinstance(self.noise, Tensor) and not self.method.one_normal:
            raise ValueError(
                f"noise of shape (steps, B, *) is not enough for {self.method}, which wants more than "
                "one normal per step; pass noise='path' or 'increments'."
            )

    def _check_seeds(self) -> None:
        seeds: Any = self.seeds  # arrays and tensors too
        seeds = seeds.tolist() if hasattr(seeds, "tolist") else seeds
        if not isinstance(seeds, list | tuple | range):
            raise TypeError(f"seeds must be whole numbers, one per sample, but is {self.seeds!r}.")
        seeds = tuple(check_count("each of seeds", seed, None, None) for seed in seeds)
        object.__setattr__(self, "seeds", seeds)
        if self.seed != 0 or self.first_index:
            raise ValueError("seeds= replaces seed= and first_index=; pass it alone.")

    def keys(self, rows: Tensor) -> tuple[Seed, Tensor]:
        r"""Returns the seed of some samples, or one for each, and their indices."""

        if self.seeds is None:
            return self.seed or 0, rows + self.first_index
        return torch.tensor(list(self.seeds), dtype=torch.int64)[rows], torch.zeros_like(rows)

    def check_batch(self, batch: int, steps: int) -> None:
        r"""Refuses options that have entries for another number of samples or steps."""

        if isinstance(self.noise, Tensor) and self.noise.shape[:2] != (steps, batch):
            raise ValueError(
                f"noise must have shape (steps, B, *), which starts with ({steps}, {batch}), but has "
                f"shape {tuple(self.noise.shape)}."
            )
        if self.seeds is not None and len(self.seeds) != batch:
            raise ValueError(
                f"seeds must have {batch} entries, one per sample, not {len(self.seeds)}."
            )
        if self.times is not None and self.times.ndim > 1 and self.times.shape[1] != batch:
            shape = tuple(self.times.shape)
            raise ValueError(
                f"times must have shape (n + 1,) or (n + 1, {batch}), but has {shape}."
            )

    def _check_steps(self) -> None:
        given = [n for n in ("steps", "grid", "times") if getattr(self, n) is not None]
        choices = [n for n in given if n != "times"]
        tolerances = [n for n in ("rtol", "atol") if getattr(self, n) is not None]
        if choices and tolerances:
            raise ValueError(
                f"{choices[0]}= has no effect with {tolerances[0]}=, since {self.method} then chooses "
                f"its own steps; pass one of the two."
            )
        if choices and not self.method.fixed:
            raise ValueError(
                f"{choices[0]}= has no effect on {self.method}, which chooses its own steps; pass "
                "rtol= and atol=, or use a solver with fixed steps."
            )
        lengths = [n for n in LENGTHS if getattr(self, n) is not None]
        if lengths and not self.adaptive:
            raise ValueError(
                f"{lengths[0]}= has no effect on the steps of a grid; pass rtol= and atol=, or steps=."
            )
        stepwise = self.noise == "increments" or isinstance(self.noise, Tensor | Increments)
        if self.adaptive and self.method.stochastic and stepwise:
            noise = "'increments'" if isinstance(self.noise, str) else type(self.noise).__name__
            raise ValueError(
                f"{self.method} tries steps of any size, so noise must be 'path', not {noise}."
            )
        if self.times is not None and len(given) > 1:
            raise ValueError(f"{given[0]}= has no effect with times=; pass one of the two.")


OPTIONS = tuple(option.name for option in dataclasses.fields(Settings))


def split(
    model: ScoreModel,
    keywords: Mapping[str, Any],
    batch: int | None,
    **defaults: Any,
) -> tuple[ScoreModel, Settings]:
    r"""Returns the model with the conditions among some keywords bound, and the options.

    Arguments:
        model: The model.
        keywords: What the user wrote.
        batch: The number of samples, if known.
        defaults: The options of the verb, where the user says nothing.
    """

    check_model(model)
    keywords = with_plan(model, keywords)
    for module in model.modules():
        if module.training and isinstance(module, nn.modules.dropout._DropoutNd | _BatchNorm):
            warn(
                f"the model is in training mode, so its {type(module).__name__} makes results random; "
                "call model.eval()."
            )
            break
    options = {name: value for name, value in keywords.items() if name in OPTIONS}
    condition = {name: value for name, value in keywords.items() if name not in OPTIONS}
    bound = check_conditions(model, condition, batch, OPTIONS)
    if {*STEPPING, "solver"} & set(options):  # the user's choice of steps replaces ours whole
        defaults = {name: value for name, value in defaults.items() if name not in STEPPING}
    settings = Settings(**{**defaults, **options})
    if settings.grad != "none" and not model.differentiable:
        raise ValueError(
            f"grad={settings.grad!r} has no way through guidance by gradients (of classifiers or losses), "
            "whose own derivatives are not known; leave it."
        )
    return model.given(**bound), settings


def check_model(model: object) -> None:
    r"""Refuses what is not a score model, and a call from inside a transform of torch.func."""

    check_transforms()
    if not isinstance(model, ScoreModel):
        raise TypeError(
            f"model must be a ScoreModel, but is a {type(model).__name__}; wrap a network in "
            "ss.NetworkScore(network, process, predicts=...)."
        )
    check_names(model.conditions)
