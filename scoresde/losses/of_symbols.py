r"""The loss of models that predict symbols."""

import torch.nn.functional as F
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.doors.values import as_tensor

from ..models.score_model import ScoreModel
from ..symbols.form import as_symbols
from ..symbols.score import EmbeddedScore
from .noised import noised


@checked
def cross_entropy(
    model: ScoreModel, x: Tensor, log_snr: Tensor, z: Tensor, **condition: Tensor
) -> Tensor:
    r"""Returns the mean cross-entropy of the symbols of each sample, in nats, with shape (B,).

    .. math:: - \frac{1}{L} \sum_{l=1}^L \log p_{k_l}(x_t) , \qquad x_t = \alpha e_k + \sigma z

    Its minimiser is the posterior of each symbol given the noisy vectors. The embedding is learned by the same
    loss, through the noisy vectors.

    Arguments:
        model: A :class:`scoresde.symbols.EmbeddedScore`.
        x: Symbols, with shape (B, \*), or their vectors, with shape (B, \*, n).
        log_snr: The log of :math:`\alpha / \sigma` of each sample, with shape (B,).
        z: Standard noise, with shape (B, \*, n).
        condition: The conditions.

    Raises:
        TypeError: If the model has no logits.

    References:
        | Continuous Diffusion for Categorical Data (Dieleman et al., 2022)
        | https://arxiv.org/abs/2211.15089

    Examples:
        >>> def network(x, level):
        ...     return torch.zeros(*x.shape[:-1], 5)
        >>> words = ss.symbols.EmbeddedScore(network, ss.symbols.Embedding(5, 3), ss.VP())
        >>> x, z = torch.tensor([[0, 1], [2, 4]]), torch.ones(2, 2, 3)
        >>> ss.losses.cross_entropy(words, x, torch.zeros(2), z)  # log 5
        tensor([1.6094, 1.6094])
    """

    if not isinstance(model, EmbeddedScore):
        raise TypeError(
            f"model must be an ss.symbols.EmbeddedScore, which has logits, but is a {type(model).__name__}; use "
            "losses.denoising for models without."
        )
    x = as_tensor("x", x)
    if not x.is_floating_point():
        x = model.embedding(as_symbols("x", x, model.embedding.count))
    known = noised(model, x, log_snr, z, condition)
    symbols = model.embedding.nearest(known.x)
    logits = model.logits(known.state, known.t, **known.condition)
    flat = F.cross_entropy(logits.flatten(0, -2), symbols.flatten(), reduction="none")
    return flat.reshape(len(x), -1).mean(1)
