r"""The outcome of an integration."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .doors import as_tensor


@dataclass(frozen=True)
class Solution:
    r"""The outcome of an integration.

    Arguments:
        x: The final state, with shape (B, *). A row that failed holds its last finite state.
        times: The grid, in float64, with shape (n + 1,), or (n + 1, B) for one per sample.
        reached: The time of the final state of each sample, with shape (B,).
        calls: The number of network calls of each sample, with shape (B,).
        accepted: The number of accepted steps of each sample, with shape (B,).
        rejected: The number of rejected steps of each sample, with shape (B,).
        status: "ok", "stopped" by the callback, "nonfinite", "min_step", "max_steps", "max_calls" or
            "diverged" for each sample.
        path: The states at the times of the grid, with shape (n + 1, B, *), if asked for.
        provenance: What made it: solver, grid, seed, versions.
        companion: The pair of states from which a reversible method leads back, in its own
            coordinates, with shape (B, 2, *).
    """

    x: Tensor
    times: Tensor
    reached: Tensor
    calls: Tensor
    accepted: Tensor
    rejected: Tensor
    status: tuple[str, ...]
    path: Tensor | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    companion: Tensor | None = None

    @property
    def ok(self) -> bool:
        r"""Whether every sample reached the end."""

        return all(status == "ok" for status in self.status)

    @staticmethod
    def stack(parts: list["Solution"]) -> "Solution":
        r"""Returns the solution of all samples from those of consecutive batches."""

        first = parts[0]
        if len(parts) == 1:
            return first
        paths = [part.path for part in parts if part.path is not None]
        pairs = [part.companion for part in parts if part.companion is not None]
        return replace(
            first,
            x=torch.cat([part.x for part in parts]),
            reached=torch.cat([part.reached for part in parts]),
            calls=torch.cat([part.calls for part in parts]),
            accepted=torch.cat([part.accepted for part in parts]),
            rejected=torch.cat([part.rejected for part in parts]),
            times=torch.cat([p.times for p in parts], 1) if first.times.ndim > 1 else first.times,
            status=tuple(status for part in parts for status in part.status),
            path=torch.cat(paths, dim=1) if paths else None,
            companion=torch.cat(pairs) if pairs else None,
        )

    def rows(self, index: Tensor | Sequence[int] | slice) -> "Solution":
        r"""Returns the solution of some samples."""

        every = torch.arange(len(self.x))
        index = every[index] if isinstance(index, slice) else _chosen(every, index)
        here = index.to(self.x.device)
        seeds = self.provenance.get("seeds")
        made = {**self.provenance, "seeds": [seeds[i] for i in index.tolist()]} if seeds else None
        return replace(
            self,
            x=self.x[here],
            times=self.times if self.times.ndim == 1 else self.times[:, index],
            reached=self.reached[index],
            calls=self.calls[index],
            accepted=self.accepted[index],
            rejected=self.rejected[index],
            status=tuple(self.status[i] for i in index.tolist()),
            path=None if self.path is None else self.path[:, here],
            companion=None if self.companion is None else self.companion[here],
            provenance=made or self.provenance,
        )

    def __repr__(self) -> str:
        solver = self.provenance.get("solver", "solver")
        calls = "-".join(dict.fromkeys(str(int(c)) for c in (self.calls.min(), self.calls.max())))
        stopped = sum(status == "stopped" for status in self.status)
        failed = sum(status != "ok" for status in self.status) - stopped
        ends = (
            f"{f', {stopped} stopped' if stopped else ''}{f', {failed} failed' if failed else ''}"
        )
        return (
            f"Solution({tuple(self.x.shape)} by {solver}, {len(self.times) - 1} intervals, "
            f"{calls} calls per sample{ends})"
        )


def _chosen(every: Tensor, index: object) -> Tensor:
    r"""The rows that are asked for, by their numbers, or by whether each is."""

    count, chosen = len(every), as_tensor("index", index).cpu()
    chosen = chosen.reshape(1) if chosen.ndim == 0 else chosen
    if chosen.dtype == torch.bool and chosen.shape == every.shape:
        return every[chosen]
    whole = chosen.ndim == 1 and not chosen.is_floating_point() and chosen.dtype != torch.bool
    if not whole or not len(chosen) or not bool(((chosen >= -count) & (chosen < count)).all()):
        raise ValueError(
            f"index must be rows in [0, {count - 1}], or {count} booleans, but is {chosen.tolist()}."
        )
    return every[chosen.long()]
