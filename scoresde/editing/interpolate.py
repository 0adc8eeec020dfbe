r"""Between latents: ways that stay where latents are.

Normal numbers in d dimensions have norms close to :math:`\sqrt d`. The middle of a straight line between
two of them is shorter by :math:`\sqrt 2`, where models know no data; the others keep the norm.

References:
    | Animating Rotation with Quaternion Curves (Shoemake, 1985), section 3.3, for "slerp"
    | https://doi.org/10.1145/325334.325242
    | Linear Combinations of Latents in Generative Models (Bodin et al., 2024), section 3, for weights
    | https://arxiv.org/abs/2408.08558
"""

from typing import Literal

import torch
from torch import Tensor

from solvers.doors import is_number

from ..checks import check_count
from ..data import as_data, as_floats, as_pair

Way = Literal["slerp", "linear", "normed"]
WAYS = ("slerp", "linear", "normed")
STRAIGHT = 1e-4  # the sine of an angle below which an arc is a line


def interpolate(a: Tensor, b: Tensor, shares: Tensor | int, way: Way = "slerp") -> Tensor:
    r"""Returns latents between others, with shape (n, B, *).

    Arguments:
        a: Latents, with shape (B, *).
        b: As many others.
        shares: Where, 0 being a and 1 being b, with shape (n,); or n, for as many at equal distances.
        way: "slerp" follows the arc, and is linear in the norm; "linear" the straight line; "normed"
            the straight line, with the norms of the arc.
    """

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
    if bool(((a + b).flatten(1).norm(dim=1) <= STRAIGHT * a.flatten(1).norm(dim=1)).any()):
        raise ValueError(
            "there is no one arc between opposite latents; go by way of another, or way='linear'."
        )
    size_a, size_b = _size(a), _size(b)
    size = size_a + u * (size_b - size_a)
    if way == "slerp":
        cosine = ((a / size_a) * (b / size_b)).flatten(1).sum(1).clamp(-1, 1)
        angle = torch.acos(cosine).reshape(size_a.shape)
        sine = angle.sin()
        arc = torch.sin((1 - u) * angle) * (a / size_a) + torch.sin(u * angle) * (b / size_b)
        line = torch.where(sine > STRAIGHT, arc, line)
    return line * (size / _size(line.flatten(0, 1)).reshape(len(line), *size_a.shape))


def along(latents: Tensor, count: int, way: Way = "slerp") -> Tensor:
    r"""Returns latents on a way through others, with shape (n, \*), the ends included.

    Arguments:
        latents: The latents to be passed, with shape (K, \*).
        count: The number n of latents on the way, spread evenly over its K - 1 parts.
        way: As in :func:`interpolate`.
    """

    latents, count = as_data("latents", latents), check_count("count", count, at_least=2)
    if len(latents) < 2:
        raise ValueError("a way needs at least 2 latents to pass.")
    places = torch.linspace(0, len(latents) - 1, count)
    first = places.long().clamp(max=len(latents) - 2)
    return torch.cat([
        interpolate(latents[i, None], latents[i + 1, None], (place - i).reshape(1), way)[0]
        for i, place in zip(first.tolist(), places, strict=True)
    ])  # fmt: skip


def weighted(latents: Tensor, weights: Tensor) -> Tensor:
    r"""Returns sums of independent latents that are as normal as these, with shape (n, \*).

    .. math:: \sum_k w_k z_k \Big/ \sqrt{\textstyle \sum_k w_k^2}

    Arguments:
        latents: The latents, with shape (K, \*).
        weights: The weights, with shape (n, K), such as barycentric coordinates.
    """

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


def grid(corners: Tensor, rows: int, columns: int) -> Tensor:
    r"""Returns the latents of a grid between four corners, with shape (rows, columns, \*).

    Arguments:
        corners: The latents at the upper left, upper right, lower left and lower right, with shape (4, \*).
        rows: The number of rows.
        columns: The number of columns.
    """

    corners = as_data("corners", corners)
    rows, columns = check_count("rows", rows, 1), check_count("columns", columns, 1)
    if len(corners) != 4:
        raise ValueError(f"a grid has 4 corners, but got {len(corners)}.")
    v, u = torch.linspace(0, 1, rows)[:, None], torch.linspace(0, 1, columns)[None]
    shares = torch.stack([(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u], dim=-1)
    return weighted(corners, shares.flatten(0, 1)).reshape(rows, columns, *corners.shape[1:])


def _size(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1).reshape(-1, *(1,) * (x.ndim - 1))
