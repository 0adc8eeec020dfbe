r"""Advice that makes the parts of an error budget smaller, among the options left."""

from collections.abc import Mapping
from typing import Any

EXACT_UP_TO = 256  # dimensions up to which "auto" is exact
LARGE_END = 0.1  # nats per dimension
PARTS = ("probes", "quadrature", "path", "end", "prior", "dequantisation", "acceptance")


def cures(made: Mapping[str, Any], dimension: int, t_min: float, share: float) -> dict[str, str]:
    r"""Returns, for each part of an error budget, what makes it smaller.

    Arguments:
        made: How the density was made: its solver, probes and target, and the domain of its process.
        dimension: The number of dimensions.
        t_min: The time of the data.
        share: The part "end", in nats per dimension.
    """

    fixed = made.get("rtol") is None
    steps = "take twice the steps=" if made.get("times") is None else "pass a grid twice as dense"
    return {
        "probes": _of_probes(made, dimension),
        "quadrature": "double nodes=" + (f", or {steps}" if fixed else ""),
        "path": steps if fixed else "tighten rtol= and atol= by 10",
        "end": _of_end(made, t_min, share),
        "prior": "a process with more noise at t_max",
        "dequantisation": "double draws=",
        "acceptance": "draw twice the count",
    }


def _of_probes(made: Mapping[str, object], dimension: int) -> str:
    if made.get("divergence") == "fixed":
        return "a fixed probe has no standard error; leave divergence='fixed'"
    exact = ", or pass divergence='exact'" if dimension <= EXACT_UP_TO else ""
    if made.get("target_stderr") is not None:
        return f"lower target_stderr=, with more probes= if it was missed{exact}"
    return f"double probes={exact or ', or pass target_stderr='}"


def _of_end(made: Mapping[str, Any], t_min: float, share: float) -> str:
    least, usual = made.get("domain", (0.0, t_min))
    if t_min > usual * (1 + 1e-9):
        return "lower t_min="
    if share > LARGE_END:
        return "data on levels needs ss.discrete_log_likelihood, and an exploding score a larger t_min="
    if t_min > least * (1 + 1e-9):
        return f"lower t_min=, to {least:.3g} at the least"
    return (
        "t_min= is the least of the process's domain, and this is to first order; a run at twice the t_min= tells "
        "what it really does"
    )
