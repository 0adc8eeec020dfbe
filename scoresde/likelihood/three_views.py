r"""Other views of the log-density of the flow, which show whether a score is right."""

import math

import torch
from torch import Tensor

from solvers.noise.brownian import STEPS, keyed_normal

from ..models.checks import check_count
from ..models.conditions import Condition, verb
from ..models.masked import refuse_mask
from ..models.scale import signal
from ..models.score_model import ScoreModel
from ..models.transforms import Data
from ..runs.options import SEED, Gradients, Seeds
from ..runs.takes import check_model
from .batches import FREE, Asked, Batch, ask_freely, check_levels
from .bounds import Bound, elbo
from .integral import denoisers
from .students import error_of_mean
from .verb import log_likelihood

ANCESTRAL = 1000  # steps of the sampler whose bound is shown


@verb(data=("x",))
def views(  # noqa: D417
    model: ScoreModel,
    x: Data,
    *,
    seed: int | None = SEED,
    seeds: Seeds | None = None,
    first_index: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    grad: Gradients = "none",
    batch_size: int | None = None,
    t_min: float | None = None,
    sigma_min: float | None = None,
    **condition: Condition,
) -> dict[str, Bound]:
    r"""Returns the log-density of data at `t_min` under the flow, and three other estimates for comparison.

    For an exact score, "flow", "elbo" and "sde" are equal within their errors, and "ancestral", the bound of a
    sampler with 1000 steps, is a little lower. The gap between "flow" and "elbo" is the divergence between noisy
    data and noisy samples, so it reveals a wrong score.

    Arguments:
        model: The score model.
        x: Data, with shape (B, *).
        condition: The conditions of the model. The options are those that :func:`elbo` shares with all views.

    Examples:
        >>> sorted(ss.views(model, torch.zeros(2, 2)))
        ['ancestral', 'elbo', 'flow', 'sde']
    """

    options = FREE.said(locals())
    FREE.refuse(options)
    check_model(model)
    check_levels(model)
    flow = log_likelihood(model, x, **options)
    calls = int((flow.calls + flow.derivatives).max())
    return {
        "flow": Bound(flow.nats, flow.stderr, calls),
        "elbo": elbo(model, x, **options),
        "ancestral": elbo(model, x, steps=ANCESTRAL, **options),
        "sde": path_density(model, x, **options),
    }


@verb(data=("x",))
def path_density(  # noqa: D417
    model: ScoreModel,
    x: Data,
    *,
    steps: int = 256,
    paths: int = 4,
    seed: int | None = SEED,
    seeds: Seeds | None = None,
    first_index: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    grad: Gradients = "none",
    batch_size: int | None = None,
    t_min: float | None = None,
    sigma_min: float | None = None,
    **condition: Condition,
) -> Bound:
    r"""Returns the log-density of data at `t_min` along noisy paths, without a divergence.

    .. math:: \log p_0(y_0) = \log p_1(y_1) - \int \tfrac{1}{2} |\nabla \log p|^2 ds^2
        + \nabla \log p \cdot d \overleftarrow{y}

    Its error falls with the square root of the number of steps, so it can reveal a wrong score, but not give the
    density to a tenth of a nat.

    Arguments:
        model: The score model.
        x: Data, with shape (B, *).
        steps: The number of steps, even in the logarithm of the noise level.
        paths: The number of paths.
        condition: The conditions of the model. The options are as in :func:`elbo`.

    Examples:
        >>> bound = ss.path_density(model, torch.zeros(3, 2), steps=16)
        >>> bound.nats.shape, bound.calls
        (torch.Size([3]), 64)
    """

    options = FREE.said(locals())
    steps = check_count("steps", steps, at_least=1)
    paths = check_count("paths", paths, at_least=1)
    asked = ask_freely(model, x, options)
    refuse_mask(model, "path_density", "ss.log_likelihood, or ")
    with asked.settings.gradients():
        parts = [_along(asked, batch, steps, paths) for batch in asked.batches()]
    values = torch.cat(parts, 1)
    nats = values.mean(0) - asked.units
    return Bound(nats, error_of_mean(values), steps * paths * asked.model.cost)


def _along(asked: Asked, batch: Batch, steps: int, paths: int) -> Tensor:
    x, (first, last) = batch.x, asked.ends
    u = torch.linspace(first, last, steps + 1, dtype=torch.float64)
    fields = denoisers(batch.model, u[1:, None].expand(-1, len(x)), x)
    process, found = asked.model.process, []
    alpha = signal(asked.model, process.t_max)
    for path in range(paths):
        y, total = x, torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for k, field in enumerate(fields):
            growth = math.exp(2 * float(u[k + 1])) - math.exp(2 * float(u[k]))
            counter = path * steps + k + 2**20
            z = keyed_normal(batch.seed, batch.number, STEPS, counter, asked.dimension)
            change = math.sqrt(growth) * z.to(x).reshape(x.shape)
            y = y + change
            score = (field(y) - y).flatten(1).double() * math.exp(-2 * float(u[k + 1]))
            total = total + growth / 2 * score.square().sum(1)
            total = total + (score * change.flatten(1)).sum(1)
        end = process.prior_log_prob(alpha * y) + asked.dimension * math.log(alpha)
        found.append(end - total)
    return torch.stack(found)
