r"""Products with the Jacobian of a field, from which traces and divergences are computed.

.. math:: \operatorname{tr} J = \sum_i e_i^T J e_i = \mathbb{E} \, v^T J v \quad
    \text{for} \quad \mathbb{E} \, v v^T = I

References:
    | FFJORD (Grathwohl et al., 2019), section 3.1
    | https://arxiv.org/abs/1810.01367
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from .noise.brownian import PROBES, Seed, keyed_uniform
from .problem import StateField

BUDGET = 2**24  # entries of the Jacobian's columns that are computed at once
# PyTorch's messages where forward mode is missing, as for networks that compute gradients themselves
NO_FORWARD = ("forward", "vmap", "requires_grad_")


def jacobian_products(
    field: StateField, x: Tensor, v: Tensor, chunk: int = 1
) -> tuple[Tensor, Tensor]:
    r"""Returns the field, with shape (B, *), and :math:`J v` for each v, with shape (k, B, *).

    Derivatives are taken in forward mode. Where a network supports reverse mode only, the products are
    :math:`J^T v`, which give the same traces.

    Arguments:
        field: A field from (B, *) to (B, *) that acts on each row separately.
        x: The points at which to evaluate it, with shape (B, *).
        v: The vectors, with shape (k, B, *).
        chunk: How many products are computed at once. Each takes less memory than a product in reverse mode,
            which keeps the outputs of all layers.
    """

    try:
        if chunk == 1:
            found = [_product(field, x, one) for one in v]
            return found[0][0], torch.stack([product for _, product in found])
        many = torch.func.vmap(partial(_product, field, x), out_dims=(None, 0))  # type: ignore[arg-type]
        chunks = [many(some) for some in v.split(chunk)]
        return chunks[0][0], torch.cat([product for _, product in chunks])
    except (NotImplementedError, RuntimeError) as missing:
        if not any(word in str(missing).lower() for word in NO_FORWARD):
            raise
    return _backward(field, x, v)


def _product(field: StateField, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return torch.func.jvp(field, (x,), (v,))  # type: ignore[return-value]


def _backward(field: StateField, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = x if x.requires_grad else x.detach().requires_grad_()
        dx = field(leaf)
        products = [
            torch.autograd.grad(dx, leaf, w, retain_graph=True, create_graph=keep)[0] for w in v
        ]
    found = dx, torch.stack(products)
    return found if keep else (found[0].detach(), found[1].detach())


def trace(field: StateField, x: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor]:
    r"""Returns the field and the exact trace of its Jacobian, with shape (B,), in float64.

    Arguments:
        field: As in :func:`jacobian_products`.
        x: The points at which to evaluate it, with shape (B, *).
        chunk: How many columns of the Jacobian are computed at once. By default, as many as fit into a few
            hundred megabytes.
    """

    total, dx = torch.zeros(len(x), dtype=torch.float64, device=x.device), x
    for some, dx, columns in jacobian_columns(field, x, chunk):  # noqa: B007
        entries = columns.gather(2, some[:, None, None].expand(-1, len(x), 1))
        total = total + entries[..., 0].double().sum(0)
    return dx, total


def jacobian_columns(
    field: StateField, x: Tensor, chunk: int | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    r"""Yields the columns of the Jacobian in chunks: their indices, the field, and the columns.

    Arguments:
        field: As in :func:`jacobian_products`.
        x: The points at which to evaluate it, with shape (B, *).
        chunk: How many columns are computed at once, with shape (chunk, B, d). By default, as many as fit into a
            few hundred megabytes.
    """

    size = x[0].numel()
    chunk = chunk or max(1, BUDGET // max(1, x.numel()))
    for some in torch.arange(size, device=x.device).split(chunk):
        v = torch.nn.functional.one_hot(some, size).to(x)[:, None].expand(-1, len(x), -1)
        dx, columns = jacobian_products(field, x, v.reshape(len(some), *x.shape), chunk)
        yield some, dx, columns.flatten(2)


def jacobian_rows(field: StateField, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns the field, and all rows of its Jacobian by reverse mode, with shape (d, B, d).

    In few dimensions, this takes half the time of the columns, or less. It keeps the outputs of all layers.

    Arguments:
        field: As in :func:`jacobian_products`.
        x: The points at which to evaluate it, with shape (B, *).
    """

    size = x[0].numel()
    w = torch.eye(size).to(x)[:, None].expand(-1, len(x), -1)
    dx, rows = _backward(field, x, w.reshape(size, *x.shape))
    return dx, rows.flatten(2)


def signs(seed: Seed, index: Tensor, counter: int, count: int, size: int) -> Tensor:
    r"""Returns random signs keyed by (seed, sample), with shape (count, B, size), in float64.

    Arguments:
        seed: The seed, or one per sample.
        index: The indices of the samples, with shape (B,).
        counter: The number of the draw.
        count: The number of vectors.
        size: The number of entries of each vector.
    """

    u = keyed_uniform(seed, index, PROBES, counter, count * size)
    drawn = torch.where(u < 0.5, -1.0, 1.0).double()
    return drawn.reshape(len(index), count, size).transpose(0, 1)
