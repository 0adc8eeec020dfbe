r"""The trajectory of a run: its states, all estimates of the data at each state, and the fresh noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from solvers import Increments, Solver
from solvers.shapes import align

from ..models.checks import model_device
from ..models.conditions import Condition, verb
from ..models.scale import scale_of
from ..models.score_model import BASES, OTHERS, ScoreModel
from ..oracles.mixture import Oracle
from ..reverse.amounts import ByRow, Eta
from ..reverse.linear_part import Convention
from ..reverse.reverse import Clock
from ..runs.options import SEED, Keys, Levels, Planned, Seeds, Start, Stepping, Times, names
from ..runs.plan import Plan
from ..runs.settings import Settings
from ..runs.takes import Takes, split
from ..sampling import check_sample_shape, decode, sample

Density = Callable[[Tensor, float], Tensor]  # of points in units of the data, and a noise level
RUNNING = names("solver", "clock", "eta", "eta_convention", "dtype", "device", "batch_size")
FOLLOW = Takes("a trajectory", Stepping, "eta", "eta_convention", Keys, "dtype", "device", "batch_size",
               "progress", Start, Planned)  # fmt: skip


@dataclass(frozen=True)
class Trajectory:
    r"""A run in units of the data, :math:`X = x / \alpha`.

    Arguments:
        levels: The noise levels :math:`s = \sigma / \alpha` of the grid, with shape (n + 1,).
        states: The states, with shape (n + 1, B, \*).
        estimates: The denoised data at each state, by name, each with shape (n + 1, B, \*): the one that the
            solver sees, "guided" or "denoised", and those of the model's parts.
        means: The end of each step without its fresh noise, with shape (n, B, \*), or `None` if steps taken
            singly differ from those of the run.
        data_std: The root mean square of the data.
        density: The unconditional log-density of noisy data, if it is known.
        provenance: A record of how it was made.

    Examples:
        >>> way = ss.geometry.follow(model, 4, steps=3)
        >>> way.states.shape, list(way.estimates)
        (torch.Size([4, 4, 2]), ['denoised'])
    """

    instead: ClassVar[str] = "; pass what ss.geometry.follow(model, ...) returns"

    levels: Tensor
    states: Tensor
    estimates: dict[str, Tensor]
    means: Tensor | None
    data_std: float
    density: Density | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.states.shape[1]

    def __repr__(self) -> str:
        return (
            f"Trajectory({tuple(self.states.shape[1:])} by {self.provenance.get('solver', 'a solver')}, "
            f"{len(self.levels) - 1} steps from noise level {self.levels[0]:.3g} to {self.levels[-1]:.3g}, "
            f"estimates {', '.join(self.estimates)})"
        )

    @property
    def guided(self) -> Tensor:
        r"""The estimates that the solver sees, with shape (n + 1, B, \*)."""

        return next(iter(self.estimates.values()))

    @property
    def base(self) -> str | None:
        r"""The name of the estimates from which guidance starts."""

        return next((name for name in self.estimates if name in BASES), None)

    @property
    def other(self) -> str | None:
        r"""The name of the estimates from which guidance leads away."""

        return next((name for name in self.estimates if name in OTHERS), None)

    @property
    def push(self) -> Tensor | None:
        r"""The change of the estimates by guidance, with shape (n + 1, B, \*)."""

        return None if self.base is None else self.guided - self.estimates[self.base]

    @property
    def difference(self) -> Tensor | None:
        r"""The difference of the two predictions, with shape (n + 1, B, \*)."""

        if self.base is None or self.other is None:
            return None
        return self.estimates[self.base] - self.estimates[self.other]

    @property
    def noise(self) -> Tensor | None:
        r"""The fresh noise of each step, with shape (n, B, \*)."""

        return None if self.means is None else self.states[1:] - self.means

    @property
    def dimension(self) -> int:
        r"""The number of entries of a sample."""

        return self.states[0, 0].numel()


@verb
def follow(  # noqa: D417
    model: ScoreModel,
    shape: int | tuple[int, ...],
    *,
    parts: Mapping[str, ScoreModel] | None = None,
    solver: str | Solver | None = None,
    steps: int | None = None,
    grid: str | None = None,
    times: Times | None = None,
    levels: Levels | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_step: float | None = None,
    first_step: float | None = None,
    clock: Clock | None = None,
    eta: Eta | None = None,
    eta_convention: Convention = "canonical",
    seed: int | None = SEED,
    seeds: Seeds | None = None,
    first_index: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    progress: bool = False,
    t_min: float | None = None,
    sigma_min: float | None = None,
    plan: Plan | str | Path | None = None,
    **condition: Condition,
) -> Trajectory:
    r"""Draws samples as :func:`scoresde.sample` does, and records each state on the way.

    The samples are the same as those of `sample` with these options. Besides the run, each part of the model is
    called once at each state. If the solver adds noise, each step is also repeated twice: with its noise, to
    check that it is the same, and without.

    Arguments:
        model: The model, guided or not.
        shape: The shape (B, \*), or the number B for a model that knows the shape of a sample.
        parts: The parts of your own guidance, by name. By default, they are the parts of the model. The names
            "conditional", "unconditional", "negative", "strong", "weak" and "model" have roles in plots.
        condition: The conditions of the model. The options are those of :class:`scoresde.Settings` for a fixed
            grid; or `plan`, instead of solver and steps.

    Raises:
        ValueError, TypeError: If an option or condition is invalid.
        SolverError: If the run fails.

    Examples:
        >>> way = ss.geometry.follow(model, 4, solver="ddim", steps=3)
        >>> way.levels.shape
        torch.Size([4])
    """

    options = FOLLOW.said(locals())
    _check_parts(parts)
    count = check_sample_shape(model, shape, model_device(model))[0]
    bound, settings = split(model, options, count, FOLLOW)
    _check(settings)
    options = {**options, "seed": settings.seed} if settings.seeds is None else options
    if settings.method.stochastic and settings.method.one_normal:
        options["noise"] = "increments"
    s = sample(model, shape, **{**options, "path": True, "denoise": False})
    assert s.path is not None
    alphas = bound.process.scales(s.times)[0].to(s.path)
    own = dict(parts or bound.parts)
    named = {("guided" if own else "denoised"): bound, **own}
    with torch.no_grad():
        estimates = {
            name: torch.stack([part.denoise(x, t) for x, t in zip(s.path, s.times, strict=True)])
            for name, part in named.items()
        }
    return Trajectory(
        levels=torch.exp(-bound.process.log_snr(s.times)),
        states=s.path / align(alphas, s.path),
        estimates=estimates,
        means=_means(bound, s.path, s.times, settings),
        data_std=scale_of(model),
        density=_density(bound),
        provenance=s.provenance,
    )


def _means(model: ScoreModel, path: Tensor, times: Tensor, settings: Settings) -> Tensor | None:
    r"""The end of each step without its noise; `None` if steps depend on earlier ones."""

    if not settings.method.stochastic:
        return path[1:] / align(model.process.scales(times[1:])[0].to(path), path[1:])
    if not settings.method.one_normal:
        return None
    seed, index = settings.keys(torch.arange(path.shape[1]))
    noise = Increments(seed, index, path[0], times)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    common = {name: getattr(settings, name) for name in RUNNING}
    means = []
    for i, x in enumerate(path[:-1]):
        z = noise.increment(i, *ends)
        again, mean = (
            decode(model, x, t_max=float(times[i]), times=times[i : i + 2], noise=normal[None], denoise=False,
                   **common).x
            for normal in (z, torch.zeros_like(z))
        )  # fmt: skip
        gap = (again - path[i + 1]).abs().max()
        if not bool(gap <= 1e-3 * (path[i + 1] - x).abs().max()):  # it remembers earlier steps
            return None
        means.append(mean)
    return torch.stack(means) / align(model.process.scales(times[1:])[0].to(path), path[1:])


def _check_parts(parts: object) -> None:
    if parts is None:
        return
    if not isinstance(parts, Mapping) or not all(
        isinstance(v, ScoreModel) for v in parts.values()
    ):
        raise TypeError(f"parts must be score models by name, but are {parts!r}.")
    if {"guided", "denoised"} & set(parts):
        raise ValueError(
            "parts must not be named 'guided' or 'denoised', which name the model itself."
        )


def _check(settings: Settings) -> None:
    if settings.adaptive:
        raise ValueError(
            "a trajectory is followed on a grid: pass steps= or times=, no tolerances."
        )
    if isinstance(settings.eta, ByRow):
        raise ValueError("a trajectory has one eta for all samples: pass a number or a function.")
    if settings.own_times is not None and settings.own_times.ndim > 1:
        raise ValueError(
            "a trajectory has one grid for all samples: pass times= of shape (n + 1,)."
        )


def _density(model: ScoreModel) -> Density | None:
    r"""The log-density of noisy data in units of the data, if the model or a part of it has one."""

    oracles = [part for part in model.modules() if isinstance(part, Oracle)]
    if len(oracles) != 1:
        return None
    [known] = oracles

    def density(X: Tensor, level: float) -> Tensor:
        t = torch.tensor(known.process.at_noise_level(level), dtype=torch.float64)
        alpha = known.process.scales(t)[0]
        return known.log_prob(alpha.to(X) * X, t) + X[0].numel() * alpha.log().to(X)

    return density
