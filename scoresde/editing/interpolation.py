r"""Interpolation between latents, along ways that stay where latents are typical.

Normal numbers in d dimensions have norms close to :math:`\sqrt d`. The middle of the straight line between two
of them is shorter by :math:`\sqrt 2`, where models have seen no data; the other ways keep the norm.

References:
    | Animating Rotation with Quaternion Curves (Shoemake, 1985), section 3.3, for "slerp"
    | https://doi.org/10.1145/325334.325242
    | Linear Combinations of Latents in Generative Models (Bodin et al., 2024), section 3, for weights
    | https://arxiv.org/abs/2408.08558
"""

from typing import Literal, overload

import torch
from torch import Tensor

from solvers import Solution
from solvers.doors.signatures import checked
from solvers.doors.values import Array, is_number

from ..doors.data import as_data, as_floats, as_pair
from ..models.checks import check_count
from .derived import derived

Way = Literal["slerp", "linear", "normed"]
WAYS = ("slerp", "linear", "normed")
STRAIGHT = 1e-4  # sine of the angle below which an arc counts as a line


@overload
def interpolate(a: Array, b: Array, shares: Array | int, way: Way = "slerp") -> Tensor: ...


@overload
def interpolate(a: Solution, b: Solution, shares: Array | int, way: Way = "slerp") -> Solution: ...


@checked
def interpolate(
    a: Array | Solution, b: Array | Solution, shares: Array | int, way: Way = "slerp"
) -> Tensor | Solution:
    r"""Returns latents between two others, with shape (n, B, \*).

    Arguments:
        a: Latents, with shape (B, \*), or the solution of :func:`scoresde.encode`.
        b: The same number of other latents, or a solution.
        shares: The positions between them, 0 for a and 1 for b, with shape (n,); or the number n, for evenly
            spaced ones.
        way: "slerp" follows the arc, and is linear in the norm; "linear" follows the straight line; "normed" is
            the straight line rescaled to the norms of the arc.

    Returns:
        The latents; for two solutions, a solution of n B rows for :func:`scoresde.decode`, which begins with all
        rows at the first share. Pass conditions for as many rows.

    Raises:
        ValueError: If two latents are opposite, or one is zero, so that no unique arc joins them.

    Examples:
        >>> ss.interpolate(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 3)[1]
        tensor([[0.7071, 0.7071]])
    """

    if isinstance(a, Solution) and isinstance(b, Solution):
        return derived(interpolate(a.x, b.x, shares, way).flatten(0, 1), a, b)
    if isinstance(a, Solution) or isinstance(b, Solution):
        raise TypeError("latents must be two tensors or two solutions, not one of each; pass z.x.")
    if way not in WAYS:
        raise ValueError(f"way must be one of {', '.join(WAYS)}, but is {way!r}.")
    a, b = as_pair(a, b, ("a", "b"))
    if len(a) != len(b):
        raise ValueError(
            f"a and b must have the same shape (B, *), but have {tuple(a.shape)} and {tuple(b.shape)}."
        )
    if is_number(shares):
        count: int = check_count("shares", shares, at_least=2)  # type: ignore[assignment]
        shares = torch.linspace(0, 1, count)
    u = as_floats("shares", shares, least=1).to(a).reshape(-1, *(1,) * a.ndim)
    b = b.to(a)
    line = torch.lerp(a[None], b[None], u)
    if way == "linear":
        return line
    size_a, size_b = _size(a), _size(b)
    _check_directions(size_a, size_b)
    unit_a, unit_b = a / size_a, b / size_b
    if bool((_size(unit_a + unit_b) <= STRAIGHT).any()):
        raise ValueError(
            "there is no unique arc between opposite latents; put another latent between them, or pass "
            "way='linear'."
        )
    size = size_a + u * (size_b - size_a)
    if way == "slerp":
        cosine = (unit_a * unit_b).flatten(1).sum(1).clamp(-1, 1)
        angle = torch.acos(cosine).reshape(size_a.shape)
        sine = angle.sin()
        arc = torch.sin((1 - u) * angle) * unit_a + torch.sin(u * angle) * unit_b
        line = torch.where(sine > STRAIGHT, arc, line)
    return line * (size / _size(line.flatten(0, 1)).reshape(len(line), *size_a.shape))


def _check_directions(*sizes: Tensor) -> None:
    r"""Refuses latents without a direction."""

    for size in sizes:
        zero = (size.flatten() == 0).nonzero()[:, 0].tolist()
        if zero:
            raise ValueError(
                f"there is no arc to or from a zero latent, as in rows {zero[:8]}; pass "
                "way='linear'."
            )


@overload
def along(latents: Array, count: int, way: Way = "slerp") -> Tensor: ...


