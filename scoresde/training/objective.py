r"""The loss of a step: what is drawn for a batch, and what the network is asked."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from solvers.doors.values import shown

from .. import losses
from ..losses.levels.distribution import level_ends
from ..losses.seeded import takes_seed
from ..models.network import NetworkScore
from ..processes.process import Process
from . import draws
from .batches import Batch
from .data import Form
from .options import Coupling, Levels, Loss

GIVEN = ("model", "x", "log_snr", "z")  # what each loss is called with
NEAR = 1e-6
LOSSES: dict[str, Loss] = {
    "denoising": losses.denoising,
    "implicit_score": losses.implicit_score,
    "sliced_score": losses.sliced_score,
    "discrete_elbo": losses.discrete_elbo,
    "continuous_elbo": losses.continuous_elbo,
    "interpolant": losses.interpolant,
    "cross_entropy": losses.cross_entropy,
}


def as_loss(loss: object) -> Loss:
    r"""Returns a loss, by name or as a function."""

    if isinstance(loss, str):
        if loss not in LOSSES:
            raise ValueError(
                f"loss must be one of {', '.join(map(repr, LOSSES))}, or a function, but is {loss!r}."
            )
        return LOSSES[loss]
    if not callable(loss):
        raise TypeError(f"loss must be a name or a function, but is {loss!r}.")
    return loss


def check_takes(loss: Loss, condition: Mapping[str, Tensor]) -> None:
    r"""Refuses a loss that cannot be called with what it is given."""

    call = loss.forward if isinstance(loss, nn.Module) else loss
    try:
        inspect.signature(call).bind(*GIVEN, **condition)
    except TypeError as error:
        given = ", ".join((*GIVEN, *(f"{name}=" for name in condition)))
        raise TypeError(f"loss must be called as loss({given}), but {error}.") from None


def check_levels(levels: object, process: Process) -> None:
    r"""Refuses what is no distribution of noise levels, or has some that a process has not."""

    if isinstance(levels, type) or not callable(getattr(levels, "log_snr", None)):
        raise TypeError(
            f"levels must be a distribution with log_snr(process, share), but is {shown(levels)}."
        )
    share = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    found = levels.log_snr(process, share)  # type: ignore[attr-defined]
    if (
        not isinstance(found, Tensor)
        or found.shape != share.shape
        or not found.is_floating_point()
    ):
        raise TypeError(
            f"levels must give one log-SNR for each share, 3 floating-point numbers here, but gives {found!r}."
        )
    first, last = level_ends(process)
    if not bool(((-found >= first - NEAR) & (-found <= last + NEAR)).all()):
        raise ValueError(
            f"levels must lie in the domain of {process}, with log-SNRs from {-last:.4g} to {-first:.4g}, but has "
            f"{found.tolist()}."
        )


class Objective(nn.Module):
    r"""The loss as one module, whose parameters are those of the network, and of the loss if it has some."""

    def __init__(self, model: NetworkScore, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self.seeded = takes_seed(loss)

    def forward(
        self, x: Tensor, log_snr: Tensor, z: Tensor, seed: int, condition: Mapping[str, Tensor]
    ) -> Tensor:
        r"""Returns the losses, with shape (B,)."""

        own = {"seed": seed} if self.seeded else {}
        found = self.loss(self.model, x, log_snr, z, **own, **condition)
        if not isinstance(found, Tensor) or found.shape != (len(x),):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"loss must return one number for each sample, ({len(x)},), not {shape}."
            )
        if not found.is_floating_point():
            raise TypeError(f"loss must return floating-point numbers, not {found.dtype}.")
        return found


@dataclass(frozen=True)
class Drawing:
    r"""How batches become what a loss takes.

    Arguments:
        form: The form of the data.
        levels: The distribution of noise levels.
        coupling: How noise and data are paired.
        dropped: The share of samples that lose their conditions.
        null: The values that stand for no condition.
        seed: The seed.
    """

    form: Form
    levels: Levels
    coupling: Coupling
    dropped: float
    null: Mapping[str, Tensor]
    seed: int

    def __call__(
        self, model: NetworkScore, batch: Batch, step: int, place: Tensor, size: int
    ) -> tuple[Tensor, Tensor, Tensor, int, dict[str, Tensor]]:
        r"""Returns data, log-SNRs, the other end, a seed and the conditions of one step.

        Arguments:
            model: The model.
            batch: The samples of this process.
            step: The number of the step.
            place: Their places in the whole batch.
            size: The size of the whole batch.
        """

        key = draws.word(self.seed, step)
        x = current(model, self.form.noisy(batch.x, place, self.seed, step))
        share = draws.shares(self.seed, step, size, place)
        log_snr = self.levels.log_snr(model.process, share).to(x)
        z = batch.z
        if z is None:
            like = x.new_empty(model.process.prior_shape(tuple(x.shape)))
            z = draws.noise(self.seed, step, place, like)
            if self.coupling == "ot":
                label = batch.condition.get("label")
                z = losses.pair(x, z, groups=label if _is_label(label) else None)
        gone = draws.dropped(self.seed, step, place, self.dropped)
        return x, log_snr, z, key, self._without(batch.condition, gone)

    def _without(self, condition: Mapping[str, Tensor], gone: Tensor) -> dict[str, Tensor]:
        if not self.dropped:
            return dict(condition)
        found = {}
        for name, value in condition.items():
            rows = gone.to(value.device).reshape(-1, *[1] * (value.ndim - 1))
            found[name] = torch.where(rows, self.null[name].to(value), value)
        return found


def current(model: NetworkScore, x: Tensor) -> Tensor:
    r"""Returns the states of data that a training keeps, by the weights of the model."""

    return x if model.transform is None else model.transform.current(x)


def _is_label(value: Tensor | None) -> bool:
    r"""Whether a condition is one whole number for each sample."""

    return value is not None and value.ndim == 1 and not value.is_floating_point()
