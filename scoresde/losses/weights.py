r"""Weights of the squared error of the denoised data.

A prediction F of a network is linear in the denoised data, :math:`D = c_{skip} x + c_{out} F`, so its squared
error is that of D times :math:`1 / c_{out}^2`, and the choice of a prediction is that of a weight.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from solvers.doors.values import shown

from ..models.predictions import PREDICTIONS
from ..processes.process import Process

Weight = Callable[[Process, Tensor, float], Tensor]


def _of_prediction(process: Process, log_snr: Tensor, data_std: float, *, predicts: str) -> Tensor:
    return PREDICTIONS[predicts](process, process.time(log_snr), data_std).out ** -2


def _min_snr(process: Process, log_snr: Tensor, data_std: float, *, gamma: float = 5.0) -> Tensor:
    return torch.exp(2 * log_snr).clamp(max=gamma)


def _soft_min_snr(
    process: Process, log_snr: Tensor, data_std: float, *, gamma: float | None = None
) -> Tensor:
    inverse = data_std**2 if gamma is None else 1 / gamma
    return 1 / (torch.exp(-2 * log_snr) + inverse)


def _sigmoid(process: Process, log_snr: Tensor, data_std: float, *, bias: float = 0.0) -> Tensor:
    return torch.exp(2 * log_snr) * torch.sigmoid(bias - 2 * log_snr)


def _likelihood(process: Process, log_snr: Tensor, data_std: float) -> Tensor:
    slope = process.rates(process.time(log_snr))[1]
    return -slope * torch.exp(2 * log_snr)


WEIGHTS: dict[str, tuple[Callable[..., Tensor], str]] = {
    **{name: (partial(_of_prediction, predicts=name), "") for name in PREDICTIONS},
    "min_snr": (_min_snr, "gamma"),
    "soft_min_snr": (_soft_min_snr, "gamma"),
    "sigmoid": (_sigmoid, "bias"),
    "likelihood": (_likelihood, ""),
}  # with the name of the number that each takes, if it takes one


def as_weight(weight: str | Weight) -> Weight:
    r"""Returns a weight by its name, such as "v" or "min_snr:5", or the user's own.

    Raises:
        ValueError: If there is no weight with this name, or its number is none.
    """

    if not isinstance(weight, str):
        return weight
    name, colon, number = weight.partition(":")
    if name not in WEIGHTS:
        choices = ", ".join(map(repr, WEIGHTS))
        raise ValueError(f"weight must be one of {choices}, or a function, but is {weight!r}.")
    function, option = WEIGHTS[name]
    if not colon:
        return function
    if not option:
        raise ValueError(f"weight {name!r} takes no number, but is {weight!r}.")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if value != value or abs(value) == torch.inf or (option == "gamma" and value <= 0):
        kind = "positive and finite" if option == "gamma" else "finite"
        raise ValueError(f"{option} of weight {name!r} must be {kind}, but is {number!r}.")
    return partial(function, **{option: value})


def weights(weight: str | Weight, process: Process, log_snr: Tensor, data_std: float) -> Tensor:
    r"""Returns the weights of noise levels, with the shape of `log_snr`, in float64.

    Raises:
        TypeError, ValueError: If the user's function returns no positive numbers, one for each level.
    """

    found: object = as_weight(weight)(process, log_snr, data_std)
    if not isinstance(found, Tensor) or found.shape != log_snr.shape:
        what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else shown(found)
        raise TypeError(
            f"weight must return one number per noise level, with shape {tuple(log_snr.shape)}, but returned "
            f"{what}."
        )
    found = found.detach().double()
    if not bool((found.isfinite() & (found >= 0)).all()):
        wrong = found[~(found.isfinite() & (found >= 0))][0].item()
        raise ValueError(f"weight must return finite numbers >= 0, but returned {wrong:.4g}.")
    return found
