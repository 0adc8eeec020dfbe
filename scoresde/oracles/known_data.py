r"""Argument checks of the data of exact models."""

import torch
from torch import Tensor

from ..models.checks import check_process
from ..processes.process import Process
from ..processes.standard import EDM


def known_process(process: Process | None) -> Process:
    r"""Returns the process after checking it; by default, this is `EDM()`."""

    if process is not None:
        check_process(process)
    return process or EDM()


def check_points(name: str, value: Tensor, least: int) -> None:
    r"""Refuses data that is empty or not finite."""

    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, but is a {type(value).__name__}.")
    if not value.is_floating_point():
        raise TypeError(f"{name} must hold floating-point numbers, but holds {value.dtype}.")
    if value.ndim < least or value.numel() == 0:
        shape = "(K, *)" if least > 1 else "(N, *)"
        raise ValueError(
            f"{name} must have shape {shape} and not be empty, but has {tuple(value.shape)}."
        )
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name} must be finite, but has NaN or infinite entries.")


def axes_of(means: Tensor, covariances: Tensor | float) -> tuple[Tensor, Tensor]:
    r"""Returns the variances of components along their axes, with shape (K, D), and the axes, with (K, D, D).

    Arguments:
        means: The means, with shape (K, D).
        covariances: Matrices, with shape (K, D, D), or standard deviations, with shape () or (K,).

    Raises:
        TypeError, ValueError: If they are not valid covariances.
    """

    given = torch.as_tensor(covariances)
    if given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"covariances must be real numbers, but hold {given.dtype}.")
    given = given.to(means)
    k, d = means.shape
    if given.ndim < 3:
        if given.numel() not in (1, k) or not bool((given > 0).all() and given.isfinite().all()):
            raise ValueError(
                f"covariances must be positive standard deviations, one or {k}, or matrices of shape "
                f"({k}, {d}, {d}), but are {given.tolist()}."
            )
        values = given.reshape(-1, 1).square().expand(k, d)
        return values, torch.eye(d).to(means).expand(k, -1, -1)
    if given.shape != (k, d, d) or not bool(given.isfinite().all()):
        raise ValueError(
            f"covariances must be finite, with shape ({k}, {d}, {d}), but have {tuple(given.shape)}."
        )
    if not bool(((given - given.mT).abs() <= 1e-5 * given.abs().max()).all()):
        raise ValueError("covariances must be symmetric, but are not; pass S S^T, not S.")
    values, vectors = torch.linalg.eigh(given)
    if not bool((values > 0).all()):
        raise ValueError(f"covariances must be positive, but one is {values.min():.3g}.")
    return values, vectors


def check_labels(label: Tensor, classes: int) -> None:
    r"""Refuses labels that are not whole numbers below a number of classes."""

    if not isinstance(label, Tensor):  # but a container of several numbers
        raise TypeError(
            "label must be one number for each sample, in a tensor, an array or a list, but is a "
            f"{type(label).__name__}."
        )
    if label.is_floating_point() or label.dtype == torch.bool:
        raise TypeError(f"label must hold whole numbers, but holds {label.dtype}.")
    if not bool(((label >= 0) & (label < classes)).all()):
        wrong = label[(label < 0) | (label >= classes)][0].item()
        raise ValueError(f"label must lie in [0, {classes - 1}], but one is {wrong}.")
