r"""The noise path of data: the noise with which a stochastic solver ends at the data.

A chain of states is drawn from the process, from the data up to noise. The solver goes down from its last state.
The distance of each step's mean from the next state of the chain, in standard deviations, is the normal number
that leads there. Replayed under the same condition, these numbers lead to the data, up to round-off; under
another condition, they lead to an edit of it.

References:
    | CycleDiffusion: A Latent Space of Stochastic Diffusion Models (Wu and De la Torre, 2023),
    | section 4.2, the chain "forward"
    | https://arxiv.org/abs/2210.05559
    | An Edit Friendly DDPM Noise Space (Huberman-Spiegelglas et al., 2024), section 3.2, "independent"
    | https://arxiv.org/abs/2304.06140
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from solvers import Event, ExponentialMultistep, Solution, Solver
from solvers.doors.signatures import checked
from solvers.noise.brownian import EDITS, keyed_normal
from solvers.rows import Rows, row_numbers

from ..doors.data import as_state
from ..models.checks import check_data, check_number
from ..models.conditions import Condition, verb
from ..models.scale import start_of
from ..models.score_model import ScoreModel
from ..models.spoken import as_data
from ..models.transforms import Data
from ..reverse.amounts import ByRow, Eta
from ..reverse.linear_part import Convention
from ..reverse.reverse import Clock
from ..runs.gaussian_steps import gaussian_steps
from ..runs.noise import keyed_by_rows
from ..runs.options import (
    SEED,
    Failures,
    Gradients,
    Keys,
    Levels,
    Limits,
    Numbers,
    Options,
    RunOptions,
    Seeds,
    Start,
    Stepping,
    Times,
    Top,
    Watching,
    names,
)
from ..runs.plan import describe_process
from ..runs.run import Run, top_of
from ..runs.settings import Settings
from ..runs.takes import Takes, split
from ..sampling import decode
from .encoding import check_way

DEFAULTS: RunOptions = {"solver": "ancestral", "steps": 50}
REPLAYED = names("eta", "eta_convention")  # options that a replay must share
PATH = Takes("a noise path", Stepping, *REPLAYED, Keys, Numbers, Start, Top)
REPLAY = Takes("the noise path", Numbers, Limits, Watching, words="is set by")


@dataclass(frozen=True)
class NoisePath:
    r"""The noise path of data.

    Arguments:
        latent: The state at the first of the times, with shape (B, *).
        normals: The normal numbers of each step, with shape (n, B, *).
        times: The times, from noise to data, with shape (n + 1,).
        calls: The network calls, with shape (B,).
        options: The solver and its amount of noise, for :meth:`replay`.
        provenance: A record of how it was made.

    Examples:
        >>> path = ss.encode_noise(model, torch.ones(3, 2), steps=4)
        >>> path.latent.shape, path.normals.shape
        (torch.Size([3, 2]), torch.Size([4, 3, 2]))
    """

    latent: Tensor
    normals: Tensor
    times: Tensor
    calls: Tensor
    options: Options
    provenance: dict[str, Any]

    def __repr__(self) -> str:
        return (
            f"NoisePath({tuple(self.latent.shape)} by {self.options['solver']}, {len(self.normals)} steps, "
            f"normals of deviation {self.normals.std():.3g}, {int(self.calls.max())} calls per sample)"
        )

    def rows(self, index: Rows) -> "NoisePath":
        r"""Returns the noise path of the given samples.

        Arguments:
            index: The indices of the samples, where negative ones count from the end; or a single index, a
                slice, or a Boolean for each sample.
        """

        chosen = row_numbers(index, len(self))
        here, made = chosen.to(self.latent.device), dict(self.provenance)
        if made.get("seeds"):
            made["seeds"] = [made["seeds"][i] for i in chosen.tolist()]
        return replace(
            self,
            latent=self.latent[here],
            normals=self.normals[:, here],
            calls=self.calls[chosen],
            provenance=made,
        )

    def __len__(self) -> int:
        return len(self.latent)

    def __getitem__(self, index: Rows) -> "NoisePath":
        return self.rows(index)

    @verb(gives=as_data)
    def replay(  # noqa: D417
        self,
        model: ScoreModel,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        grad: Gradients = "none",
        batch_size: int | None = None,
        max_calls: int | None = None,
        on_failure: Failures = "raise",
        progress: bool = False,
        path: bool = False,
        callback: Callable[[Event], object] | None = None,
        **condition: Condition,
    ) -> Solution:
        r"""Returns the result of a run of a model with this noise, in units of the data.

        Arguments:
            model: The score model. The model that made the path returns to the data.
            condition: The conditions of the model. The options are those of :class:`scoresde.Settings` that the
                path does not set.
        """

        options = REPLAY.said(locals())
        if describe_process(model) != self.provenance["process"]:
            raise ValueError(
                f"the noise path was made under {self.provenance['process']}, but the model's process is "
                f"{model.process}."
            )
        missing = [
            n for n in self.provenance["conditions"] if n not in {*model.bound_names, *options}
        ]
        if missing:
            raise ValueError(
                f"the noise path was made with {missing[0]}=, but the replay lacks this condition; pass it."
            )
        REPLAY.refuse(options)
        keywords = {**options, **self.options, "times": self.times, "noise": self.normals}
        first = float(self.times[0])
        s = decode(model, self.latent, t_max=first, denoise=False, **keywords)
        alpha = model.process.scales(self.times[-1])[0].item()
        return replace(s, x=s.x / alpha, provenance={**s.provenance, "in data units": True})

    @checked
    def below(self, noise_level: float, other: "NoisePath") -> "NoisePath":
        r"""Returns this path, with the noise of another path below a noise level.

        Large structures come from this path, and details from the other.

        Arguments:
            noise_level: The noise level :math:`\sigma / \alpha` at which the other path takes over.
            other: Another path over the same times.
        """

        alike = self.options["solver"] == other.options["solver"]
        alike = alike and torch.equal(self.times, other.times)
        if not alike or self.normals.shape != other.normals.shape:
            raise ValueError("both noise paths must have the same solver, times and shapes.")
        noise_level = check_number("noise_level", noise_level)
        if not noise_level >= 0:
            raise ValueError(f"noise_level must be at least 0, but is {noise_level}.")
        levels = self.provenance["noise levels"]
        late = torch.tensor([level <= noise_level for level in levels[:-1]])
        mixed = self.normals.clone()
        mixed[late] = other.normals[late]
        return replace(self, normals=mixed)


@verb(data=("x",))
def encode_noise(  # noqa: D417
    model: ScoreModel,
    x: Data,
    *,
    t_max: float | None = None,
    chain: Literal["forward", "independent"] = "forward",
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
    grad: Gradients = "none",
    t_min: float | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    **condition: Condition,
) -> NoisePath:
    r"""Turns data into a noise path, which :meth:`NoisePath.replay` turns back into data.

    Arguments:
        model: The score model.
        x: Data, with shape (B, *).
        t_max: The time at which the path starts. By default, the last time of the process.
        chain: "forward" adds noise to data step by step; "independent" gives each state independent noise, which
            makes the normal numbers larger and keeps more of the data under another condition.
        condition: The conditions of the model. The options are those of :class:`scoresde.Settings` that a noise
            path depends on. The default solver is "ancestral" with 50 steps.

    Raises:
        ValueError, TypeError: If an option or condition is invalid, such as a solver without noise.

    Examples:
        >>> path = ss.encode_noise(model, torch.ones(3, 2), steps=4)
        >>> bool((path.replay(model).x - 1).abs().max() < 0.01)
        True
    """

    options = PATH.said(locals())
    given, x = x, as_state("x", x)
    model, settings = split(model, options, len(x), PATH, **DEFAULTS)
    solver, process = _checked(settings), model.process
    x = check_data(model, x, "x", settings.dtype, settings.device)
    start = start_of(model, "encoding") if settings.t_min is None else settings.t_min
    t_max = top_of(model, settings, t_max)
    stop = process.t_max if t_max is None else process.check_inside("t_max", t_max)
    run = Run.between(model, settings, stop, start)
    levels = torch.exp(-process.log_snr(run.times))
    check_way(model, x, settings, "the way to a noise path and back")
    states = _chain(x, levels, settings, chain)
    with settings.gradients():
        found = gaussian_steps(run, states)
    made = given.provenance if isinstance(given, Solution) else None
    return NoisePath(
        latent=process.scales(run.times[0])[0].item() * states[0],
        normals=torch.stack(found.normals),
        times=run.times,
        calls=torch.full((len(x),), found.calls),
        options={"solver": solver, **{n: options[n] for n in REPLAYED if n in options}},
        provenance={
            **run.provenance,
            "process": describe_process(model),
            "noise levels": levels.tolist(),
            "chain": chain,
            **({} if made is None else {"origin": made}),
        },
    )


def _checked(settings: Settings) -> ExponentialMultistep:
    solver = settings.method
    if not isinstance(solver, ExponentialMultistep) or not solver.stochastic or solver.corrector:
        raise ValueError(
            "solver must be 'ancestral', 'dpmpp_2m_sde', 'dpmpp_3m_sde' or 'er_sde' for a noise path, "
            f"but is {solver}."
        )
    if isinstance(settings.eta, ByRow):
        raise ValueError(
            "a noise path needs one eta for all samples: pass a number or a function."
        )
    if settings.eta == 0:
        raise ValueError("eta=0 has no noise, and so no noise path; use ss.encode.")
    if settings.adaptive or (settings.own_times is not None and settings.own_times.ndim > 1):
        raise ValueError(
            "a noise path needs one grid for all samples: pass steps=, times= or levels=."
        )
    return solver


def _chain(x: Tensor, levels: Tensor, settings: Settings, kind: str) -> list[Tensor]:
    r"""States in units of the data, at decreasing noise levels."""

    keys, d = keyed_by_rows(settings, x).keys(torch.arange(len(x))), x[0].numel()

    def noise(i: int) -> Tensor:
        return keyed_normal(*keys, EDITS, i, d).to(x).reshape(x.shape)

    states = [x]
    for i in range(len(levels) - 2, -1, -1):
        before = i + 1 if kind == "forward" else len(levels) - 1
        gained = (levels[i] ** 2 - levels[before] ** 2).sqrt().item()
        states.append((states[-1] if kind == "forward" else x) + gained * noise(i))
    return states[::-1]