@overload
def along(latents: Solution, count: int, way: Way = "slerp") -> Solution: ...


@checked
def along(latents: Array | Solution, count: int, way: Way = "slerp") -> Tensor | Solution:
    r"""Returns latents on a way through others, with shape (n, \*), including both ends.

    Arguments:
        latents: The latents that the way passes through, with shape (K, \*), or the solution of
            :func:`scoresde.encode`.
        count: The number n of latents on the way, spread evenly over its K - 1 segments.
        way: As in :func:`interpolate`.

    Raises:
        ValueError: If there are fewer than two latents.

    Examples:
        >>> ss.editing.along(torch.tensor([[0.0], [2.0], [6.0]]), 5, "linear").flatten()
        tensor([0., 1., 2., 4., 6.])
    """

    count = check_count("count", count, at_least=2)
    if isinstance(latents, Solution):
        return derived(along(latents.x, count, way), latents)
    latents = as_data("latents", latents)
    if len(latents) < 2:
        raise ValueError("latents must be at least 2, for a way through them.")
    places = torch.linspace(0, len(latents) - 1, count)
    first = places.long().clamp(max=len(latents) - 2)
    return torch.cat([
        interpolate(latents[i, None], latents[i + 1, None], (place - i).reshape(1), way)[0]
        for i, place in zip(first.tolist(), places, strict=True)
    ])  # fmt: skip


@overload
def weighted(latents: Array, weights: Array) -> Tensor: ...


@overload
def weighted(latents: Solution, weights: Array) -> Solution: ...


@checked
def weighted(latents: Array | Solution, weights: Array) -> Tensor | Solution:
    r"""Returns weighted sums of independent latents, which are again standard normal, with shape (n, \*).

    .. math:: \sum_k w_k z_k \Big/ \sqrt{\textstyle \sum_k w_k^2}

    Arguments:
        latents: The latents, with shape (K, \*), or the solution of :func:`scoresde.encode`.
        weights: The weights, with shape (n, K), such as barycentric coordinates.

    Raises:
        ValueError: If `weights` has not one column per latent, or a row of zeros.

    Examples:
        >>> z = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
        >>> ss.editing.weighted(z, torch.tensor([[0.5, 0.5]]))  # (1 + 1) / sqrt(2)
        tensor([[1.4142, 1.4142]])
    """

    if isinstance(latents, Solution):
        return derived(weighted(latents.x, weights), latents)
    latents, weights = as_data("latents", latents), as_floats("weights", weights)
    if weights.ndim != 2 or weights.shape[1] != len(latents):
        raise ValueError(
            f"weights must have shape (n, {len(latents)}), not {tuple(weights.shape)}."
        )
    weights = weights.to(latents)
    size = weights.norm(dim=1, keepdim=True)
    if not bool((size > 0).all()):
        raise ValueError("the weights of a latent must not all be 0.")
    return torch.einsum("nk,k...->n...", weights / size, latents)


@overload
def grid(corners: Array, rows: int, columns: int) -> Tensor: ...


@overload
def grid(corners: Solution, rows: int, columns: int) -> Solution: ...


@checked
def grid(corners: Array | Solution, rows: int, columns: int) -> Tensor | Solution:
    r"""Returns the latents of a grid between four corners, with shape (rows, columns, \*).

    Arguments:
        corners: The latents at the upper left, upper right, lower left and lower right, with shape (4, \*), or
            the solution of :func:`scoresde.encode`, for which the result is a solution, row by row.
        rows: The number of rows.
        columns: The number of columns.

    Raises:
        ValueError: If there are not four corners.

    Examples:
        >>> ss.editing.grid(torch.randn(4, 2), rows=3, columns=5).shape
        torch.Size([3, 5, 2])
    """

    rows, columns = check_count("rows", rows, 1), check_count("columns", columns, 1)
    if isinstance(corners, Solution):
        return derived(grid(corners.x, rows, columns).flatten(0, 1), corners)
    corners = as_data("corners", corners)
    if len(corners) != 4:
        raise ValueError(f"a grid has 4 corners, but got {len(corners)}.")
    v, u = torch.linspace(0, 1, rows)[:, None], torch.linspace(0, 1, columns)[None]
    shares = torch.stack([(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u], dim=-1)
    return weighted(corners, shares.flatten(0, 1)).reshape(rows, columns, *corners.shape[1:])


def _size(x: Tensor) -> Tensor:
    r"""The norms of rows, even if they are too small or too large to be squared."""

    flat = x.flatten(1)
    most = flat.abs().amax(1, keepdim=True)
    inner = flat / torch.where(most > 0, most, torch.ones_like(most))
    return (most[:, 0] * inner.norm(dim=1)).reshape(-1, *(1,) * (x.ndim - 1))
