r"""The options that a public function takes, by groups, and the refusal of others."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Unpack

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..doors.warning import warn
from ..models.checks import check_transforms
from ..models.conditions import SAID, check_conditions, check_names
from ..models.learned import ONE_STEP
from ..models.score_model import Given, ScoreModel
from ..processes.dependent import check_given
from ..reverse.amounts import ByRow
from .grids import check_no_zero
from .options import GROUPS, OPTIONS, STEPPING, Options, RunOptions, names
from .plan import with_plan
from .run import in_times
from .settings import Settings


class Takes:
    r"""Creates the set of options that a function takes, besides its own arguments and conditions.

    Arguments:
        verb: The name of the function in messages.
        groups: Groups of options, or names of single options.
        words: The words about other options in messages, such as "has no effect on".
        up: Whether it goes from data to noise.
    """

    def __init__(
        self,
        verb: str,
        *groups: type | str,
        words: str = "has no effect on",
        up: bool = False,
    ) -> None:
        self.verb, self.names, self.words, self.up = verb, names(*groups), words, up

    def of(self, options: Mapping[str, object]) -> Options:
        r"""Returns the given options that the function takes."""

        return {name: value for name, value in options.items() if name in self.names}

    def said(self, scope: Mapping[str, Any]) -> Options:
        r"""Returns the options and conditions that a call of the function passes, given its arguments.

        Options of the verb alone are passed unless they are `None`.
        """

        passed = SAID.get()  # possibly at its default
        said = {
            n: v
            for n, v in scope.items()
            if n in self.names and (v is not DEFAULTS.get(n) or (n in passed and v is not None))
        }
        return {**said, **scope["condition"]}

    def with_conditions(self, options: Mapping[str, object]) -> Options:
        r"""Returns the given options that the function takes, and all keywords that are not options."""

        return {n: v for n, v in options.items() if n in self.names or n not in OPTIONS}

    def refuse(self, options: Mapping[str, object]) -> None:
        r"""Refuses passed options that the function does not take."""

        for name, value in options.items():
            known = name in OPTIONS or name == "t_max"
            if known and name not in self.names and value is not None:
                raise ValueError(f"{name}= {self.words} {self.verb}; leave it out.")


ANYTHING = Takes("a run", *GROUPS)
DEFAULTS = {field.name: field.default for group in GROUPS for field in fields(group)}

GENERAL: dict[str, RunOptions] = {  # instead, for processes without scales
    "exponential": {"solver": "dopri5", "rtol": 1e-5, "atol": 1e-5},
    "exponential_3": {"solver": "rk4"},
}


ON_GRID: RunOptions = {
    "solver": "exponential_3"
}  # the defaults of the flow if the user passes steps


OF_LEARNED: dict[str, RunOptions] = {"consistency": {"solver": ONE_STEP}}  # defaults


def gridded(options: Mapping[str, object]) -> bool:
    r"""Whether options set the steps of a run."""

    return any(options.get(name) is not None for name in ("steps", "grid", "times", "levels"))


def suited(model: ScoreModel, defaults: RunOptions, options: Mapping[str, object]) -> RunOptions:
    r"""Returns the defaults of the probability flow, with a solver that the model's process can be solved by.

    Arguments:
        model: The model.
        defaults: The defaults unless the options set the steps.
        options: The options that the user passed.
    """

    defaults = ON_GRID if gridded(options) else defaults
    process = getattr(model, "process", None)
    if process is None or process.has_scales or (gridded(options) and process.has_levels):
        return defaults
    return GENERAL[str(defaults["solver"])]


def split(
    model: ScoreModel,
    keywords: Mapping[str, object],
    batch: int | None,
    takes: Takes,
    **defaults: Unpack[RunOptions],
) -> tuple[ScoreModel, Settings]:
    r"""Returns the model with the conditions among the keywords bound, and the options.

    Arguments:
        model: The model.
        keywords: The keywords that the user passed.
        batch: The number of samples, if known.
        takes: The options that the function takes.
        defaults: The function's defaults, for options that the user did not pass.
    """

    check_model(model)
    return parted(model, model.modules(), keywords, batch, takes, **defaults)


def parted(
    model: ScoreModel,
    modules: Iterable[nn.Module],
    keywords: Mapping[str, object],
    batch: int | None,
    takes: Takes,
    **defaults: Unpack[RunOptions],
) -> tuple[ScoreModel, Settings]:
    r"""Returns the result of :func:`split`, for a checked model whose modules are known."""

    takes.refuse(keywords)
    keywords = with_plan(model, keywords)
    for module in modules:
        if module.training and isinstance(module, nn.modules.dropout._DropoutNd | _BatchNorm):
            warn(
                f"the model is in training mode, so its {type(module).__name__} makes results random; "
                "call model.eval()."
            )
            break
    options: Options = {}
    condition: Options = {}
    for name, value in keywords.items():
        (options if name in OPTIONS else condition)[name] = value
    bound = check_conditions(model, condition, batch, takes.names) if condition else {}
    ours: Options = {**defaults, **OF_LEARNED.get(model.learned, {})}
    if ours and set(STEPPING) & set(options):  # the user's steps replace ours entirely
        ours = {n: v for n, v in ours.items() if n not in STEPPING or n == "solver"}
    if options.get("levels") is not None and "denoise" not in takes.names:
        check_no_zero(options["levels"])
    settings = Settings(**{**ours, **options})
    if settings.levels is not None or settings.sigma_min is not None:
        settings = in_times(model, settings, up=takes.up)
    if isinstance(settings.eta, ByRow) and batch not in (None, len(settings.eta.values)):
        raise ValueError(
            f"eta must be one number or have {batch} entries, one per sample, not {len(settings.eta.values)}."
        )
    if settings.grad != "none":
        _check_gradients(model, settings.grad)
    model = Given(model, bound) if bound else model
    if model.process.conditions:
        check_given(model.process)
    return model, settings


def _check_gradients(model: ScoreModel, grad: str) -> None:
    r"""Refuses gradients through models that have none, or none in the backward pass."""

    again = grad in ("checkpoint", "adjoint")
    if again and any(getattr(module, "owned", False) for module in model.modules()):
        raise ValueError(
            f"grad={grad!r} asks the network again in the backward pass, when an owned run is over; "
            "pass grad='backprop'."
        )
    if not model.differentiable:
        raise ValueError(
            f"grad={grad!r} cannot differentiate guidance by gradients (of classifiers or "
            "losses), whose own derivatives are not known; leave it out."
        )


def check_model(model: object) -> None:
    r"""Refuses anything but a score model, and a call from inside a transform of torch.func."""

    check_transforms()
    if not isinstance(model, ScoreModel):
        cure = getattr(type(model), "meant_for", ScoreModel.instead)
        raise TypeError(f"model must be a ScoreModel, but is a {type(model).__name__}{cure}.")
    check_names(dict.fromkeys((*model.conditions, *model.process.conditions)))
