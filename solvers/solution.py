r"""The result of an integration."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .doors.signatures import checked
from .doors.values import as_tensor, shown


@dataclass(frozen=True)
class Solution:
    r"""The result of an integration.

    Arguments:
        x: The final state, with shape (B, *). A row that failed holds its last finite state.
        times: The grid, in float64, with shape (n + 1,), or (n + 1, B) for one per sample.
        reached: The time of the final state of each sample, with shape (B,).
        calls: The number of network calls of each sample (NFE), with shape (B,).
        accepted: The number of accepted steps of each sample, with shape (B,).
        rejected: The number of rejected steps of each sample, with shape (B,).
        status: "ok", "stopped" by the callback, "nonfinite", "min_step", "max_steps", "max_calls" or
            "diverged" for each sample.
        path: The states at the grid times, with shape (n + 1, B, *), if asked for.
        provenance: A record of how it was made: solver, grid, seed, versions.
        companion: The pair of states from which a reversible method goes back, in its own coordinates, with
            shape (B, 2, *).
        solver: The :class:`solvers.Solver` that made it, which is needed for the way back.

    Examples:
        >>> decay, times = solvers.ODE(lambda t, x: -x), torch.tensor([0.0, 0.5, 1.0])
        >>> s = solvers.solve(decay, torch.ones(3, 1), times, "euler")
        >>> s.x.flatten().tolist(), s.calls.tolist(), s.ok
        ([0.25, 0.25, 0.25], [2, 2, 2], True)
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
    solver: object = None

    @property
    def ok(self) -> bool:
        r"""Whether every sample reached the end."""

        return all(status == "ok" for status in self.status)

    @staticmethod
    @checked
    def stack(parts: list["Solution"]) -> "Solution":
        r"""Returns the solution of all samples, from the solutions of consecutive batches."""

        if not parts:
            raise ValueError("parts must hold at least one solution, but is empty.")
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

    def rows(self, index: "int | Tensor | Sequence[int] | Sequence[bool] | slice") -> "Solution":
        r"""Returns the solution of the given samples.

        Arguments:
            index: The indices of the samples, where negative ones count from the end; or a single index, a
                slice, or a Boolean for each sample. A single index gives a solution of one sample.

        Raises:
            TypeError, ValueError, IndexError: If these are not indices of samples, or there are none.
        """

        index = _numbers(index, len(self.x))
        here = index.to(self.x.device)
        made = dict(self.provenance)
        if made.get("seeds"):
            made["seeds"] = [made["seeds"][i] for i in index.tolist()]
        elif "first_index" in made:  # the indices that they were drawn by
            known = made.get("rows") or range(
                made["first_index"], made["first_index"] + len(self.x)
            )
            made["rows"] = [known[i] for i in index.tolist()]
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
            provenance=made,
        )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: "int | Tensor | Sequence[int] | slice") -> "Solution":
        return self.rows(index)

    def __repr__(self) -> str:
        solver = self.provenance.get("solver", "solver")
        calls = _span(self.calls)
        stopped = sum(status == "stopped" for status in self.status)
        failed = sum(status != "ok" for status in self.status) - stopped
        ends = (
            f"{f', {stopped} stopped' if stopped else ''}{f', {failed} failed' if failed else ''}"
        )
        return f"Solution({tuple(self.x.shape)} by {solver}, {self._steps}, {calls} calls per sample{ends})"

    @property
    def _steps(self) -> str:
        r"""The number of steps in words: those of the grid, or those that a solver chose."""

        made, intervals = self.provenance, len(self.times) - 1
        chosen = made.get("rtol") is not None or made.get("atol") is not None
        if not chosen:
            return f"{intervals} intervals"
        taken = int((self.accepted + self.rejected).max())
        if not taken:  # of files, which do not say
            return "steps of its own"
        refused = _span(self.rejected)
        return f"{_span(self.accepted)} steps{'' if refused == '0' else f', {refused} rejected'}"


def _span(counts: Tensor) -> str:
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low}-{high}"


def _numbers(index: object, count: int) -> Tensor:
    r"""Returns the indices that select some of `count` samples, with shape (n,)."""

    if isinstance(index, slice):
        found = torch.tensor(range(count)[index], dtype=torch.int64)
    else:
        try:
            found = as_tensor("rows", index).cpu()
        except (TypeError, ValueError):
            raise TypeError(f"rows must be indices of samples, but are {shown(index)}.") from None
    if found.dtype == torch.bool and found.ndim == 1:
        if len(found) != count:
            raise ValueError(
                f"rows must be true or false for each of {count} samples, but has {len(found)}."
            )
        found = found.nonzero()[:, 0]
    if found.numel() == 0:
        raise ValueError("rows must select at least one sample, but is empty.")
    if found.dtype == torch.bool or found.is_floating_point() or found.is_complex():
        raise TypeError(f"rows must be whole numbers, but are {index!r}.")
    found = found.long().reshape(-1) if found.ndim < 2 else found
    if found.ndim > 1:
        raise ValueError(f"rows must have shape (n,), but has {tuple(found.shape)}.")
    beyond = found[(found < -count) | (found >= count)].tolist()
    if beyond:
        raise IndexError(f"rows must be indices of {count} samples, but one is {beyond[0]}.")
    return found % count
