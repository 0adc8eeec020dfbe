r"""How a scheduler of another library samples by a solver of ours: plain data that its config can hold."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

import solvers
from solvers import Solver
from solvers.doors.values import as_tensor, as_whole

from ..models.curves import NAMES as CURVES
from ..models.curves import Curves
from ..models.data_moments import Moments
from ..models.network import NetworkScore
from ..models.scale import start_of
from ..models.score_model import ScoreModel
from ..runs.plan import Plan
from ..runs.run import make_times
from ..runs.settings import FIXED, Settings
from ..sampling import decode
from .driven import Verb
from .schedulers import Meaning, clipped, stock_times

STOCK = "stock"  # the grid of the scheduler that ours came from
OPTIONS = ("eta_convention", "clock", "noise")  # of decode, that a recipe may name


@dataclass(frozen=True)
class Recipe:
    r"""Creates a way to sample.

    Arguments:
        solver: The name of a solver with fixed steps. By default "dpmpp_2m".
        plan: The content of a :class:`scoresde.Plan`, in place of solver and grid.
        grid: "stock" for the grid of the scheduler, or the name of one of ours.
        eta: The amount of noise.
        options: Further options of :func:`scoresde.decode`: "eta_convention", "clock" and "noise".
        moments: Mean, variances and perhaps basis and rest of the data as lists, or the path of their file.
        data_scale: The root mean square of the data.
        denoise: Whether the last call is a denoising.
    """

    solver: str | None = None
    plan: Mapping[str, Any] | None = None
    grid: str = STOCK
    eta: float | None = None
    options: Mapping[str, Any] | None = None
    moments: str | Mapping[str, Any] | None = None
    data_scale: float | None = None
    denoise: bool = True

    def __post_init__(self) -> None:
        unknown = [name for name in self.options or {} if name not in OPTIONS]
        if unknown:
            raise ValueError(f"options may hold {', '.join(OPTIONS)}, but hold {unknown[0]!r}.")
        if self.plan is not None and (self.solver is not None or self.grid != STOCK):
            raise ValueError("plan= says solver and grid already; pass it without them.")
        can = self.method.can
        if not can.fixed or {"rtol", "atol"} & self._options.keys():
            raise ValueError(
                f"{self.method} chooses its own steps, but pipelines ask for a number of them; use a solver with "
                "fixed steps, such as 'dpmpp_2m'."
            )
        if can.block:
            raise ValueError(
                f"{self.method} takes samples apart, and pipelines call the network for all at once; use another "
                "solver, such as 'dpmpp_2m'."
            )

    @property
    def method(self) -> Solver:
        r"""The solver."""

        return solvers.get(self._options["solver"])

    @property
    def random(self) -> bool:
        r"""Whether it draws noise."""

        return self.method.can.stochastic or bool(self._options.get("eta"))

    def times(
        self, stock: object, meaning: Meaning, number: int | None, **given: Sequence[float] | None
    ) -> Tensor:
        r"""Returns the times of the steps, in float64; the last may be the one of a denoising alone.

        Arguments:
            stock: The scheduler that ours came from.
            meaning: What it says of the network.
            number: Their number.
            given: The `timesteps`, `sigmas` and `mu` that are passed beside it.
        """

        process, timesteps, sigmas = meaning.process, given.get("timesteps"), given.get("sigmas")
        own = self.plan is not None or self.grid != STOCK
        if timesteps is not None:
            times = as_tensor("timesteps", timesteps, torch.float64) * meaning.unit
        elif sigmas is not None and not (own and _even(sigmas)):
            times = self._of_sigmas(stock, meaning, sigmas, given.get("mu"))
        else:
            if number is None and sigmas is not None:
                number = len(sigmas)
            if number is None:
                raise ValueError(
                    "one of num_inference_steps, timesteps and sigmas must be passed."
                )
            number = as_whole("num_inference_steps", number, 1)
            mu = {} if given.get("mu") is None else {"mu": given["mu"]}
            times = (
                self._own_times(meaning, number)
                if own
                else stock_times(stock, meaning, number, **mu)
            )
        times = times.cpu().clamp(process.t_min, process.t_max)
        if self.denoise or self.plan is not None or times[-1] <= process.t_min:
            return times
        return torch.cat([times, times.new_tensor([process.t_min])])

    def verb(self, times: Tensor, config: Mapping[str, Any], **keys: object) -> Verb:
        r"""Returns the function of model and start that samples along some times.

        Arguments:
            times: The times of the steps.
            config: The config of the scheduler, which may clip.
            keys: The seeds.
        """

        options = {**self._options, **keys}

        def run(model: ScoreModel, x: Tensor) -> Tensor:
            model = clipped(self._known(model), config)
            if len(times) == 1:
                return model.denoise(x, times[0].to(x.device))
            if self._saves_first:  # whose loop outside calls the network all the same
                model.denoise(x, times[0].to(x.device))
            return decode(model, x, times=times, denoise=self.clean, **options).x

        return run

    @property
    def shape(self) -> tuple[int, ...]:
        r"""The shape of a state with which the solver can be tried."""

        known = self._moments
        return (1,) if known is None else tuple(known.mean.shape)

    @property
    def clean(self) -> bool:
        r"""Whether the last call is a denoising, as the plan says if there is one."""

        options = {} if self.plan is None else self.plan["options"]
        return self.denoise and bool(options.get("denoise", True))

    @property
    def _saves_first(self) -> bool:
        r"""Whether the first step needs no output of the network."""

        return bool(getattr(self.method, "analytic_first", False))

    @property
    def _options(self) -> dict[str, Any]:
        r"""The options of decode, without those of the grid."""

        if self.plan is None:
            chosen: dict[str, Any] = {"solver": self.solver or FIXED}
        else:
            plan = _plan_of(self.plan)
            chosen = {**plan.chosen, "solver": plan.solver}
            chosen = {n: v for n, v in chosen.items() if n not in ("steps", "grid", "denoise")}
        eta = {} if self.eta is None else {"eta": self.eta}
        return {**chosen, **(self.options or {}), **eta}

    def _own_times(self, meaning: Meaning, number: int) -> Tensor:
        model = self._known(
            NetworkScore(lambda x, t: x, meaning.process, meaning.predicts, shape=self.shape)
        )
        grid: str | None = self.grid
        if self.plan is not None:
            plan = _plan_of(self.plan)
            known = plan.options_for(model)
            steps = len(known["times"]) - 1 if "times" in known else known.get("steps", number - 1)
            least, last = (steps + 1, " and a last denoising") if self.clean else (steps, "")
            if least != number:
                raise ValueError(
                    f"num_inference_steps must be {least}, since the plan has {steps} steps{last}, but is "
                    f"{number}."
                )
            if "times" in known:
                return known["times"]
            grid = known.get("grid")
        start, stop = meaning.process.t_max, start_of(model, "sampling")
        if number == 1:
            return torch.tensor([start], dtype=torch.float64)
        return make_times(
            model, start, stop, Settings(steps=number - 1, grid=grid, **self._options)
        )

    def _of_sigmas(
        self, stock: object, meaning: Meaning, sigmas: Sequence[float], mu: object
    ) -> Tensor:
        if self.plan is not None or self.grid != STOCK:
            raise ValueError(
                f"sigmas= has no effect with {'plan' if self.plan else f'grid={self.grid!r}'}; pass grid='stock'."
            )
        if meaning.unit != 1:  # of a flow, whose scheduler shifts them
            more = {"sigmas": list(sigmas), **({} if mu is None else {"mu": mu})}
            return stock_times(stock, meaning, len(sigmas), **more)
        levels = as_tensor("sigmas", sigmas, torch.float64)
        return meaning.process.time(-levels[levels > 0].log())

    def _known(self, model: ScoreModel) -> ScoreModel:
        r"""The model, with what is known of the data."""

        moments = self._moments
        if moments is not None:
            model.moments = moments
        if self.data_scale is not None:
            model.data_scale = self.data_scale
        return model

    @property
    def _moments(self) -> Moments | None:
        if self.moments is None:
            return None
        held = load_file(self.moments) if isinstance(self.moments, str) else dict(self.moments)
        tensors = {name: _tensor(held.get(name)) for name in ("mean", "basis", "variances")}
        rest = held.get("rest")
        known = [_tensor(held.get(name)) for name in CURVES]
        curves = None if any(k is None for k in known) else Curves(*known)  # type: ignore[arg-type]
        return Moments(**tensors, rest=None if rest is None else float(rest), curves=curves)  # type: ignore[arg-type]


def plain_plan(plan: Plan | str | Path | Mapping[str, Any] | None) -> dict[str, Any] | None:
    r"""Returns what a config holds of a plan."""

    if plan is None or isinstance(plan, Mapping):
        return None if plan is None else dict(plan)
    plan = plan if isinstance(plan, Plan) else Plan.load(plan)
    if not isinstance(plan.options["solver"], str):
        raise ValueError(
            f"a config holds only the name of a solver, and {plan.options['solver']} differs from the solver of "
            "that name in the catalogue."
        )
    return dataclasses.asdict(plan)


def plain_moments(
    moments: Moments | str | Path | Mapping[str, Any] | None,
) -> str | dict[str, Any] | None:
    r"""Returns what a config holds of moments."""

    if isinstance(moments, Moments):
        found = {name: getattr(moments, name) for name in ("mean", "basis", "variances", "rest")}
        found |= {name: getattr(moments.curves, name) for name in CURVES if moments.curves}
        return {n: v.tolist() if isinstance(v, Tensor) else v for n, v in found.items()}
    return str(moments) if isinstance(moments, Path) else moments  # type: ignore[return-value]


def _plan_of(content: Mapping[str, Any]) -> Plan:
    r"""The plan of a config, held against no model, since it does not know the network."""

    levels, rows = content.get("noise_levels"), content.get("additions") or ()
    return Plan(
        dict(content["options"]),
        None if levels is None else tuple(levels),
        tuple(tuple(row) for row in rows),
    )


def _tensor(values: object) -> Tensor | None:
    return None if values is None else torch.as_tensor(values, dtype=torch.float64)


def _even(sigmas: Sequence[float]) -> bool:
    r"""Whether these are what pipelines of flows pass by themselves."""

    even = torch.linspace(1, 1 / len(sigmas), len(sigmas), dtype=torch.float64)
    return torch.allclose(as_tensor("sigmas", sigmas, torch.float64), even, atol=1e-5)
