r"""The verbs of score models that have a meaning for chains of symbols, answered under their own names."""

import inspect
from typing import Any

import torch
from torch import Tensor

from solvers import Solution
from solvers.doors.values import as_tensor

from ..models.conditions import RESERVED
from .bound import elbo
from .likelihood import log_likelihood
from .model import ChainModel, checked_data
from .sampling import sample


def inpaint(model: ChainModel, x: Tensor, known: Tensor, **options: Any) -> Solution:
    r"""Draws the unknown symbols of sequences, by :func:`scoresde.chains.sample`.

    Arguments:
        model: The model of a chain with a mask.
        x: Symbols, with shape (B, L), of which those that are not known are ignored.
        known: True or 1 where they are known, with shape (L,) or (B, L).
        options: The options of :func:`scoresde.chains.sample`.
    """

    x, held = checked_data(model, x), as_tensor("known", known)
    fits = held.ndim in (1, 2) and held.shape[-1] == x.shape[1] and len(held) in (1, *x.shape)
    if not fits or not bool(((held == 0) | (held == 1)).all()):
        raise ValueError(
            f"known must be True or False for each symbol, with shape ({x.shape[1]},) or {tuple(x.shape)}, but "
            f"has {held.dtype} of shape {tuple(held.shape)}."
        )
    shown = torch.where(held.to(x.device).bool(), x, model.chain.vocabulary)
    return sample(model, tuple(x.shape), known=shown, **options)


RESERVED.update(*(inspect.signature(verb).parameters for verb in (sample, elbo)))
ChainModel.answers.update(sample=sample, elbo=elbo, log_likelihood=log_likelihood, inpaint=inpaint)
