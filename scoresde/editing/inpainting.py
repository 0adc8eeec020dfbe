r"""Inpainting: some entries of the data are known, and the others are drawn.

"replacement" replaces the denoised estimates of the known entries by their values, so that they flow to these,
and works with any solver. The other entries feel the known ones too late, which loses about half of the
conditional mean for normal entries with a correlation of 0.7. "resampling" is the same with the solver
"recurrent", which adds noise after each step and repeats it, so that both sides of the seam agree. "gradient"
also moves the other entries, as :func:`scoresde.guidance.pseudoinverse` does.

References:
    | Score-Based Generative Modeling through SDEs (Song et al., 2021), appendix I.2
    | https://arxiv.org/abs/2011.13456
    | RePaint: Inpainting using Denoising Diffusion Probabilistic Models (Lugmayr et al., 2022), algorithm 1
    | https://arxiv.org/abs/2201.09865
"""

from collections.abc import Callable

import torch
from torch import Tensor

from solvers import Event, Solution, Solver
from solvers.doors.values import Array, as_tensor

from ..doors.data import as_state, with_origin
from ..guidance import Guided, pseudoinverse
from ..models.checks import check_count, check_data, check_number
from ..models.conditions import Condition, verb
from ..models.scale import start_of
from ..models.score_model import ScoreModel
from ..models.spoken import as_data
from ..models.transforms import Data
from ..reverse.amounts import Eta
from ..reverse.linear_part import Convention
from ..reverse.reverse import Clock
from ..runs.options import (
    SEED,
    Ending,
    Failures,
    Gradients,
    Keys,
    Levels,
    Limits,
    Motion,
    Noise,
    Numbers,
    Options,
    Seeds,
    Start,
    Stepping,
    Times,
    Top,
    Watching,
)
from ..runs.repeats import warn_of_copies
from ..runs.run import top_of
from ..runs.takes import Takes, split
from ..sampling import decode
from .releases import Kept, release_levels
from .translate import in_data_units, noised, with_a_seed, with_said_seeds

WAYS = ("replacement", "resampling", "gradient")
STEPS, REPEATS = 50, 5
INPAINT = Takes("inpaint", Stepping, Noise, Keys, Numbers, Limits, Watching, Start, Top, Ending)


def masked(x: Tensor, known: Tensor) -> Tensor:
    r"""Returns the known entries of data, and 0 elsewhere."""

    return known.to(x) * x


