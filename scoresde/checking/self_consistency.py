r"""The public function: how far a model is from being the score of any data at all."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from solvers.divergence import signs

from ..models.checks import check_count, check_data, check_number, check_numbers
from ..models.conditions import Condition, verb
from ..models.derivative import check_derivative
from ..models.rows_check import check_rows
from ..models.score_model import ScoreModel
from ..models.transforms import Data
from ..processes.process import Process
from ..runs.takes import Takes, split
from .continuation import STEP, continued, normals, squared
from .levels import SHOWN, UNIT, deviation, noise_of, time_of
from .residual_table import LevelResiduals, Residuals, Squared
from .terms import Terms, reach, terms

RESIDUALS = Takes("residuals", "seed", "dtype", "device", "batch_size")
SMALL, PROBES = 16, 8  # up to so many dimensions, derivatives are exact; otherwise so many probes
NUMBERS = 2**16  # of the states whose derivatives are computed at once
LARGEST, DRAWS = 0.5, 4  # step of the log-SNR, and number of continuations


@verb(data=("data",))
def residuals(
    model: ScoreModel,
    data: Data,
    *,
    levels: Sequence[float] | None = None,
    probes: int | None = None,
    step: float = STEP,
    derivatives: bool = True,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    **condition: Condition,
) -> "Residuals":
    r"""Returns by how much a model misses the equations that every score of noised data satisfies, by noise level.

    With :math:`\lambda = \log(\alpha / \sigma)`, :math:`s = \sigma / \alpha`, the estimate D at
    :math:`X = x / \alpha`, its Jacobian J and :math:`v = D - X`, these are

    - martingale: :math:`\partial_\lambda D + 2 J v + s^2 \Delta D`,
    - flow: :math:`\partial_\lambda D + (J + J^T) v + s^2 \nabla \operatorname{div} D`,
    - Fokker-Planck: :math:`\partial_\lambda D + 2 J^T v + s^2 \nabla \operatorname{div} D`,

    in units of the data per unit of :math:`\lambda`. The first is the drift of the estimate along the reverse SDE.
    The second is the rate at which the score departs from that of the density which the probability flow carries.
    The third is :math:`-2 s^4` times the residual of the score's Fokker-Planck equation. All three are 0 for the
    score of any data at all, right or wrong. They differ by what is antisymmetric in J: the curl of the score.

    Squares are estimated without bias, from independent probes. The martingale residual is estimated once more
    without derivatives, by four independent continuations along the reverse SDE.

    Arguments:
        model: The score model.
        data: Data, with shape (B, *), to which noise is added: some hundred samples.
        levels: The noise levels :math:`\sigma / \alpha`. By default, seven that suit the data.
        probes: The number of random probes, at least 2. By default, derivatives are exact in up to 16 dimensions,
            and 8 probes are used in more.
        step: The step of the log-SNR of continuations, at most 0.5. Their bias is of its second order.
        derivatives: Whether to compute the residuals with derivatives. Otherwise, only continuations are.
        seed: The seed of noise and probes.
        dtype: The dtype of the states, float32 or float64. By default, that of the data.
        device: The device. By default, that of the data.
        batch_size: How many samples are computed at once.
        condition: The conditions of the model, each with leading size B or 1.

    Raises:
        ValueError, TypeError: If an argument does not fit, or the model has no score or no derivative.

    References:
        | On the Equivalence of Consistency-Type Models (Lai et al., 2023)
        | https://arxiv.org/abs/2306.00367

    Examples:
        >>> found = ss.residuals(model, model.data(16))  # of an exact model
        >>> max(level.martingale.root for level in found.levels) < 1e-4
        True
    """

    options = RESIDUALS.said(locals())
    x = check_data(model, data, "data", dtype, device)
    if len(x) < 2:
        raise ValueError(f"data must have at least 2 samples, but has {len(x)}.")
    seed = check_count("seed", seed, None, None)
    step = check_number("step", step, 1e-3, LARGEST)
    count = check_count("probes", probes, at_least=2)
    bound, settings = split(model, options, len(x), RESIDUALS)
    _check_model(bound, x)
    known = _levels(bound.process, levels, x, step)
    if derivatives:
        check_derivative(bound, x, "forward", "residuals", settings.batch_size)
    if count is None and x[0].numel() > SMALL:
        count = PROBES
    rows = settings.batch_size or max(1, NUMBERS // x[0].numel())
    found = []
    for number, level in enumerate(known):
        asked = _Asked(bound, seed, number, level, step, count, derivatives=derivatives)
        parts = [asked(x, index) for index in torch.arange(len(x)).split(rows)]
        columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        squares = {name: Squared.of(column) for name, column in columns.items()}
        found.append(LevelResiduals(level, float(time_of(bound.process, level)), **squares))
    return Residuals(repr(model), tuple(found))


class _Asked:
    r"""The squares of all residuals at a noise level, row by row."""

    def __init__(
        self,
        model: ScoreModel,
        seed: int,
        number: int,
        level: float,
        step: float,
        probes: int | None,
        *,
        derivatives: bool,
    ) -> None:
        self.model, self.seed, self.number, self.level = model, seed, number, level
        self.step, self.probes, self.derivatives = step, probes, derivatives

    @torch.no_grad()
    def __call__(self, data: Tensor, index: Tensor) -> dict[str, Tensor]:
        index = index.to(data.device)
        model, x = self.model.rows(index), data[index]
        log_snr = torch.full((len(x),), -math.log(self.level), dtype=torch.float64)
        X = x + self.level * noise_of(data, self.seed, self.number)[index]
        z = normals(self.seed, index, self.number, DRAWS, X)
        drift = continued(model, X, log_snr, z, {}, self.step)
        found = {"continued": squared(drift)}
        bad = index[~found["continued"].isfinite()]
        if len(bad):
            raise ValueError(
                f"the model must be finite, but its estimates are NaN or infinite at the noise level "
                f"{self.level:g}, for rows {bad[:8].tolist()}."
            )
        if self.derivatives:
            found |= self._of(terms(model, X, log_snr, self._signs(X, index), {}))
        return found

    def _signs(self, X: Tensor, index: Tensor) -> Tensor | None:
        if self.probes is None:
            return None
        drawn = signs(self.seed, index, len(SHOWN) + self.number, self.probes, X[0].numel())
        return drawn.to(X).reshape(self.probes, *X.shape)

    def _of(self, found: Terms) -> dict[str, Tensor]:
        names = ("martingale", "flow", "fokker_planck", "curl")
        return {
            "change": squared(found.change[None]),
            **{name: squared(getattr(found, name)) for name in names},
        }


def _check_model(model: ScoreModel, x: Tensor) -> None:
    r"""Refuses a model without noise levels, or whose rows depend on each other."""

    if not model.process.has_scales:
        raise ValueError(
            f"residuals need noise levels with numbers alpha and sigma, but {model.process} has none."
        )
    check_rows(model, x)


def _levels(
    process: Process, levels: Sequence[float] | None, x: Tensor, step: float
) -> list[float]:
    r"""The noise levels, far enough inside the domain for derivatives and continuations."""

    room = math.exp(max(reach(x.dtype), step) * 1.01)
    low = process.noise_level(process.t_min) * room
    high = process.noise_level(process.t_max) / room
    if levels is None:
        std = deviation(x)
        if not std > 0:
            raise ValueError("data must vary, but all samples are the same; pass levels=.")
        found = [level * std / UNIT for level in SHOWN]
        kept = [level for level in found if low < level < high]
        return kept or torch.logspace(math.log10(low), math.log10(high), len(SHOWN)).tolist()
    known = check_numbers("levels", levels)
    for level in known:
        if not low <= level <= high:
            raise ValueError(
                f"levels must lie from {low:.3g} to {high:.3g}, inside the domain of {process} by a step, but one "
                f"is {level:g}."
            )
    return known
