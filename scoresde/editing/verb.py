r"""Edits: the public function, and the methods it chooses from."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Unpack, cast

import torch
from torch import Tensor

from solvers import Solution
from solvers.doors.signatures import checked
from solvers.doors.values import Array, is_number

from ..doors.data import as_state, with_origin
from ..guidance import Guided
from ..models.checks import check_alike, check_number
from ..models.conditions import verb
from ..models.learned import check_learned
from ..models.scale import scale_of, start_of
from ..models.score_model import ScoreModel
from ..models.spoken import as_data
from ..models.transforms import Data
from ..processes.process import Use
from ..runs.options import (
    Ending,
    Keys,
    Limits,
    Noise,
    Numbers,
    Start,
    Stepping,
    UntimedOptions,
    Watching,
)
from ..runs.repeats import warn_of_copies
from ..runs.run import with_t_min
from ..runs.takes import Takes, check_model
from .flow_edit import DIFFERENCE, FLOW, by_difference
from .inpainting import WAYS, inpaint
from .pivot import by_null
from .releases import Followed, Kept, per_entry, release_levels
from .translate import by_flow, by_noise, by_noise_path, with_a_seed, with_said_seeds

Method = Callable[..., Solution]


def by_mask(
    source: ScoreModel,
    target: ScoreModel,
    x: Tensor,
    t_max: float,
    *,
    known: Tensor | None = None,
    way: str = "replacement",
    repeats: int | None = None,
    **options: Unpack[UntimedOptions],
) -> Solution:
    r"""Draws the unknown entries of the data with the target; see :func:`scoresde.inpaint`."""

    if known is None:
        raise ValueError("method='inpaint' needs known=, which is 1 where data is to stay.")
    if way not in WAYS:
        raise ValueError(f"way must be one of {', '.join(WAYS)}, but is {way!r}.")
    return inpaint(target, x, known, method=way, repeats=repeats, t_max=t_max, **options)


METHODS: dict[str, Method] = {
    "encode": by_flow,
    "noise": by_noise,
    "noise_path": by_noise_path,
    "flow": by_difference,
    "null": by_null,
    "inpaint": by_mask,
}
SEEN = ("batch_size", "on_failure", "progress", Watching)
TAKES = {
    "encode": Takes("method='encode'", Stepping, Keys, Numbers, Limits, Watching, Start, Ending),
    "noise": Takes(
        "method='noise'", Stepping, Noise, Keys, Numbers, Limits, Watching, Start, Ending
    ),
    "noise_path": Takes("method='noise_path'", Stepping, Noise, Keys, Numbers, *SEEN, Start),
    "flow": FLOW,
    "null": Takes("method='null'", Stepping, Keys, Numbers, *SEEN, Start),
    "inpaint": Takes(
        "method='inpaint'", Stepping, Noise, Keys, Numbers, Limits, Watching, Start, Ending
    ),
}
DRAWING = ("noise", "noise_path", "flow", "inpaint")  # the methods that add noise


class EditOptions(UntimedOptions, total=False):
    r"""The options of edits: those of runs, and of the single methods."""

    known: Array
    way: str
    repeats: int | None
    averages: int
    pivot: ScoreModel | None


@verb(data=("x",), gives=as_data)
def edit(
    source: ScoreModel,
    target: ScoreModel,
    x: Data,
    *,
    noise_level: float | Array | None = None,
    strength: float | Array | None = None,
    method: str = "encode",
    **options: Unpack[EditOptions],
) -> Solution:
    r"""Edits data: up to a noise level, and down again under another model, with all steps below that level.

    - "encode" (DDIB): up by the source's flow, down by the target's; what both agree on stays.
    - "noise" (SDEdit): up by fresh noise, down by the target; the source is not called.
    - "noise_path": the noise with which the source would make the data, used with the target.
    - "flow" (FlowEdit): the difference of both flows, averaged over `averages=` draws of noise; nothing is
      inverted.
    - "null": for guided models: up by the flow of `pivot=`, down by the target, with the offsets by which
      the source follows that path.
    - "inpaint": the target redraws the entries where `known=` is 0, with `way=` "replacement", "resampling" or
      "gradient".

    Arguments:
        source: The model of the given data, with its conditions bound.
        target: The model of the edited data, with its conditions bound.
        x: Data, with shape (B, *), or the solution of a run that ended in data, such as another edit, which
            `provenance["origin"]` then keeps.
        noise_level: The noise level :math:`\sigma / \alpha` to which data goes up; or one per sample, with shape
            (B,), or per entry, with the shape of one sample or of the data. Each entry is held until its own, as
            in Differential Diffusion, and stays as it is at 0. Not for "null" and "inpaint".
        strength: Instead of `noise_level`, the fraction in (0, 1] of the span of log-SNR, or several on [0, 1].
        method: One of the above.
        options: The options of :class:`scoresde.Settings` and of the method. Each method has its own default
            solver and steps.

    Returns:
        The solution of the way down, in units of the data; its calls are those of both directions.

    Raises:
        ValueError, TypeError: If an option is invalid, or if not exactly one of `noise_level` and `strength` is
            given.

    References:
        | Differential Diffusion: Giving Each Pixel Its Strength (Levin and Fried, 2023), section 3.2
        | https://arxiv.org/abs/2306.00950

    Examples:
        >>> pair = ss.MixtureOracle(torch.tensor([[-1.0], [1.0]]), 0.5)
        >>> source, target = (pair.given(label=torch.tensor([k])) for k in (0, 1))
        >>> e = ss.edit(source, target, torch.tensor([[-1.0]]), strength=1.0)
        >>> round(float(e.x), 2)  # 1 - 2 x 0.5 / 80
        0.99
    """

    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, but is {method!r}.")
    for name in ("times", "levels", "t_max", "sigma_max"):
        if name in options:
            raise ValueError(
                f"{name}= has no effect on an edit; pass noise_level= or strength= instead."
            )
    given, x = x, as_state("x", x)
    check_model(source)
    check_model(target)
    for model in (source, target):
        check_learned(model, f"method={method!r}")
    said = with_t_min(target, {**options})
    check_alike("source and target", [source, target])
    fresh = method in ("noise", "flow", "inpaint")
    use: Use = "sampling" if fresh else "encoding"
    least = check_number("t_min", said.get("t_min"))
    start = start_of(target, use) if least is None else least
    release = _release(target, x, noise_level, strength, start, method)
    if release is not None:
        noise_level, strength = release.max().item(), None
        rule = Kept(x, release) if method == "noise" else Followed(release)
        target = Guided((target, source)[: 1 if method == "noise" else 2], rule)
    level, share = cast(tuple[float | None, float | None], (noise_level, strength))
    t_max = turning_time(target, level, share, start)
    TAKES[method].refuse(said)
    if method in DRAWING:
        warn_of_copies("edit", [source, target], (x, method, t_max), said)
    said = with_a_seed(said)
    e = with_said_seeds(METHODS[method](source, target, x, t_max, **said), said)
    if release is not None:
        release = release.to(e.x.device)
        e = replace(e, x=torch.where(release > 0, e.x, x.to(e.x)))
    return with_origin(replace(e, provenance={**e.provenance, "edit": method}), given)


@checked
def frames(model: ScoreModel, e: Solution) -> Tensor:
    r"""Returns the path of an edit at the scale of the data, with the edit last, with shape (n, B, \*).

    Noisy states are rescaled to :math:`\tfrac{c}{\sqrt{c^2 + s^2}} \, x / \alpha`, for the data's standard
    deviation c and the noise level s.

    Arguments:
        model: The score model.
        e: The solution of :func:`edit` with `path=True`.

    Raises:
        ValueError: If the edit did not keep its path.

    Examples:
        >>> e = ss.edit(model, model, torch.ones(3, 2), noise_level=1.0, steps=4, path=True)
        >>> ss.editing.frames(model, e).shape
        torch.Size([6, 3, 2])
    """

    if e.path is None or e.times.ndim > 1:
        raise ValueError("the path was not kept: pass path=True to edit.")
    path = e.path
    if e.provenance["solver"] != DIFFERENCE:  # whose path is data all along
        process, c = model.process, scale_of(model)
        level = torch.exp(-process.log_snr(e.times))
        size = c / (c**2 + level**2).sqrt() / process.scales(e.times)[0]
        path = path * size.to(path).reshape(-1, *(1,) * e.x.ndim)
    return torch.cat([path, e.x[None]])


def _release(
    model: ScoreModel,
    x: Tensor,
    noise_level: float | Array | None,
    strength: float | Array | None,
    start: float,
    method: str,
) -> Tensor | None:
    r"""The noise level until which each entry is held, unless all go up to the same one."""

    if noise_level is not None and strength is not None:
        raise ValueError("pass exactly one of noise_level= and strength=, but got both.")
    name, value = ("strength", strength) if noise_level is None else ("noise_level", noise_level)
    if value is None or is_number(value):
        return None
    if method in ("null", "inpaint"):
        cure = "known= between 0 and 1" if method == "inpaint" else "another method"
        raise ValueError(
            f"{name} must be one number for method={method!r}, but has several; pass {cure}."
        )
    given = per_entry(name, value, x)
    low, most = (0.0, 1.0) if noise_level is None else (0.0, math.inf)
    if not bool(((given >= low) & (given <= most)).all()) or not bool((given > 0).any()):
        span = "on [0, 1]" if noise_level is None else "at 0 or above"
        raise ValueError(
            f"{name} must lie {span}, with at least one entry above 0, but its entries lie between "
            f"{given.min().item():g} and {given.max().item():g}."
        )
    return given if noise_level is not None else release_levels(model.process, start, given)


def turning_time(
    model: ScoreModel, noise_level: float | None, strength: float | None, start: float
) -> float:
    r"""Returns the time up to which an edit goes."""

    process = model.process
    noise_level = check_number("noise_level", noise_level)
    strength = check_number("strength", strength)
    if noise_level is None and strength is None:
        raise ValueError("pass exactly one of noise_level= and strength=, but got neither.")
    low, high = process.noise_level(start), process.noise_level(process.t_max)
    if strength is not None:
        if not 0 < strength <= 1:
            raise ValueError(f"strength must lie in (0, 1], but is {strength}.")
        noise_level = low * (high / low) ** strength
    assert noise_level is not None
    if not low < noise_level <= high * (1 + 1e-9) or not math.isfinite(noise_level):
        raise ValueError(
            f"noise_level must lie in ({low:.4g}, {high:.4g}], the noise levels of "
            f"{type(process).__name__}, but is {noise_level}."
        )
    return process.at_noise_level(noise_level)
