r"""Draws of symbols from their probabilities."""

import torch
from torch import Tensor


def draw(probabilities: Tensor, u: Tensor) -> Tensor:
    r"""Returns the states whose cumulated probability first reaches u, with shape (B, L).

    Arguments:
        probabilities: Probabilities of states up to a factor, with shape (B, L, S).
        u: Uniform numbers, with shape (B, L).
    """

    total = probabilities.double().cumsum(-1)
    aim = u.to(total) * total[..., -1]
    return torch.searchsorted(total.contiguous(), aim[..., None].contiguous())[..., 0]
