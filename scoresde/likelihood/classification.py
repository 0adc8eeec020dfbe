r"""Classification by the likelihoods of a conditional model."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from solvers import Solver
from solvers.doors.values import Array, as_tensor

from ..doors.data import as_data, as_floats
from ..models.conditions import Condition, verb
from ..models.score_model import ScoreModel
from ..models.transforms import Data
from ..reverse.reverse import Clock
from ..runs.options import SEED, Failures, Gradients, Levels, Seeds, Times
from ..runs.takes import Takes
from .batches import DENSITY, OF_DENSITY, with_seed
from .bounds import Bound, elbo
from .result import Likelihood
from .verb import log_likelihood

CLASSIFY = Takes("a classification", *DENSITY.names, *OF_DENSITY, "draws")
OTHERS = {"flow": ("draws",), "elbo": ("divergence", "probes", "target_stderr")}  # of no effect


@verb(data=("x",))
def classify(  # noqa: D417
    model: ScoreModel,
    x: Data,
    classes: Sequence[int],
    *,
    condition: str = "label",
    prior: Array | None = None,
    by: Literal["flow", "elbo"] = "flow",
    divergence: str | None = None,
    probes: int | None = None,
    nodes: int | None = None,
    target_stderr: float | None = None,
    draws: int | None = None,
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
    **conditions: Condition,
) -> Tensor:
    r"""Returns the log-probabilities of classes, with shape (B, K), by Bayes' rule.

    .. math:: \log p(c \mid x) = \log p(x \mid c) + \log p(c) - \log \sum_k p(x \mid k) \, p(k)

    All classes share probes and noise, so that common errors cancel.

    Arguments:
        model: A score model that takes the condition.
        x: Data, with shape (B, *).
        classes: The classes.
        condition: The name of the condition.
        prior: The prior probabilities of the classes, with shape (K,). By default, they are equal.
        by: "flow", the density of the flow, or "elbo", its bound, which needs no derivatives.
        divergence: As in :func:`scoresde.log_likelihood`, as are `probes` and `target_stderr`; for "flow".
        probes: The number of probes per node.
        nodes: As in that function, or in :func:`scoresde.elbo`, depending on `by`.
        target_stderr: The standard error in nats at which a sample gets no more probes.
        draws: As in :func:`scoresde.elbo`; for "elbo".
        conditions: The other conditions of the model. The options are those of the same function.

    Raises:
        ValueError: If there are fewer than two classes, the model does not take the condition, the prior is
            invalid, or an option has no effect.

    References:
        | Your Diffusion Model is Secretly a Zero-Shot Classifier (Li et al., 2023), equation (5)
        | https://arxiv.org/abs/2303.16203

    Examples:
        >>> pair = ss.MixtureOracle(torch.tensor([[-1.0], [1.0]]), 0.5)
        >>> [round(p, 4) for p in ss.classify(pair, torch.zeros(1, 1), [0, 1])[0].exp().tolist()]
        [0.5, 0.5]
    """

    options = CLASSIFY.said({**locals(), "condition": conditions})
    x, labels = as_data("x", x), as_tensor("classes", classes)
    if labels.ndim != 1 or len(labels) < 2 or labels.is_floating_point():
        raise ValueError(f"classes must be at least two whole numbers, but are {classes}.")
    if condition not in model.conditions:
        known = ", ".join(model.conditions) or "none"
        raise ValueError(
            f"the model takes no condition {condition!r}; its conditions are: {known}."
        )
    if by not in ("flow", "elbo"):
        raise ValueError(f"by must be 'flow' or 'elbo', but is {by!r}.")
    prior = torch.ones(len(labels)) if prior is None else as_floats("prior", prior)
    if prior.shape != (len(labels),) or not bool((prior > 0).all()):
        raise ValueError(f"prior must be {len(labels)} positive numbers, one per class.")
    for name in OTHERS[by]:
        if name in options:
            raise ValueError(f"{name}= has no effect on by={by!r}; leave it out.")
    measure: Callable[..., Likelihood | Bound] = log_likelihood if by == "flow" else elbo
    options = options if options.get("seeds") is not None else with_seed(options)
    found = []
    for value in labels.tolist():
        label = torch.full((len(x),), value, device=x.device)
        bound = model.given(**{condition: label})
        found.append(measure(bound, x, **options).nats)
    joint = torch.stack(found, 1) + prior.to(found[0]).log()
    return joint - joint.logsumexp(1, keepdim=True)
