r"""The public function: densities of any number of samples."""

import math
from dataclasses import replace

import torch

from solvers import Solver

from ..doors.data import as_state
from ..doors.warning import warn
from ..models.checks import check_count, check_number
from ..models.conditions import Condition, verb
from ..models.score_model import ScoreModel
from ..models.transforms import Data
from ..reverse.reverse import Clock
from ..runs.options import SEED, Failures, Gradients, Levels, RunOptions, Seeds, Times
from ..runs.takes import suited
from .advice import EXACT_UP_TO, LARGE_END
from .batches import DENSITY, ask
from .densities import Divergence, check_divergence, check_flow, densities
from .flow import EXACT_NODES, NODES, PASSES
from .result import Likelihood
from .traces import Kind

SKETCHED = 6  # minimum probes of Hutch++: two for each of its thirds
EXACT_FIRST = (
    2  # dimensions in which three rounds of probes take more products than an exact divergence
)
EXACT_IN_SILENCE = 1024  # dimensions, beyond which the cost is reported
EXACT_AT_MOST = 4096  # dimensions, of which each takes a product at every node
DEFAULTS: RunOptions = {"solver": "exponential", "rtol": 1e-3, "atol": 1e-3}
KINDS = ("auto", "exact", "hutchinson", "fixed", "hutch++")


@verb(data=("x",), gives=lambda found, model: in_form(found, model))
def log_likelihood(  # noqa: D417
    model: ScoreModel,
    x: Data,
    *,
    divergence: str = "auto",
    probes: int | None = None,
    nodes: int | None = None,
    target_stderr: float | None = None,
    solver: str | Solver | None = None,
    steps: int | None = None,
    grid: str | None = None,
    times: Times | None = None,
    levels: Levels | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_step: float | None = None,
    first_step: float | None = None,
    clock: Clock | None = None,
    seed: int | None = SEED,
    seeds: Seeds | None = None,
    first_index: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    grad: Gradients = "none",
    batch_size: int | None = None,
    max_calls: int | None = None,
    on_failure: Failures = "raise",
    progress: bool = False,
    t_min: float | None = None,
    sigma_min: float | None = None,
    **condition: Condition,
) -> Likelihood:
    r"""Returns the log-density of data under the probability flow, with its error budget.

    Arguments:
        model: The score model.
        x: Data, with shape (B, *).
        divergence: "exact" takes one Jacobian product per dimension and node; "hutchinson" takes one per probe
            and node, with fresh probes at each node; "fixed" uses one probe for all nodes; "hutch++" uses a
            third of its probes to find the largest directions. "auto" is exact up to 256 dimensions, or up to 2
            dimensions if `target_stderr` is passed, and random if `probes` is passed.
        probes: The number of probes per node. By default, 1, or 6 for "hutch++".
        nodes: The number of nodes of the sum. By default, 46, or 64 for exact divergences.
        target_stderr: The standard error in nats at which a sample gets no more probes; it gets at most 64 times
            the initial number. "auto" uses the exact divergence for samples for which that needs fewer products.
            A missed target gives a warning.
        condition: The conditions of the model. The options are those of :class:`scoresde.Settings` that a
            density depends on. The default solver is "exponential" with tolerances of 1e-3, or "exponential_3" if
            steps are passed (without scales, "dopri5" with 1e-5, or "rk4"); the default dtype is float64.

    Raises:
        ValueError, TypeError: If an option or condition is invalid.
        SolverError: If the run fails.

    Examples:
        >>> l = ss.log_likelihood(model, torch.zeros(1, 2))
        >>> round(float(l.nats), 2)  # - log(2 pi 0.25)
        -0.45
    """

    options = DENSITY.said(locals())
    x = as_state("x", x)
    size = math.prod(x.shape[1:])
    kind = _kind(divergence, probes, target_stderr, size)
    nodes = check_count("nodes", nodes, at_least=8)
    asked = ask(model, x, options, **suited(model, DEFAULTS, options))
    settings = asked.settings
    check_divergence(asked.model)
    if settings.adaptive and settings.own_times is not None:
        grid = "times" if options.get("levels") is None else "levels"
        raise ValueError(f"{grid}= has no effect with tolerances; pass one of the two.")
    if not settings.adaptive and settings.steps is None and settings.own_times is None:
        asked = asked._replace(settings=replace(settings, steps=EXACT_NODES))
    reverse = check_flow(asked, kind)
    count = nodes or (EXACT_NODES if kind == "exact" else NODES)

    rule = Divergence(kind, probes or (SKETCHED if kind == "hutch++" else 1), count, reverse)
    exact_too = divergence == "auto" and size <= EXACT_AT_MOST
    found = densities(asked, rule, target_stderr, exact_too)
    _warn(found, target_stderr)
    return found


