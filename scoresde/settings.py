r"""The options that all verbs share, checked once at the door."""

import dataclasses
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from solvers import Brownian, Event, Increments, Solver, get
from solvers.brownian import Seed

from .checks import check_count, check_number
from .conditions import check_conditions
from .frames import CONVENTIONS
from .models import ScoreModel
from .plans import with_plan

STEPPING = ("steps", "times", "grid", "rtol", "atol", "clock")  # options that say where steps are
STEPS, TOLERANCE = 20, 1e-5
GRADIENTS = ("none", "backprop", "checkpoint", "adjoint")
FIXED, ADAPTIVE = "dpmpp_2m", "exponential"


@dataclass(frozen=True)
class Settings:
    r"""Creates the options of a verb.

    Arguments:
        solver: The name of a solver, or a solver. By default "dpmpp_2m", or "exponential" if there
            are tolerances.
        steps: The number of intervals of the grid. By default 20, unless the solver chooses its
            own steps.
        grid: "log_snr", "rho", "tan", "asinh" or "t". By default "rho", or for solvers that need
            equal steps, one that is even in their clock.
        times: An explicit grid of times of the process, with shape (n + 1,), or (n + 1, B) when
            samples have their own.
        rtol: The relative tolerance, for solvers that choose their own steps. If these get neither
            steps nor tolerances, both are 1e-5.
        atol: The absolute tolerance, in units of the state x.
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
        object.__setattr__(self, "solver", get(default if self.solver is None else self.solver))
        for name in ("steps", "batch_size", "max_calls"):
            check_count(name, getattr(self, name), at_least=1)
        check_count("seed", self.seed, at_least=None)
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed must fit into 64 bits, but is {self.seed}.")
        self._check_kinds()
        check_count("first_index", self.first_index, at_least=0)
        if self.on_failure not in ("raise", "partial"):
            raise ValueError(f"on_failure must be 'raise' or 'partial', not {self.on_failure!r}.")
        self._check_gradients()
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

    @property
    def tolerances(self) -> dict[str, float | None]:
        r"""The tolerances, for the solver."""

        if self.adaptive and self.rtol is None and self.atol is None:
            return {"rtol": TOLERANCE, "atol": TOLERANCE}
        return {"rtol": self.rtol, "atol": self.atol}

    def gradients(self) -> AbstractContextManager[None]:
        r"""Returns the context in which a run is made."""

        return torch.set_grad_enabled(self.grad != "none")

    def _check_kinds(self) -> None:
        for name in ("rtol", "atol", "eta", "t_min"):
            check_number(name, getattr(self, name))
        if self.times is not None:
            object.__setattr__(self, "times", torch.as_tensor(self.times, dtype=torch.float64))
        if self.eta is not None and not 0 <= self.eta < float("inf"):
            raise ValueError(f"eta must be a finite number >= 0, but is {self.eta}.")
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
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback must be a function of an event, but is {self.callback!r}.")

    def _check_gradients(self) -> None:
        if self.grad not in GRADIENTS:
            raise ValueError(f"grad must be one of {', '.join(GRADIENTS)}, but is {self.grad!r}.")
        if self.grad == "adjoint" and not self.method.adjoint:
            raise ValueError(
                f"grad='adjoint' is for the methods of torchdiffeq, not {self.method}; use 'checkpoint', "
                "which takes as little memory and is exact."
            )

    def _check_noise(self) -> None:
        if isinstance(self.noise, str) and self.noise not in ("increments", "path"):
            raise ValueError(f"noise must be 'increments' or 'path', but is {self.noise!r}.")
        if self.noise is not None and not isinstance(self.noise, str | Tensor | Brownian):
            raise TypeError(
                "noise must be 'increments', 'path', a tensor of standard normals or a "
                f"solvers.Brownian, but is a {type(self.noise).__name__}; stack a list of tensors."
            )
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
        for seed in seeds:
            check_count("each of seeds", seed, at_least=None)
        object.__setattr__(self, "seeds", tuple(seeds))
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
            warnings.warn(
                f"the model is in training mode, so its {type(module).__name__} makes results random; "
                "call model.eval().",
                stacklevel=3,
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
    r"""Refuses what is not a score model."""

    if not isinstance(model, ScoreModel):
        raise TypeError(
            f"model must be a ScoreModel, but is a {type(model).__name__}; wrap a network in "
            "ss.NetworkScore(network, process, predicts=...)."
        )
