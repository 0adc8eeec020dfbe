r"""First-hitting sampling of a chain with a mask: exact, with one call per symbol, or with fewer to a tolerance.

Backwards, each masked symbol is revealed once, when the share of noise has fallen to a uniform number that does
not depend on the symbols. So the times and the order of all jumps are drawn first, and then each symbol from its
probabilities at its time, given those revealed before. There is no step and hence no bias.

Symbols revealed by the same call are drawn as if they were independent. The divergence of their joint law from
that is at most

.. math:: \sum_i H_i - \max_i H_i

in nats, where the H are the entropies of the probabilities. With a tolerance, a call reveals the next symbols in
order as long as this does not exceed it. If the probabilities are exact, the divergence of the samples from the
data is then at most the mean number of calls times the tolerance. With a limit of calls, each call reveals at
least an equal share of the symbols that are left.

Symbols that are known are not revealed. The law of the others is then that given these, since the probabilities of
a chain with a mask are those given the symbols that are shown.

References:
    | Masked Diffusion Models are Secretly Time-Agnostic Masked Models (Zheng et al., 2025), section 4
    | https://arxiv.org/abs/2409.02908
    | Accelerated Sampling from Masked Diffusion Models via Entropy Bounded Unmasking (Ben-Hamu et al., 2025),
    | section 4, which chooses the order by the entropies
    | https://arxiv.org/abs/2505.24857
"""

import torch
from torch import Tensor

from ..runs.progress import bar
from .draws import draw
from .model import ChainModel


def reveal(
    model: ChainModel,
    x: Tensor,
    u: Tensor,
    v: Tensor,
    tolerance: float,
    most: int | None,
    progress: bool,
) -> tuple[Tensor, Tensor]:
    r"""Returns the symbols that masks hide, with shape (B, L), and the calls of each sample, with shape (B,).

    Arguments:
        model: The model of a chain with a mask.
        x: Masks, and symbols that are known, with shape (B, L).
        u: Uniform numbers for the times, with shape (B, L).
        v: Uniform numbers for the symbols, with shape (B, L).
        tolerance: The divergence that a call may add, in nats.
        most: The most calls of a sample.
        progress: Whether to show a progress bar.
    """

    x, length = x.clone(), x.shape[1]
    known = x < model.chain.vocabulary
    noise, order = u.masked_fill(known, 2.0).sort(1, descending=True)  # those first
    rank = order.argsort(1)
    done, calls = known.sum(1), torch.zeros_like(x[:, 0])
    with bar(desc="first hitting", total=length, shown=progress) as shown:
        while bool((done < length).any()):
            rows = (done < length).nonzero()[:, 0]
            first = done[rows, None]
            t = model.chain.time(noise[rows].gather(1, first)[:, 0])
            found = model.rows(rows).symbols(x[rows], t)
            entropy = torch.special.entr(found).sum(-1).gather(1, order[rows])
            more = _together(entropy, first, tolerance)
            if most is not None:
                left = most - calls[rows, None]
                more = torch.maximum(more, (length - first + left - 1) // left)
            now = (rank[rows] >= first) & (rank[rows] < first + more)
            x[rows] = torch.where(now, draw(found, v[rows]), x[rows])
            done[rows] += more[:, 0]
            calls[rows] += 1
            shown.update(int(done.min()) - shown.n)
    return x, calls


def _together(entropy: Tensor, first: Tensor, tolerance: float) -> Tensor:
    r"""How many symbols, in the order of their times and from the first that is masked, a call may reveal."""

    place = torch.arange(entropy.shape[1], device=entropy.device)
    left = torch.where(place < first, 0.0, entropy)
    gap = left.cumsum(1) - left.cummax(1).values
    fits = (place >= first) & (gap <= tolerance)
    return fits.sum(1, keepdim=True).clamp(min=1)
