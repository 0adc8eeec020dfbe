r"""The derivatives of a denoiser from which its residuals are made.

In the state :math:`X = x / \alpha` and the clock :math:`\lambda = \log(\alpha / \sigma)`, with
:math:`s = e^{-\lambda}`, the denoiser D, its Jacobian :math:`J_{ij} = \partial_j D_i` and :math:`v = D - X`, an
exact model satisfies three equations, which differ by transposes of derivatives only:

- martingale: :math:`\partial_\lambda D + 2 J v + s^2 \Delta D = 0`,
- flow: :math:`\partial_\lambda D + (J + J^T) v + s^2 \nabla \operatorname{div} D = 0`,
- Fokker-Planck: :math:`\partial_\lambda D + 2 J^T v + s^2 \nabla \operatorname{div} D = 0`.

If J is symmetric, as that of every score that is a gradient, the three are one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from solvers.problem import StateField
from solvers.shapes import align

from ..models.score_model import ScoreModel

STEPS = {torch.float32: 0.05}  # of the clock, over which its derivative is taken
FINE = 0.002  # in float64
PLACES = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}  # central, of fourth order


class Terms(NamedTuple):
    r"""The terms of the residuals at some states.

    Arguments:
        change: The derivative :math:`\partial_\lambda D`, with shape (B, *).
        along: The product :math:`J v`, with shape (B, *).
        across: The product :math:`J^T v`, with shape (B, *).
        laplacian: Estimates of :math:`s^2 \Delta D`, one per probe, with shape (k, B, *); one if exact.
        slope: Estimates of :math:`s^2 \nabla \operatorname{div} D`, with shape (k, B, *).
    """

    change: Tensor
    along: Tensor
    across: Tensor
    laplacian: Tensor
    slope: Tensor

    @property
    def martingale(self) -> Tensor:
        r"""The rate at which the estimate drifts along the reverse SDE, with shape (k, B, *)."""

        return self.change + 2 * self.along + self.laplacian

    @property
    def flow(self) -> Tensor:
        r"""The residual of the score along the probability flow, with shape (k, B, *)."""

        return self.change + self.along + self.across + self.slope

    @property
    def fokker_planck(self) -> Tensor:
        r"""The residual of the score's Fokker-Planck equation, with shape (k, B, *)."""

        return self.change + 2 * self.across + self.slope

    @property
    def curl(self) -> Tensor:
        r"""The martingale residual minus the Fokker-Planck residual, with shape (k, B, *)."""

        return 2 * (self.along - self.across) + self.laplacian - self.slope


def denoiser(model: ScoreModel, log_snr: Tensor, condition: dict[str, Tensor]) -> StateField:
    r"""Returns the denoiser of :math:`X = x / \alpha` at the given log-SNRs.

    Arguments:
        model: The model.
        log_snr: The log of :math:`\alpha / \sigma`, with shape (B,), in float64.
        condition: The conditions.
    """

    t = model.process.time(log_snr)
    alpha = model.process.scales(t)[0]

    def field(X: Tensor) -> Tensor:
        return model.denoise(align(alpha.to(X), X) * X, t, **condition)

    return field


def reach(dtype: torch.dtype) -> float:
    r"""Returns how far the derivative by the clock looks to both sides."""

    return max(PLACES) * STEPS.get(dtype, FINE)


def change(model: ScoreModel, X: Tensor, log_snr: Tensor, condition: dict[str, Tensor]) -> Tensor:
    r"""Returns the derivative of the denoised data by the log-SNR at fixed X, with shape (B, *).

    It is a central difference of fourth order, since networks see times that are rounded and clamped.
    """

    h = STEPS.get(X.dtype, FINE)
    found = torch.zeros_like(X)
    for place, weight in PLACES.items():
        found = found + weight / h * denoiser(model, log_snr + place * h, condition)(X)
    return found


def terms(
    model: ScoreModel,
    X: Tensor,
    log_snr: Tensor,
    probes: Tensor | None,
    condition: dict[str, Tensor],
) -> Terms:
    r"""Returns the terms of the residuals, differentiable in the weights if gradients are enabled.

    Arguments:
        model: The model.
        X: The noisy data over :math:`\alpha`, with shape (B, *).
        log_snr: The log of :math:`\alpha / \sigma`, with shape (B,), in float64.
        probes: Random signs, with shape (k, B, *), or `None` for exact sums over all axes.
        condition: The conditions.
    """

    field = denoiser(model, log_snr, condition)
    square = align(torch.exp(-2 * log_snr).to(X), X)
    v = field(X) - X
    along = torch.func.jvp(field, (X,), (v,))[1]
    lines = _axes(X) if probes is None else probes
    pairs = [_second(field, X, line.expand_as(X)) for line in lines]
    laplacian, slope = (square * torch.stack(column) for column in zip(*pairs, strict=True))
    if probes is None:
        laplacian, slope = laplacian.sum(0, keepdim=True), slope.sum(0, keepdim=True)
    across = _transposed(field, X, v)
    return Terms(change(model, X, log_snr, condition), along, across, laplacian, slope)


def _transposed(field: StateField, X: Tensor, v: Tensor) -> Tensor:
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = X.detach().requires_grad_()
        return _gradient((v * field(leaf)).sum(), leaf, keep=keep)


def _axes(X: Tensor) -> Tensor:
    return torch.eye(X[0].numel()).to(X).reshape(-1, 1, *X.shape[1:])


def _second(field: StateField, X: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
    r"""The second derivative along a probe p, and the gradient of :math:`p^T J p`.

    With :math:`g(w) = \nabla (w^T J p)`, linear in w, they are the gradient of :math:`p^T g(w)` by w, and g(p).
    """

    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf, w = X.detach().requires_grad_(), probe.clone().requires_grad_()
        product = torch.func.jvp(field, (leaf,), (probe,))[1]
        slope = _gradient((w * product).sum(), leaf, keep=True)
        second = _gradient((probe * slope).sum(), w, keep=keep)
    return (second, slope) if keep else (second, slope.detach())


def _gradient(value: Tensor, leaf: Tensor, *, keep: bool) -> Tensor:
    r"""The gradient by a leaf, or 0 if the value does not depend on it."""

    if not value.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(
        value, leaf, create_graph=keep, retain_graph=True, allow_unused=True
    )
    return torch.zeros_like(leaf) if found is None else found
