r"""A scheduler of diffusers that takes the steps of any solver with fixed steps.

Import this module by itself: the package does not import diffusers. A process that loads a saved pipeline with
this scheduler must have imported it before.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ..models.data_moments import Moments
from ..models.network import NetworkScore
from ..runs.plan import Plan
from .driven import CLOSE, Drive, calls_of
from .recipe import STOCK, Recipe, plain_moments, plain_plan
from .schedulers import FLOWS, Meaning, clipped, meaning_of

try:
    import diffusers
    from diffusers.configuration_utils import ConfigMixin
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
    from diffusers.utils import BaseOutput
except ImportError as error:
    raise ImportError(
        "ScoreSDEScheduler is a scheduler of diffusers, which is missing: pip install diffusers."
    ) from error

Generators = torch.Generator | Sequence[torch.Generator]


@dataclass
class StepOutput(BaseOutput):  # type: ignore[misc]
    r"""What a step returns.

    Arguments:
        prev_sample: The state at which the network is to be called next, or the end.
        pred_original_sample: The denoised data.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None


class ScoreSDEScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    r"""Creates a scheduler of diffusers that takes the steps of a solver.

    It comes from another scheduler, by `ScoreSDEScheduler.from_config(pipeline.scheduler, solver=...)`, whose
    config says what the output of the network means, and on whose grid it steps by default. Inside, the state
    stays in float32. A pipeline may change the state between two steps, as those that inpaint do; what the
    solver remembers of earlier steps stays.

    Arguments:
        solver: The name of a solver with fixed steps, with its settings. By default "dpmpp_2m".
        plan: A tuned plan or its file, in place of solver and grid. It stands in the config.
        grid: "stock" for the grid of the scheduler that the config belongs to, or one of ours, as for
            :class:`scoresde.Settings`.
        eta: The amount of noise.
        options: Further options of :func:`scoresde.decode`: "eta_convention", "clock" and "noise".
        moments: What :func:`scoresde.moments` returns for the data, for moment-matched solvers, or the path of a
            safetensors file with the entries `mean`, `variances` and perhaps `basis` and `rest`.
        data_scale: The root mean square of the data, for grids that depend on it.
        denoise: Whether the run ends with a denoising. Otherwise it ends at the lowest noise level of the
            schedule, as DDIMScheduler does with `set_alpha_to_one=False`.
        stock: The class of diffusers whose config this is.
        config: The entries of its config.

    Attributes:
        timesteps: The time labels at which the network is to be called, once steps are set.
        order: The number of calls in a step, or 1 where steps differ in it.

    Raises:
        ValueError: If the solver cannot be driven, or the config has no meaning that is known.

    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        | on the independence of network and sampler
        | https://arxiv.org/abs/2206.00364

    Examples:
        >>> stock = diffusers.DDIMScheduler(clip_sample=False)
        >>> scheduler = ScoreSDEScheduler.from_config(stock, solver="edm_heun")
        >>> scheduler.set_timesteps(4)
        >>> scheduler.timesteps.tolist()
        [750, 500, 500, 250, 250, 0, 0]
    """

    _compatibles = [*(entry.name for entry in KarrasDiffusionSchedulers), *FLOWS]
    order = 1
    init_noise_sigma = (
        1.0  # states are those of the process, of unit variance where no data is left
    )

    def __init__(
        self,
        solver: str | None = None,
        plan: Plan | str | Path | Mapping[str, Any] | None = None,
        grid: str = STOCK,
        eta: float | None = None,
        options: Mapping[str, Any] | None = None,
        moments: Moments | str | Path | Mapping[str, Any] | None = None,
        data_scale: float | None = None,
        denoise: bool = True,
        stock: str = "DDIMScheduler",
        **config: Any,
    ) -> None:
        kind = getattr(diffusers, stock, None)
        if kind is None:
            raise ValueError(f"stock must be a scheduler of diffusers, but is {stock!r}.")
        unknown = config.keys() - _entries(kind)
        if unknown:
            raise TypeError(f"{min(unknown)}= is an option neither of {stock} nor of this class.")
        self.register_to_config(
            solver=solver,
            plan=plain_plan(plan),
            grid=grid,
            eta=eta,
            options=None if options is None else dict(options),
            moments=plain_moments(moments),
            data_scale=data_scale,
            denoise=denoise,
            stock=stock,
            **{n: v for n, v in kind(**config).config.items() if not n.startswith("_")},
        )
        self._look()
        self._drive: Drive | None = None
        self._begin_index: int | None = None
        self.num_inference_steps: int | None = None
        count = self.config["num_train_timesteps"]
        self.timesteps = torch.arange(count - 1, -1, -1)

    @classmethod
    def from_config(
        cls, config: Any, return_unused_kwargs: bool = False, **changes: Any
    ) -> Self | tuple[Self, dict[str, Any]]:
        r"""Returns the scheduler of a config of this class or of one of diffusers.

        Arguments:
            config: The config, or the scheduler that has it.
            return_unused_kwargs: Whether to return what was not used too, which is nothing.
            changes: Entries that replace those of the config.

        Raises:
            ValueError: If the config does not tell whose it is; pass the scheduler or `stock=`.
        """

        known = dict(getattr(config, "config", config))
        if "stock" not in known:
            named = None if isinstance(config, Mapping) else type(config).__name__
            known["stock"] = changes.get("stock") or named or _stock_of(known, cls)
        kind = getattr(diffusers, known["stock"], None)
        names = _entries(cls) | (_entries(kind) if kind else set())
        made = cls(**{name: v for name, v in known.items() if name in names} | changes)
        return (made, {}) if return_unused_kwargs else made

    def __len__(self) -> int:
        return self.config["num_train_timesteps"]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_drive": None}  # a run belongs to one scheduler

    @property
    def begin_index(self) -> int | None:
        r"""The index of the first of the timesteps that a pipeline uses, if it says so."""

        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        r"""Says at which of the timesteps a run begins."""

        self._begin_index = begin_index

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        r"""Sets the steps, and lists the time labels of all network calls in `timesteps`.

        Arguments:
            num_inference_steps: The number of steps, the last of which is a denoising.
            device: The device of the time labels.
            timesteps: The time labels of the steps, in place of their number.
            sigmas: The noise levels of the steps, as for k-diffusion; of flows, their times before the shift.
            mu: The shift by resolution, for the grid of flows.
        """

        self._look()
        given: dict[str, Any] = {"timesteps": timesteps, "sigmas": sigmas, "mu": mu}
        self._times = self._recipe.times(self._stock, self._meaning, num_inference_steps, **given)
        self._calls = self._calls_from(0)
        steps = max(len(self._times) - 1, 1)
        share, rest = divmod(
            len(self._calls) - (self._recipe.clean and len(self._times) > 1), steps
        )
        self.order = 1 if rest else share
        labels = torch.tensor([call.t for call in self._calls], dtype=torch.float64)
        labels = labels / self._meaning.unit
        whole = bool((labels == labels.round()).all())
        self.timesteps = labels.to(device, torch.int64 if whole else torch.float32)
        self.num_inference_steps = num_inference_steps or len(self._times)
        self._drive, self._begin_index = None, None

    @property
    def sigmas(self) -> Tensor:
        r"""The noise levels at the timesteps, and a last 0; of flows, the times."""

        t = self.timesteps.cpu().double() * self._meaning.unit
        process = self._meaning.process
        levels = t if self._meaning.unit != 1 else torch.exp(-process.log_snr(t))
        return torch.cat([levels, levels.new_zeros(1)]).float()

    def scale_model_input(self, sample: Tensor, timestep: object = None) -> Tensor:
        r"""Returns the state itself, which the network takes as it is."""

        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Generators | None = None,
        return_dict: bool = True,
    ) -> StepOutput | tuple[Tensor]:
        r"""Goes on by one network call.

        Arguments:
            model_output: The output of the network.
            timestep: The time label, one of `timesteps`.
            sample: The state at which the network was called.
            generator: The source of the noise, or one for each sample: its initial seed is the seed of the noise.
            return_dict: Whether to return a :class:`StepOutput`.
        """

        if self._drive is None or not self._drive.left:
            self._drive = self._begun(float(timestep), sample, generator)
        if model_output.shape[1] == 2 * sample.shape[1]:  # a variance was learned too
            model_output = model_output[:, : sample.shape[1]]
        call = self._drive.left[0]
        self._check_label(timestep, call.t / self._meaning.unit)
        state = self._drive.tell(model_output, sample)
        if not return_dict:
            return (state,)
        clean = self._clean(model_output, call.t, sample)
        return StepOutput(prev_sample=state, pred_original_sample=clean)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        r"""Returns noisy data at some time labels, with shape (B,) or (1,)."""

        process = self._meaning.process
        t = torch.as_tensor(timesteps).reshape(-1).double() * self._meaning.unit
        t = t.clamp(process.t_min, process.t_max).expand(len(original_samples))
        alpha, sigma = (
            s.to(original_samples).reshape(-1, *[1] * (original_samples.ndim - 1))
            for s in process.scales(t.cpu())
        )
        return alpha * original_samples + sigma * noise

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        r"""Returns noisy data, as :meth:`add_noise` does."""

        return self.add_noise(sample, noise, timestep)

    @property
    def stock_scheduler(self) -> Any:
        r"""The scheduler of diffusers whose config this is, and which says what the network predicts."""

        return self._stock

    def _look(self) -> None:
        r"""Reads the config, which pipelines change."""

        config, kind = self.config, getattr(diffusers, self.config["stock"])
        self._recipe = Recipe(**{field.name: config[field.name] for field in fields(Recipe)})
        names = _entries(kind)
        self._stock = kind(**{n: v for n, v in config.items() if n in names})
        self._meaning: Meaning = meaning_of(self._stock)
        if self._meaning.predicts in ("edm", "score") or config.get("invert_sigmas"):
            raise ValueError(
                f"{config['stock']} has states in units of its own, or a time that runs the other way, which this "
                "scheduler does not follow; wrap the network by ss.from_diffusers and sample with ss.sample."
            )

    def _calls_from(self, first: int) -> list[Any]:
        verb = self._recipe.verb(self._times[first:], self._stock.config, seed=0)
        return calls_of(verb, self._meaning, self._recipe.shape)

    def _begun(self, label: float, x: Tensor, generator: Generators | None) -> Drive:
        if self.num_inference_steps is None:
            raise ValueError("there are no steps yet; call set_timesteps first.")
        first, index = self._start_of(label)
        calls = self._calls if index == 0 else self._calls_from(first)
        if [call.t for call in calls] != [call.t for call in self._calls[index:]]:
            raise ValueError(
                f"{self._recipe.method} makes other network calls when it starts at {label:.6g} than on its way "
                "there; use a solver that does not, such as 'dpmpp_2m'."
            )
        keys = _keys(generator, len(x)) if self._recipe.random else {"seed": 0}
        verb = self._recipe.verb(self._times[first:], self._stock.config, **keys)
        return Drive(verb, self._meaning, calls, x)

    def _check_label(self, timestep: float | Tensor, expected: float) -> None:
        r"""Refuses a time label that is not the next, where that is known without waiting for a device."""

        if isinstance(timestep, Tensor) and timestep.device.type != "cpu":
            return
        if abs(float(timestep) - expected) > CLOSE * max(1.0, expected):
            raise ValueError(
                f"the next timestep is {expected:.6g}, but this is {float(timestep):.6g}; follow "
                "scheduler.timesteps, and call set_timesteps before another run."
            )

    def _start_of(self, label: float) -> tuple[int, int]:
        r"""The indices of the step and of the network call at which a run begins."""

        asked = label * self._meaning.unit
        first = int((self._times - asked).abs().argmin())
        t = float(self._times[first])
        starts = [i for i, call in enumerate(self._calls) if math.isclose(call.t, t, rel_tol=1e-6)]
        if abs(t - asked) > CLOSE * max(self._meaning.unit, asked) or not starts:
            raise ValueError(
                f"a run begins where a step does, but none does at {label:.6g}; the nearest is at "
                f"{t / self._meaning.unit:.6g}."
            )
        index = self._begin_index
        return first, index if index in starts else starts[-1]

    def _clean(self, output: Tensor, t: float, x: Tensor) -> Tensor:
        r"""The denoised data."""

        meaning = self._meaning
        model = NetworkScore(lambda x, t: output.to(x), meaning.process, meaning.predicts)
        time = torch.full((len(x),), t, dtype=torch.float64, device=x.device)
        wide = x if x.dtype == torch.float64 else x.float()
        return clipped(model, self._stock.config).denoise(wide, time).to(x.dtype)


