r"""Latents computed from others, which are decoded in the same way."""

from dataclasses import replace

import torch
from torch import Tensor

from solvers import Solution

SHARED = ("process", "model", "conditions", "solver", "clock", "rtol", "atol", "eta")


def derived(x: Tensor, *origins: Solution) -> Solution:
    r"""Returns latents with the grid, solver and provenance of the latents that they were computed from.

    They have no companion, and the network calls of their origins.

    Arguments:
        x: The latents, with shape (N, *).
        origins: The solutions that they were computed from, made by one solver on one grid.

    Raises:
        ValueError: If an origin failed, or the origins differ in what decoding needs.
    """

    first = origins[0]
    for other in origins:
        if not other.ok:
            bad = [i for i, status in enumerate(other.status) if status != "ok"]
            raise ValueError(
                f"the latents of samples {bad[:8]} did not reach t_max; leave them out: pass z.rows(...)."
            )
        for name in SHARED:
            mine, theirs = first.provenance.get(name), other.provenance.get(name)
            if mine != theirs:
                raise ValueError(
                    f"latents that are combined must be encoded alike, but their {name} is {mine} and "
                    f"{theirs}; pass the tensors z.x to combine them anyway."
                )
        if other.solver != first.solver:
            raise ValueError(
                "latents that are combined must be encoded alike, but two different solvers are named "
                f"{first.solver}; pass the tensors z.x to combine them anyway."
            )
        if not torch.equal(_grid(other), _grid(first)):
            raise ValueError(
                "latents that are combined must be encoded on one grid of times; pass the tensors z.x to "
                "combine them anyway."
            )
    count, times = len(x), _grid(first)
    none = torch.zeros(count, dtype=first.accepted.dtype)
    return replace(
        first,
        x=x,
        times=times,
        reached=times[-1].expand(count),
        calls=torch.full((count,), sum(int(z.calls.max()) for z in origins)),
        accepted=none,
        rejected=none,
        status=("ok",) * count,
        path=None,
        companion=None,
        provenance={**first.provenance, "seeds": None, "made of": sum(len(z.x) for z in origins)},
    )


def _grid(z: Solution) -> Tensor:
    r"""The times that all samples share, after checking that they do."""

    if z.times.ndim == 1:
        return z.times
    if not bool((z.times == z.times[:, :1]).all()):
        raise ValueError("each of these latents has its own grid; pass the tensors z.x.")
    return z.times[:, 0]
