r"""The probabilities of symbols at the end of a run."""

import torch
from torch import Tensor

from solvers import Solution
from solvers.doors.signatures import checked

from ..models.estimate import estimate
from ..models.score_model import ScoreModel
from ..models.self_conditioned import first_calls
from .form import Symbols
from .score import logits_seen


def form_of(model: ScoreModel) -> Symbols:
    r"""Returns the transform of a model, refused if its data are no symbols."""

    form = model.transform
    if not isinstance(form, Symbols):
        raise TypeError(
            f"model must have symbols as data, but its transform is {form!r}; set model.transform = "
            "ss.symbols.Bits(count), or use an ss.symbols.EmbeddedScore."
        )
    return form


def log_probabilities(model: ScoreModel, x: Tensor, t: Tensor) -> Tensor:
    r"""Returns the log-probabilities of symbols given noisy states, with shape (B, \*, K), in float64.

    Arguments:
        model: The model, with its conditions bound.
        x: States at time t, with shape (B, \*, n).
        t: The time, with shape () or (B,).
    """

    form = form_of(model)
    if model.guided:
        raise ValueError(
            "model must not be guided, which leaves no probabilities of symbols; pass the model without guidance."
        )
    with logits_seen() as seen, first_calls():
        denoised = estimate(model, x, t)
    return form.log_probabilities(denoised, seen[-1] if seen else None)


@checked
@torch.no_grad()
def probabilities(model: ScoreModel, solution: Solution) -> Tensor:
    r"""Returns the probability of each symbol given the last state of a run, with shape (B, \*, K), in float64.

    The states of the path are needed, since samples are rounded. It takes one more call of the network.

    Arguments:
        model: The model, with the conditions of the run bound.
        solution: The samples, with `path=True`.

    Raises:
        TypeError, ValueError: If the data of the model are no symbols, or the solution has no path.

    Examples:
        >>> bits = ss.symbols.Bits(2, shape=(1,))
        >>> pair = ss.MixtureOracle(bits.inside("x", [[0], [1]]), 0.01)
        >>> pair.transform = bits
        >>> s = ss.sample(pair, 3, steps=5, path=True)
        >>> ss.symbols.probabilities(pair, s).argmax(-1).equal(s.x)
        True
    """

    form_of(model)
    if solution.path is None:
        raise ValueError("solution must have the states of its path; pass path=True to ss.sample.")
    return log_probabilities(model, solution.path[-1], solution.times[-1]).exp()