def _stock_of(config: Mapping[str, Any], ours: type) -> str:
    r"""The name of the class that a config belongs to; those of schedulers made by hand do not say it."""

    said = config.get("_class_name")
    if isinstance(said, str) and said != ours.__name__:
        return said
    entries = {name for name in config if not name.startswith("_")}
    kinds = [name for name in ours._compatibles if hasattr(diffusers, name)]  # type: ignore[attr-defined]
    fits = [name for name in kinds if _entries(getattr(diffusers, name)) == entries]
    if len(fits) == 1:
        return fits[0]
    raise ValueError(
        "the config does not say of which class it is; pass the scheduler itself, or stock='DDIMScheduler' or the "
        "like."
    )


def _entries(kind: Any) -> set[str]:
    r"""The names that the config of a class has."""

    return inspect.signature(kind.__init__).parameters.keys() - {"self", "config", "kwargs"}


def _keys(generator: Generators | None, batch: int) -> dict[str, Any]:
    r"""The seeds that generators stand for. Without one, torch's own generator draws it."""

    if generator is None:
        return {"seed": int(torch.randint(2**31, ()))}
    if isinstance(generator, torch.Generator):
        return {"seed": generator.initial_seed() % 2**63}
    if len(generator) == 1 != batch:
        return _keys(generator[0], batch)
    return {"seeds": [one.initial_seed() % 2**63 for one in generator]}
