r"""Conditions: what may be one, checked once."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Protocol

from torch import Tensor

from solvers.doors.values import as_tensor

# what the verbs take beside conditions, whose keywords would be theirs
TAKEN = frozenset(
    """self model x z t t_min t_max shape plan solver steps grid times rtol atol max_step first_step clock eta
    eta_convention noise seed seeds first_index batch_size dtype device path callback progress max_calls
    on_failure grad denoise source target noise_level strength method known repeats averages chain one_state
    divergence probes nodes target_stderr levels low high dequantization draws importance paths classes
    condition prior by parts solvers budgets budget grids tolerances metrics metric data features samples
    held_out learned reference_tolerance file""".split()
)
ELSEWHERE = {  # what other libraries call what
    **dict.fromkeys(("num_inference_steps", "num_steps", "n_steps", "num_sampling_steps"), "steps="),
    **dict.fromkeys(("sampler", "scheduler", "sampler_name", "sampling_method"), "solver="),
    **dict.fromkeys(("sigmas", "timesteps", "ts"), "times="),
    **dict.fromkeys(("num_samples", "n_samples", "num_images_per_prompt"), "shape=, the number of samples,"),
    **dict.fromkeys(("guidance_scale", "cfg_scale", "guidance", "cfg", "unconditional_guidance_scale"),
                    "the model ss.classifier_free(model, scale, label=...)"),
    **dict.fromkeys(("negative_prompt", "uncond"), "negative= of ss.classifier_free"),
    **dict.fromkeys(("generator", "random_state"), "seed="),
    **dict.fromkeys(("disable", "verbose", "disable_tqdm"), "progress="),
    **dict.fromkeys(("churn", "s_churn"), "solver='edm_churn:amount=20'"),
    **dict.fromkeys(("temperature", "noise_scale"), "eta="),
}  # fmt: skip


class Conditioned(Protocol):
    r"""What takes conditions: those it knows by name, and those that are bound to it already."""

    conditions: tuple[str, ...]
    bound_names: tuple[str, ...]

    def check_condition(self, name: str, value: Tensor) -> None:
        r"""Refuses a value that is not known."""


def rows_of(condition: Mapping[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    r"""Returns conditions for some rows; those of leading size 1 are shared."""

    return {
        name: value if len(value) == 1 else value[index.to(value.device)]
        for name, value in condition.items()
    }


def floats_like(condition: Mapping[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    r"""Returns conditions whose floating-point numbers have the dtype of a state."""

    found = {}
    for name, given in condition.items():
        value = as_tensor(name, given)
        value = value.expand(len(x)) if value.ndim == 0 else value
        found[name] = value.to(x.dtype) if value.is_floating_point() else value
    return found


def as_condition(name: str, value: object) -> Tensor:
    r"""Returns what belongs to samples, with leading size B or 1; a number stands for all of them."""

    tensor = as_tensor(name, value)
    tensor = tensor[None] if tensor.ndim == 0 else tensor
    if not tensor.numel():
        raise ValueError(f"{name} must not be empty, but has shape {tuple(tensor.shape)}.")
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} must be finite, but has NaN or infinite entries.")
    return tensor


def as_conditions(given: Mapping[str, object]) -> dict[str, Tensor]:
    r"""Returns what belongs to samples by name, as :func:`as_condition` does."""

    return {name: as_condition(name, value) for name, value in given.items()}


def check_conditions(
    model: Conditioned,
    condition: Mapping[str, object],
    batch: int | None,
    options: Iterable[str] = (),
) -> dict[str, Tensor]:
    r"""Returns the conditions as tensors.

    Arguments:
        model: The model that gets them.
        condition: The conditions: numbers, or tensors, arrays or lists of them with leading size B or 1.
        batch: The size B, if known.
        options: The names of options, which a mistyped one may have meant.

    Raises:
        TypeError: If the model does not take a condition of this name, or it is not a tensor.
        ValueError: If a leading size is neither B nor 1, or a value is not finite.
    """

    checked = {}
    for name, value in condition.items():
        if name in model.bound_names:
            raise TypeError(f"{name}= is bound to the model already; leave it out.")
        if name not in model.conditions:
            near = difflib.get_close_matches(name, [*model.conditions, *options], n=1)
            takes = ", ".join(model.conditions) or "none"
            meant = ELSEWHERE.get(name, f"{near[0]}=" if near else "")
            hint = f"did you mean {meant}? " if meant else ""
            raise TypeError(f"{name}= is neither an option nor a condition; {hint}the model takes the "
                            f"conditions: {takes}.")  # fmt: skip
        tensor = as_condition(name, value)
        if batch is not None and len(tensor) not in (1, batch):
            raise ValueError(
                f"{name} must have leading size {batch} or 1, but has shape {tuple(tensor.shape)}."
            )
        model.check_condition(name, tensor)
        checked[name] = tensor
    return checked


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    r"""Returns the names of conditions, refused where they are no keywords of their own."""

    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(
            f"conditions must be a list of names, but is {names!r}; write [{names!r}]."
        )
    checked = tuple(names)
    for name in checked:
        if not isinstance(name, str) or not name.isidentifier():
            raise TypeError(f"conditions must be names of keywords, but one is {name!r}.")
        if name in TAKEN:
            raise ValueError(
                f"a condition cannot be called {name!r}, which is an option or argument here; wrap the network in "
                f"a function that takes it by another name."
            )
    if len(set(checked)) < len(checked):
        raise ValueError(f"conditions must differ, but are {', '.join(checked)}.")
    return checked
