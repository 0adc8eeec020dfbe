r"""The modes of a density: the points at which it has a maximum."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..models.checks import check_count, check_number
from ..models.conditions import Condition, verb
from ..models.derivative import coarsest_eps
from ..models.masked import refuse_mask
from ..models.scale import scale_of
from ..models.score_model import ScoreModel
from ..models.transforms import Data
from ..runs.options import Start
from ..runs.takes import Takes
from .ascent import Summit, ascend
from .batches import Asked, Batch, ask
from .integral import denoisers
from .result import Likelihood
from .verb import in_form, log_likelihood

MODES = Takes(
    "a search for modes", Start, "dtype", "device", "batch_size", words="has no effect on"
)
CALLS = 500  # of each row, by default
TOLERANCE = 1e-8  # nats
ULPS = 4  # of the denoised data, to which a network's values may be off


@dataclass(frozen=True)
class Modes:
    r"""The points to which starting points climbed.

    Arguments:
        x: The points, with shape (B, *), in units of the data.
        slope: The remaining gradient :math:`\nabla \log p`, with shape (B, *), in nats per unit of the data.
        gain: The log-densities that are expected to be left to gain, in nats, with shape (B,).
        converged: Whether rows are at a maximum, with shape (B,): nothing is left to gain, and they return after
            a small push, which they do not from saddle points and along flat directions.
        calls: The network calls of each row, with shape (B,).
        t_min: The time of the density.
        density: The log-density of the points, if it was asked for.

    Examples:
        >>> modes = ss.find_modes(model, torch.ones(3, 2))
        >>> modes.converged
        tensor([True, True, True])
    """

    x: Tensor
    slope: Tensor
    gain: Tensor
    converged: Tensor
    calls: Tensor
    t_min: float
    density: Likelihood | None = None

    @property
    def gradient(self) -> Tensor:
        r"""The norm of the remaining gradient, with shape (B,), in nats per unit of the data."""

        return self.slope.flatten(1).norm(dim=1)

    def __repr__(self) -> str:
        best = "" if self.density is None else f", best {self.density.nats.max():.4g} nats"
        return (
            f"Modes({len(self.x)} points, {int(self.converged.sum())} at a maximum{best}, "
            f"{self.calls.double().mean():.0f} calls each)"
        )


def _in_form(found: Modes, model: ScoreModel) -> Modes:
    r"""The points and slopes in the user's form."""

    transform = model.transform
    assert transform is not None
    density = None if found.density is None else in_form(found.density, model)
    x, slope = transform.outside(found.x), transform.gradient(found.slope)
    return replace(found, x=x, slope=slope, density=density)


@verb(data=("x",), gives=_in_form)
def find_modes(  # noqa: D417
    model: ScoreModel,
    x: Data,
    *,
    tolerance: float = TOLERANCE,
    max_calls: int = CALLS,
    density: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    t_min: float | None = None,
    sigma_min: float | None = None,
    **condition: Condition,
) -> Modes:
    r"""Climbs from each starting point to a mode of the density of the data, its maximum a posteriori.

    The density is that of :math:`y = x_0 + s z` with the noise level :math:`s = \sigma / \alpha` at `t_min`, as in
    :func:`scoresde.log_likelihood`. Its gradient is known from one network call,

    .. math:: \nabla \log p(y) = \frac{D(\alpha y) - y}{s^2} ,

    and L-BFGS steps follow it, each row by itself. The result is a maximum near the starting point, not the
    largest one: start from several samples, and compare their densities. The image of the prior's mode under the
    flow is not a mode, except for Gaussian data: the flow changes volumes.

    Arguments:
        model: The score model.
        x: The starting points in units of the data, with shape (B, *), such as the x of :func:`scoresde.sample`.
        tolerance: The log-density, in nats, that may be left to gain. Rounding in the dtype of the network may
            leave more, which is tolerated too.
        max_calls: The maximum number of network calls per row.
        density: Whether to compute the log-density at the points, to rank them.
        condition: The conditions of the model. The options are those of :class:`scoresde.Settings` that matter
            here; the default dtype is float64.

    Returns:
        The points, and whether each is at a maximum.

    Raises:
        ValueError, TypeError: If an option or condition is invalid.

    References:
        | Mean Shift, Mode Seeking, and Clustering (Cheng, 1995), of which y = D(y) is the fixed point
        | https://doi.org/10.1109/34.400568

    Examples:
        >>> pair = ss.MixtureOracle(torch.tensor([[-1.0], [1.0]]), 0.25)
        >>> modes = ss.find_modes(pair, torch.tensor([[-0.5], [0.3]]), density=True)
        >>> [round(mode, 4) for mode in modes.x[:, 0].tolist()]
        [-1.0, 1.0]
        >>> modes
        Modes(2 points, 2 at a maximum, best -0.2261 nats, 9 calls each)
    """

    options = MODES.said(locals())
    tolerance = check_number("tolerance", tolerance)
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, in nats, but is {tolerance}.")
    max_calls = check_count("max_calls", max_calls, at_least=1)
    asked = ask(model, x, options, MODES)
    refuse_mask(asked.model, "find_modes")
    allowed = max_calls // asked.model.cost
    if not allowed:
        raise ValueError(
            f"max_calls={max_calls} is below the {asked.model.cost} calls of one gradient; pass more."
        )
    with torch.no_grad():
        parts = [_climb(asked, batch, tolerance, allowed) for batch in asked.batches()]
    points = torch.cat([part.x for part in parts]).reshape(asked.x.shape)
    return Modes(
        x=points,
        slope=torch.cat([part.gradient for part in parts]).reshape(asked.x.shape),
        gain=torch.cat([part.gain for part in parts]),
        converged=torch.cat([part.converged for part in parts]),
        calls=torch.cat([part.calls for part in parts]) * asked.model.cost,
        t_min=asked.start,
        density=log_likelihood(model, points, **options) if density else None,
    )


def _climb(asked: Asked, batch: Batch, tolerance: float, calls: int) -> Summit:
    u, shape = asked.ends[0], batch.x.shape
    scale = scale_of(batch.model)
    variance = torch.tensor(2 * u, dtype=torch.float64).exp().item()

    def gradient(y: Tensor, rows: Tensor) -> Tensor:
        model = batch.model if len(rows) == shape[0] else batch.model.rows(rows)
        y = y.reshape(len(y), *shape[1:])
        [denoised] = denoisers(model, torch.full((1, len(y)), u, dtype=torch.float64), y)
        return (denoised(y) - y).flatten(1) / variance

    rounding = ULPS * coarsest_eps(batch.model, batch.x) * scale / variance
    return ascend(gradient, batch.x.flatten(1), scale, tolerance, rounding, calls)
