r"""The trace of a field's Jacobian, exact or by random probes.

.. math:: \operatorname{tr} J = \sum_i e_i^T J e_i = \mathbb{E} \, v^T J v \quad
    \text{for} \quad \mathbb{E} \, v v^T = I

References:
    | FFJORD (Grathwohl et al., 2019), section 3.1
    | https://arxiv.org/abs/1810.01367
"""

import math

import torch
from torch import Tensor

from .brownian import PROBES, keyed_uniform
from .problem import StateField

BUDGET = 2**24  # entries of the tangents that are carried at once
# What PyTorch says where forward mode is missing, as for networks that take gradients themselves
NO_FORWARD = ("forward", "vmap", "requires_grad_")


def quadratic_forms(field: StateField, x: Tensor, probes: Tensor) -> Tensor:
    r"""Returns :math:`v^T J v` for each probe and row, with shape (k, B), in float64.

    Derivatives are forward-mode, or reverse-mode where a network knows no other.

    Arguments:
        field: A field from (B, *) to (B, *), each row of which depends on that row alone.
        x: Where, with shape (B, *).
        probes: The vectors v, with shape (k, B, *).
    """

    chunk = max(1, min(len(probes), BUDGET // max(1, x.numel())))

    def forward(v: Tensor) -> Tensor:
        tangent = torch.func.jvp(field, (x,), (v,))[1]
        return (v * tangent).flatten(1).double().sum(1)

    try:
        return torch.func.vmap(forward, chunk_size=chunk)(probes)  # type: ignore[no-any-return]
    except (NotImplementedError, RuntimeError) as missing:
        if not any(word in str(missing).lower() for word in NO_FORWARD):
            raise
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        dx = field(leaf)
        products = [
            (v * torch.autograd.grad(dx, leaf, v, retain_graph=True)[0]).flatten(1).double().sum(1)
            for v in probes
        ]
    return torch.stack(products).detach()


def basis(x: Tensor) -> Tensor:
    r"""Returns the probes that make the trace exact, with shape (D, B, *)."""

    size = x[0].numel()
    eye = torch.eye(size, dtype=x.dtype, device=x.device)
    return eye[:, None].expand(size, len(x), size).reshape(size, *x.shape)


def rademacher(seed: int, index: Tensor, counter: int, count: int, x: Tensor) -> Tensor:
    r"""Returns probes of random signs keyed by (seed, sample), with shape (count, B, *).

    Arguments:
        seed: The seed.
        index: The indices of the samples, with shape (B,).
        counter: Which draw of them.
        count: How many probes.
        x: A state, which gives shape, dtype and device.
    """

    size = math.prod(x.shape[1:])
    u = keyed_uniform(seed, index, PROBES, counter, count * size)
    signs = torch.where(u < 0.5, -1.0, 1.0).to(x).reshape(len(x), count, *x.shape[1:])
    return signs.transpose(0, 1)
