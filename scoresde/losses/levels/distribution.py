r"""The distribution of noise levels, and what all of them share."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from solvers.doors.signatures import with_doors

from ...doors.data import as_times
from ...models.checks import check_process
from ...processes.process import Process


def as_process(name: str, value: object) -> object:
    r"""Returns a process with noise levels."""

    check_process(value)
    if not value.has_levels:  # type: ignore[attr-defined]
        raise ValueError(f"process must have noise levels, but {value} has no alpha and sigma.")
    return value


def as_share(name: str, value: object) -> Tensor:
    r"""Returns probabilities in float64."""

    share = as_times(name, value).double()
    if not bool(((share >= 0) & (share <= 1)).all()):
        wrong = share[~((share >= 0) & (share <= 1))].flatten()[0].item()
        raise ValueError(f"{name} must lie between 0 and 1, but is {wrong:.4g}.")
    return share


def as_log_snr(name: str, value: object) -> Tensor:
    r"""Returns log-SNRs in float64."""

    return as_times(name, value).double()


DOORS = {
    "log_snr": {"process": as_process, "share": as_share},
    "share": {"process": as_process, "log_snr": as_log_snr},
    "density": {"process": as_process, "log_snr": as_log_snr},
}


class Levels(ABC):
    r"""Abstract distribution of noise levels, for any process.

    Examples:
        >>> class Middle(ss.losses.levels.Levels):  # the middle half of the log-SNRs
        ...     def log_snr(self, process, share):
        ...         return ss.losses.levels.LogUniform().log_snr(process, 0.25 + 0.5 * share)
        ...     def share(self, process, log_snr):
        ...         return (2 * ss.losses.levels.LogUniform().share(process, log_snr) - 0.5).clamp(0, 1)
        ...     def density(self, process, log_snr):
        ...         whole = ss.losses.levels.LogUniform()
        ...         inside = (whole.share(process, log_snr) - 0.5).abs() <= 0.25
        ...         return 2 * inside * whole.density(process, log_snr)
        >>> Middle().log_snr(ss.VE(ss.Geometric(0.01, 100.0)), [0.0, 1.0])
        tensor([ 2.3026, -2.3026], dtype=torch.float64)
    """

    instead: ClassVar[str] = "; pass ss.losses.levels.LogNormal() or another"
    bare_log_snr: Callable[[Process, Tensor], Tensor]  # the same without argument checks
    bare_share: Callable[[Process, Tensor], Tensor]
    bare_density: Callable[[Process, Tensor], Tensor]

    def __init_subclass__(cls, **keywords: object) -> None:
        r"""Adds the common argument checks to the functions of a distribution."""

        super().__init_subclass__(**keywords)
        with_doors(cls, DOORS)

    @abstractmethod
    def log_snr(self, process: Process, share: Tensor) -> Tensor:
        r"""Returns the log-SNRs at which the noise levels below have the given shares, with the shape of `share`.

        Arguments:
            process: The process.
            share: Probabilities, from 0 at `t_min` to 1 at `t_max`.
        """

    @abstractmethod
    def share(self, process: Process, log_snr: Tensor) -> Tensor:
        r"""Returns the probability of lower noise levels, the inverse of :meth:`log_snr`."""

    @abstractmethod
    def density(self, process: Process, log_snr: Tensor) -> Tensor:
        r"""Returns the density of log-SNRs, with the shape of `log_snr`, in float64; 0 outside the domain."""


def level_ends(process: Process) -> tuple[float, float]:
    r"""The logs of the first and of the last noise level."""

    ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
    first, last = (-process.log_snr(ends)).tolist()
    return first, last


def of_times(
    process: Process, log_snr: Tensor, density: Callable[[Tensor], Tensor | float]
) -> Tensor:
    r"""The density of log-SNRs that follows from one of times, 0 outside the domain."""

    t = process.time(log_snr)
    first, last = level_ends(process)
    inside = (-log_snr >= first - 1e-9) & (-log_snr <= last + 1e-9)
    return torch.where(inside, density(t) / process.rates(t)[1].abs(), 0.0)