@verb(data=("x",), gives=as_data)
def inpaint(  # noqa: D417
    model: ScoreModel,
    x: Data,
    known: Array,
    *,
    method: str = "replacement",
    repeats: int | None = None,
    t_max: float | None = None,
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
    noise: Motion | None = None,
    seed: int | None = SEED,
    seeds: Seeds | None = None,
    first_index: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    grad: Gradients = "none",
    batch_size: int | None = None,
    max_calls: int | None = None,
    on_failure: Failures = "raise",
    progress: bool = False,
    path: bool = False,
    callback: Callable[[Event], object] | None = None,
    t_min: float | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    denoise: bool = True,
    **condition: Condition,
) -> Solution:
    r"""Draws the unknown entries of data.

    A value m of `known` between 0 and 1 holds its entry to the data above a noise level, and leaves it free
    below: the level of an edit of strength 1 - m. So it is the share of the log-SNR span in which it is held.

    Arguments:
        model: The score model.
        x: Data, with shape (B, *), whose unknown entries are ignored; or the solution of a run that ended in data.
        known: True or 1 where data is known, and 0 where it is drawn, or any number on [0, 1], with the shape of
            one sample, or (B, *). "gradient" takes the entries at 1 alone as a measurement.
        method: "replacement", "resampling" (RePaint) or "gradient".
        repeats: How many times "resampling" takes each step, by default 5.
        t_max: The time at which sampling starts. By default, the last time of the process. At an earlier time,
            all entries start from the noised data.
        condition: The conditions of the model. The options are those of :class:`scoresde.Settings`. The default
            solver is "ancestral" with 50 steps.

    Raises:
        ValueError, TypeError: If an option or condition is invalid.
        SolverError: If the run fails.

    References:
        | Differential Diffusion: Giving Each Pixel Its Strength (Levin and Fried, 2023), section 3.2, for numbers
        | between 0 and 1
        | https://arxiv.org/abs/2306.00950

    Examples:
        >>> x, known = torch.tensor([[0.3, 0.0]]).expand(4, 2), torch.tensor([1, 0])
        >>> [round(value, 2) for value in ss.inpaint(model, x, known, steps=4).x[:, 0].tolist()]
        [0.3, 0.3, 0.3, 0.3]
    """

    options = INPAINT.said(locals())
    if method not in WAYS:
        raise ValueError(f"method must be one of {', '.join(WAYS)}, but is {method!r}.")
    if model.process.has_levels and not model.process.has_scales:
        raise ValueError(
            f"inpaint needs numbers alpha and sigma, which {model.process} does not have; take a model of another "
            "process, such as ss.VP()."
        )
    repeats = check_count("repeats", repeats, at_least=1)
    if repeats is not None and method != "resampling":
        raise ValueError(f"repeats= has no effect on method={method!r}; leave it out.")
    asked, origin = options, x
    options = with_a_seed({**_defaults(method, repeats or REPEATS, options), **options})
    x, t_max = as_state("x", x), check_number("t_max", t_max)
    model, settings = split(model, options, len(x), INPAINT)
    t_max = top_of(model, settings, t_max)
    x = _without_unknown(x, known) if t_max is None else x
    x = check_data(model, x, "x", settings.dtype, settings.device)
    known = check_known(known, x)
    warn_of_copies("inpaint", model, (x, known, method, repeats, t_max), asked)
    process, sure = model.process, (known == 1).to(x)
    low = start_of(model, "sampling") if settings.t_min is None else settings.t_min
    release = release_levels(process, low, 1 - known)
    if method == "gradient":
        model = pseudoinverse(model, masked, sure * x, iterations=1, known=sure)
    kept = Guided((model,), Kept(x, release))
    start = process.t_max if t_max is None else process.check_inside("t_max", t_max)
    given = {n: v for n, v in options.items() if hasattr(settings, n) and n != "sigma_max"}
    z, keyed = noised(kept, x, start, given)
    e = with_said_seeds(decode(kept, z, t_max=start, **keyed), options)
    return with_origin(e if settings.denoise else in_data_units(model, e), origin)


def check_known(known: Array, x: Tensor) -> Tensor:
    r"""Returns the mask of known entries in the data's dtype, after checking that it lies on [0, 1]."""

    known = as_tensor("known", known)
    if known.shape not in (x.shape[1:], x.shape, (1, *x.shape[1:])):
        raise ValueError(
            f"known must have shape {tuple(x.shape[1:])} or {tuple(x.shape)}, one entry per entry of a state, "
            f"but has {tuple(known.shape)}."
        )
    if not bool(((known >= 0) & (known <= 1)).all()):
        worst = known[~((known >= 0) & (known <= 1))].flatten()[0].item()
        raise ValueError(
            "known must lie on [0, 1], 1 where data is known and 0 where it is drawn, but one entry is "
            f"{worst:g}; pass known.clamp(0, 1)."
        )
    return known.to(x).expand(x.shape)


def _defaults(method: str, repeats: int, options: Options) -> Options:
    toleranced = {"rtol", "atol"} & options.keys()
    steps = {} if {"steps", "times", "levels"} & options.keys() else {"steps": STEPS}
    if method != "resampling":
        return {} if toleranced else {"solver": "ancestral", **steps}
    if toleranced or options.get("solver") is not None:
        raise ValueError(
            "method='resampling' has its own solver, which takes steps; leave out solver=, rtol= "
            "and atol=, or pass method='replacement'."
        )
    return {"solver": f"recurrent:repeats={repeats}", **steps}


def _without_unknown(x: Tensor, known: Array) -> Tensor:
    r"""Data with its unknown entries set to 0."""

    return torch.where(check_known(known, x) > 0, x, torch.zeros_like(x))