def in_form(found: Likelihood, model: ScoreModel) -> Likelihood:
    r"""The densities with latents and slopes in the user's form."""

    transform = model.transform
    assert transform is not None
    slope = None if found.slope is None else transform.gradient(found.slope)
    made = found.provenance if transform.lossless else {**found.provenance, "of": "latents"}
    latent = transform.unpack(found.latent)
    return replace(found, latent=latent, slope=slope, provenance=made)


def _warn(found: Likelihood, target: float | None) -> None:
    _warn_of_noise(found)
    _warn_of_target(found, target)
    _warn_of_failures(found)


def _warn_of_noise(found: Likelihood) -> None:
    end = found.budget.get("end")
    share = 0.0 if end is None else end.nanmedian().item() / found.dimension
    if share > LARGE_END:
        warn(
            f"without the noise at t_min, of level {found.noise_level:.3g}, this density would change by "
            f"about {share:.2g} nats per dimension: data on levels needs ss.dequantize or "
            "ss.discrete_log_likelihood, and a score that explodes near t_min needs a larger t_min=."
        )


def _warn_of_target(found: Likelihood, target: float | None) -> None:
    missed = found.stderr[found.stderr > (math.inf if target is None else target)]
    if len(missed):
        warn(
            f"target_stderr={target:.3g} is missed for {len(missed)} of {len(found.nats)} samples, by up to "
            f"{missed.max():.3g} nats, after {PASSES} times the first probes, the most there are: pass more "
            "probes=, or divergence='exact'."
        )


def _warn_of_failures(found: Likelihood) -> None:
    failed = found.nats.isnan().nonzero()[:, 0].tolist()
    if failed:
        causes = ", ".join(sorted(set(found.status) - {"ok"})) or "its sum is not finite"
        warn(
            f"the path of samples {failed[:8]}{' and others' if len(failed) > 8 else ''} failed ({causes}), so "
            "their density is NaN; on_failure='raise' tells why."
        )


def _kind(divergence: str, probes: int | None, target: float | None, size: int) -> Kind:
    if divergence not in KINDS:
        raise ValueError(f"divergence must be one of {', '.join(KINDS)}, not {divergence!r}.")
    probes = check_count("probes", probes, at_least=SKETCHED if divergence == "hutch++" else 1)
    target = check_number("target_stderr", target)
    if target is not None and not target > 0:
        raise ValueError(f"target_stderr must be positive, but is {target}.")
    for name, value in (("probes", probes), ("target_stderr", target)):
        if divergence == "exact" and value is not None:
            raise ValueError(f"{name}= has no effect on an exact divergence; pass one of the two.")
    if divergence == "fixed" and target is not None:
        raise ValueError(
            "a fixed probe has no standard error; leave out target_stderr=, or pass "
            "divergence='hutchinson'."
        )
    if divergence == "exact" and EXACT_IN_SILENCE < size <= EXACT_AT_MOST:
        warn(
            f"an exact divergence in {size} dimensions takes {size * EXACT_NODES} Jacobian products per "
            "sample; divergence='hutchinson' with target_stderr= takes some hundreds."
        )
    if divergence == "exact" and size > EXACT_AT_MOST:
        raise ValueError(
            f"an exact divergence in {size} dimensions takes {size * EXACT_NODES} Jacobian products "
            "per sample; pass divergence='hutchinson' with probes= or target_stderr=."
        )
    if divergence != "auto":
        return divergence  # type: ignore[return-value]
    exact = probes is None and (size <= EXACT_UP_TO if target is None else size <= EXACT_FIRST)
    return "exact" if exact else "hutchinson"
