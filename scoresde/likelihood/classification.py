r"""Classification by the likelihoods of a conditional model."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from solvers.doors.values import as_tensor

from ..doors.data import as_data, as_floats
from ..models.conditions import verb
from ..models.score_model import ScoreModel
from .batches import with_seed
from .bounds import elbo
from .verb import log_likelihood


@verb
def classify(
    model: ScoreModel,
    x: Tensor,
    classes: Sequence[int],
    *,
    condition: str = "label",
    prior: Tensor | None = None,
    by: Literal["flow", "elbo"] = "flow",
    **options: Any,
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
        options: The options of :func:`scoresde.log_likelihood` or :func:`scoresde.elbo`.

    Raises:
        ValueError: If there are fewer than two classes, the model does not take the condition, or the prior is
            invalid.

    References:
        | Your Diffusion Model is Secretly a Zero-Shot Classifier (Li et al., 2023), equation (5)
        | https://arxiv.org/abs/2303.16203

    Examples:
        >>> pair = ss.MixtureOracle(torch.tensor([[-1.0], [1.0]]), 0.5)
        >>> [round(p, 4) for p in ss.classify(pair, torch.zeros(1, 1), [0, 1])[0].exp().tolist()]
        [0.5, 0.5]
    """

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
    measure: Callable[..., Any] = log_likelihood if by == "flow" else elbo
    options = options if options.get("seeds") is not None else with_seed(options)
    found = []
    for value in labels.tolist():
        label = torch.full((len(x),), value, device=x.device)
        bound = model.given(**{condition: label})
        found.append(measure(bound, x, **options).nats)
    joint = torch.stack(found, 1) + prior.to(found[0]).log()
    return joint - joint.logsumexp(1, keepdim=True)
