r"""A log-density with its error budget."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from solvers.rows import Rows, row_numbers

from ..doors.tables import html_table
from .advice import PARTS, cures

NOISES = {
    "probes",
    "dequantisation",
    "acceptance",
}  # standard errors; the others are sizes of biases
SHOWN = 10  # samples in a notebook
ROWS = ("nats", "stderr", "latent", "calls", "derivatives")


@dataclass(frozen=True)
class Likelihood:
    r"""The log-density of data.

    It is the density of :math:`x_0 + (\sigma / \alpha) z` at `t_min`, in units of the data.

    Arguments:
        nats: The log-density, with shape (B,), in float64; higher is more likely. With `on_failure="partial"`,
            it is NaN for samples whose path failed.
        stderr: Its standard error due to the probes: 0 if the divergence is exact, and NaN for a fixed probe.
        latent: The state at the end of the flow, with shape (B, *).
        calls: The network calls of each sample along the path, with shape (B,).
        derivatives: The Jacobian products of each sample, with shape (B,), each of which is one more call.
        dimension: The number of dimensions.
        t_min: The time of the data.
        noise_level: Its noise level :math:`\sigma / \alpha`; NaN for a process without scales, whose density is
            that of the state at `t_min`.
        budget: The possible error of each part in nats, with shape (B,). "probes" (`stderr`), "dequantisation" and
            "acceptance" (of draws within bounds) are standard errors; "quadrature", "path", "end" (of the noise at
            `t_min`) and "prior" (at the end of the flow) are sizes of biases. An unknown part is NaN. Without
            scales there is no "end".
        provenance: A record of how it was made. "guided" says that it is the density of the flow of a guided
            model, which is not that of data under its condition, "of" that it is the density of "latents" and
            not of the data that they encode, and "bound" that it is a lower bound, of a process with velocities.
        levels: The number of levels, if it is a probability of data on levels.
        entries: The number of entries of each sample that exist, with shape (B,), for masked data.
        slope: The score near `t_min`, :math:`\nabla \log p`, with shape (B, *); NaN for a model that has learned
            a flow, whose score is not known.
        status: "ok", or why the path of a sample failed, as in :class:`solvers.Solution`.

    Examples:
        >>> l = ss.log_likelihood(model, torch.zeros(3, 2))
        >>> l.nats.shape, l.stderr.tolist()  # the divergence is exact in two dimensions
        (torch.Size([3]), [0.0, 0.0, 0.0])
    """

    nats: Tensor
    stderr: Tensor
    latent: Tensor
    calls: Tensor
    derivatives: Tensor
    dimension: int
    t_min: float
    noise_level: float
    budget: dict[str, Tensor] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    levels: int | None = None
    slope: Tensor | None = None
    entries: Tensor | None = None
    status: tuple[str, ...] = ()

    @property
    def total(self) -> Tensor:
        r"""The possible error of the log-density: two standard errors plus all biases, with shape (B,)."""

        none = torch.zeros_like(self.nats)
        noise = sum((self.budget[name].square() for name in NOISES & self.budget.keys()), none)
        biases = (self.budget[name] for name in self.budget.keys() - NOISES)
        return 2 * noise.sqrt() + sum(biases, none)

    @property
    def is_bound(self) -> bool:
        r"""Whether its expectation over auxiliary parts of the state, such as velocities, is a lower bound."""

        return self.provenance.get("bound") == "lower"

    @property
    def dominant(self) -> str:
        r"""The name of the largest part of the budget, on average."""

        means = {name: value.nanmean().item() for name, value in self.budget.items()}
        return max(means, key=lambda name: means[name] if means[name] == means[name] else -1.0)

    @property
    def cures(self) -> dict[str, str]:
        r"""The way to make each part of the budget smaller."""

        end = self.budget.get("end")
        share = 0.0 if end is None else end.nanmedian().item() / self.dimension
        return cures(self.provenance, self.dimension, self.t_min, share)

    @property
    def unknown(self) -> tuple[str, ...]:
        r"""The names of the parts that are unknown for a sample with a density."""

        there = ~self.nats.isnan()
        return tuple(
            name
            for name in PARTS
            if name in self.budget and bool(self.budget[name][there].isnan().any())
        )

    @property
    def advice(self) -> str:
        r"""The unknown or the largest part of the budget, and what makes it smaller."""

        if self.unknown:
            name = self.unknown[0]
            return f"the part {name} is not known, so neither is the total: {self.cures[name]}"
        name = self.dominant
        size = self.budget[name].nanmean().item()
        words = f"{name} is the largest part of the error, {size:.2g} nats: {self.cures[name]}"
        if name != "probes" or self.provenance.get("target_stderr") is not None:
            return words
        calls = int(self.derivatives.double().mean())
        return f"{words}; twice the probes take {calls} calls more, for {size / 2**0.5:.2g} nats"

    @staticmethod
    def stack(parts: list["Likelihood"]) -> "Likelihood":
        r"""Returns the log-densities of all samples, from those of consecutive batches."""

        rows: dict[str, Any] = {
            name: torch.cat([getattr(part, name) for part in parts]) for name in ROWS
        }
        budget = {
            name: torch.cat([part.budget[name] for part in parts]) for name in parts[0].budget
        }
        slopes = [part.slope for part in parts if part.slope is not None]
        rows["slope"] = torch.cat(slopes) if slopes else None
        rows["status"] = tuple(status for part in parts for status in part.status)
        made = parts[0].provenance
        if made.get("seeds"):
            made = {**made, "seeds": [s for part in parts for s in part.provenance["seeds"]]}
        return replace(parts[0], budget=budget, provenance=made, **rows)

    def rows(self, index: Rows) -> "Likelihood":
        r"""Returns the log-densities of the given samples.

        Arguments:
            index: The indices of the samples, where negative ones count from the end; or a single index, a
                slice, or a Boolean for each sample.

        Raises:
            TypeError, ValueError, IndexError: If these are not indices of samples, or there are none.
        """

        chosen = row_numbers(index, len(self))
        values: dict[str, Any] = {
            name: value[chosen.to(value.device)]
            for name in ROWS
            for value in [getattr(self, name)]
        }
        for name in ("slope", "entries"):
            value = getattr(self, name)
            values[name] = None if value is None else value[chosen.to(value.device)]
        values["status"] = tuple(self.status[i] for i in chosen.tolist()) if self.status else ()
        made = dict(self.provenance)
        if made.get("seeds"):
            made["seeds"] = [made["seeds"][i] for i in chosen.tolist()]
        budget = {name: part[chosen.to(part.device)] for name, part in self.budget.items()}
        return replace(self, budget=budget, provenance=made, **values)

    def __len__(self) -> int:
        return len(self.nats)

    def __getitem__(self, index: Rows) -> "Likelihood":
        return self.rows(index)

    def _repr_html_(self) -> str:
        rows = [
            {"sample": i, "nats": nats, "within": within, "calls": calls}
            for i, (nats, within, calls) in enumerate(
                zip(self.nats.tolist(), self.total.tolist(), self.calls.tolist(), strict=True)
            )
        ]
        left = len(rows) - SHOWN
        notes = [
            *([f"and {left} more samples"] if left > 0 else []),
            *([self.advice] if self.budget else []),
        ]
        return html_table(rows[:SHOWN], repr(self).split(";")[0].rstrip(")") + ")", notes)

    def __repr__(self) -> str:
        of = " of the guided flow" if self.provenance.get("guided") else ""
        of += f", of {self.provenance['of']}" if "of" in self.provenance else ""
        of += ", a lower bound on average" if self.is_bound else ""
        if not self.budget:
            return f"Likelihood({len(self.nats)} samples, mean {self.nats.mean():.4g} nats{of})"
        return (
            f"Likelihood({len(self.nats)} samples, mean {self.nats.mean():.4g} nats{of}, each within "
            f"{self.total.nanmean():.2g}; {self.advice})"
        )
