r"""The densities of any number of samples, batch by batch."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from solvers import SolverError

from ..models.derivative import check_derivative
from ..models.score_model import ScoreModel
from ..models.steady import check_steady
from ..runs.health import warn_of_health
from .batches import Asked, Batch, rows_at_once
from .flow import Flow
from .general import GeneralFlow
from .integral import PILOT
from .result import Likelihood
from .traces import Kind, Tracer

REVERSE_UP_TO = 16  # dimensions in which reverse mode gives the whole Jacobian faster


@dataclass(frozen=True)
class Divergence:
    r"""Creates the way to compute the integral of the divergence along a path.

    Arguments:
        kind: The kind of traces.
        probes: The number of probes per node.
        nodes: The number of nodes.
        reverse: Whether exact traces use reverse mode.
    """

    kind: Kind
    probes: int
    nodes: int
    reverse: bool = False

    def calls(self, model: ScoreModel, dimension: int) -> int:
        r"""Returns the network calls per sample: one for each Jacobian product of each network."""

        products = dimension if self.kind == "exact" else self.probes
        pilot = 2 * PILOT if self.kind in ("hutchinson", "hutch++") else 0
        return model.cost * (self.nodes * products + pilot)


def check_divergence(model: ScoreModel) -> None:
    r"""Refuses guidance whose divergence is not known."""

    if not model.differentiable:
        raise ValueError(
            "the divergence of guidance by gradients (of classifiers or losses) is not known, so neither "
            "is its likelihood; pass the model without it."
        )


def check_flow(asked: Asked, kind: Kind = "hutchinson") -> bool:
    r"""Returns whether exact traces are to be taken in reverse mode, after checks of a model's derivatives.

    A network may be right in forward mode alone, if a part of it runs under `torch.no_grad()`, as everything is
    in the inference mode of the caller.
    """

    model, x, rows = asked.model, asked.x, rows_at_once(asked.settings, asked.x)
    check_steady(model, x, "its density", rows)
    warn_of_health(model, x)
    reverse = False
    few = asked.dimension <= REVERSE_UP_TO and not torch.is_inference_mode_enabled()
    if few and kind == "exact" and asked.settings.grad == "none":
        with suppress(ValueError):
            check_derivative(model, x, "reverse", "a divergence", rows)
            reverse = True
    if not reverse:
        check_derivative(model, x, "forward", "a divergence", rows)
    return reverse


def densities(
    asked: Asked, divergence: Divergence, target: float | None = None, fallback: bool = False
) -> Likelihood:
    r"""Returns the densities of all samples, in the units of the user's data.

    Arguments:
        asked: The model, data and settings.
        divergence: The way to compute the integral of the divergence.
        target: The standard error at which samples get no more probes, if there is one.
        fallback: Whether rows whose target costs more than an exact divergence get the exact one.
    """

    def density(batch: Batch) -> Likelihood:
        known = divergence.kind, divergence.probes, batch.seed, batch.number, divergence.reverse
        tracer = Tracer(asked.companion, *known)
        data = batch.model, batch.x, asked.start, asked.ends, batch.settings
        if not batch.model.process.has_scales:
            return GeneralFlow(*data, tracer, divergence.nodes, fallback).density(target)
        return Flow(*data, tracer, divergence.nodes, fallback, batch.path).density(target)

    with asked.settings.gradients():
        found = Likelihood.stack([_fitting(density, batch) for batch in asked.batches()])
    found = replace(found, nats=found.nats - asked.units, entries=asked.entries)
    if asked.gain is not None:
        found = replace(found, nats=found.nats + asked.gain)
    if asked.data is None:
        return found
    made = {**found.provenance, "bound": "lower"}
    own = (
        None if found.slope is None else found.slope[:, : asked.data.shape[1]]
    )  # of the data's parts
    return replace(found, dimension=asked.data[0].numel(), provenance=made, slope=own)


def _fitting(density: Callable[[Batch], Likelihood], batch: Batch) -> Likelihood:
    r"""The densities of a batch, in as many parts as the memory of the device requires."""

    try:
        return density(batch)
    except SolverError as error:  # name the sample among all samples
        samples = tuple(row + batch.first for row in error.failure.samples)
        raise SolverError(replace(error.failure, samples=samples), error.solution) from None
    except torch.OutOfMemoryError:
        if len(batch.x) == 1:
            raise
    return Likelihood.stack([_fitting(density, half) for half in batch.halves()])
