r"""Steps of the reverse chain: the law of each symbol after a step, given the state before.

Within a step, symbols move independently of one another, which is exact to the first order in its length.

- "analytic" draws from the law of each symbol at the end of the step, mixed over its clean symbol. It is exact
  for a single symbol. It is also known as ancestral sampling, or Tweedie's tau-leaping.
- "tau_leaping" keeps the rates :math:`\hat R` of the start. Of the jumps in a step, the first one counts, so a
  symbol moves with the probability :math:`1 - e^{- h \sum \hat R}`.
- "euler" moves it with the probability :math:`h \sum \hat R`, at most 1.

References:
    | A Continuous Time Framework for Discrete Denoising Models (Campbell et al., 2022), section 4
    | https://arxiv.org/abs/2205.14987
    | Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution (Lou et al., 2024),
    | section 4 and theorem 4.1
    | https://arxiv.org/abs/2310.16834
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from .chain import padded
from .model import ChainModel

Step = Callable[[ChainModel, Tensor, Tensor, Tensor], Tensor]


def analytic(model: ChainModel, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    r"""Returns the law of each symbol at s < t, with shape (B, L, S), given `x` at t, both of shape (B,)."""

    return model.chain.posterior(model.symbols(x, t), x, t, s)


def euler(model: ChainModel, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    r"""Returns the same to the first order, with jumps of probability h R."""

    return _moved(_all_rates(model, x, t), x, t - s, lambda total: total.clamp(max=1))


def tau_leaping(model: ChainModel, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    r"""Returns the same for rates that stay as they are at t."""

    return _moved(_all_rates(model, x, t), x, t - s, _leapt)


def correction(model: ChainModel, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
    r"""Returns the law of each symbol after the time h of a chain that preserves the law at t.

    Its rates are the sum of those forward and those backward, which cancel each other's effect on the law.
    """

    chain = model.chain
    forward = chain.rate(t)[:, None, None] * chain.generator.to(x.device)[x].clamp(min=0)
    return _moved(_all_rates(model, x, t) + forward, x, h, _leapt)


STEPS: dict[str, Step] = {"analytic": analytic, "tau_leaping": tau_leaping, "euler": euler}


def _all_rates(model: ChainModel, x: Tensor, t: Tensor) -> Tensor:
    rates = padded(model.rates(x, t), model.chain.states)
    if not bool(rates.isfinite().all()):
        raise ValueError(
            f"the reverse rates are not finite at t={float(t.max()):.4g}, where no signal is left; use "
            "solver='analytic', or make the chain with an earlier t_max, such as 0.999."
        )
    return rates


def _moved(rates: Tensor, x: Tensor, h: Tensor, chance: Callable[[Tensor], Tensor]) -> Tensor:
    r"""The law of each symbol that leaves with a chance, in proportion to its rates."""

    total = rates.sum(-1, keepdim=True)
    leave = chance(h.to(rates)[:, None, None] * total)
    shares = rates / total.clamp(min=torch.finfo(rates.dtype).tiny)
    return leave * shares + (1 - leave) * one_hot(x, rates.shape[-1])


def _leapt(total: Tensor) -> Tensor:
    return -torch.expm1(-total)
