r"""CFG++: the guided estimate with the noise of the unconditional model."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from solvers import get
from solvers.doors.signatures import checked

from ..doors.data import as_floats
from ..models.checks import check_finite
from ..models.conditions import Condition
from ..models.score_model import ScoreModel
from ..processes.process import Process
from ..reverse.amounts import told_amount
from ..runs.current import Current, current_run
from .affine import Affine
from .conditional import towards
from .guided import Guided

SOLVER = "ddim"


@checked
def plus_plus(
    model: ScoreModel, scale: float, times: Tensor | None = None, **condition: Condition
) -> ScoreModel:
    r"""Returns the model whose DDIM steps are those of CFG++, on any grid.

    From the noise level s to s', in units of the data, these are

    .. math:: X' = D_u + \lambda (D_c - D_u) + s' \, \frac{X - D_u}{s} ,

    which is plain guidance with the scale :math:`w = \lambda / (1 - s' / s)`. So the scale depends on the grid.
    A run computes it from its own grid, and its solver must be "ddim" without noise. The last denoising has the
    scale :math:`\lambda`.

    Arguments:
        model: A score model that can also be called without the condition.
        scale: The :math:`\lambda` in [0, 1].
        times: The grid for direct calls of the model, outside runs, from noise to data, with shape (n + 1,).
        condition: The condition, with leading size B or 1.

    Raises:
        ValueError: If the scale or the grid is invalid, or a run has another solver, noise or tolerances.

    References:
        | CFG++: Manifold-Constrained Classifier Free Guidance (Chung et al., 2024), algorithm 2
        | https://arxiv.org/abs/2406.08070

    Examples:
        >>> pair = ss.MixtureOracle(torch.tensor([[-1.0], [1.0]]), 0.5)
        >>> guided = ss.guidance.plus_plus(pair, 0.5, label=torch.tensor([1]))
        >>> ss.sample(guided, 2, solver="ddim", steps=3).calls
        tensor([8, 8])
    """

    scale = check_finite("scale", scale)
    if not 0 <= scale <= 1:
        raise ValueError(f"scale must lie in [0, 1], but is {scale}.")
    if not condition:
        raise ValueError("plus_plus needs a condition, such as label=.")
    if times is not None:
        times = as_floats("times", times, least=1).detach().double().cpu()
        falls = torch.exp(-model.process.log_snr(times)).diff() < 0
        if times.ndim != 1 or len(times) < 2 or not bool(falls.all()):
            raise ValueError(
                "times must be one grid from noise to data, with shape (n + 1,), n >= 1."
            )
    grid = None if times is None else tuple(times.tolist())
    rule = PlusPlus(float(scale), model.process, grid)
    return Guided((model, model.given(**condition)), rule)


@dataclass(frozen=True)
class PlusPlus(Affine):
    r"""See :func:`plus_plus`."""

    scale: float
    process: Process = field(repr=False)
    times: tuple[float, ...] | None = field(repr=False)
    roles = ("unconditional", "conditional")

    def weights(self, levels: Tensor) -> Tensor:
        run = current_run()
        grid = self._grid if run is None else _grid_of(run)
        if grid is None:
            raise ValueError(
                "the scale of CFG++ depends on the grid; pass times= to plus_plus to use it outside of a "
                "run."
            )
        known = torch.exp(-self.process.log_snr(grid)).reshape(len(grid), -1).T  # (1 or B, n + 1)
        ends = torch.full_like(known[:, :1], self.scale)
        scales = torch.cat([self.scale / (1 - known[:, 1:] / known[:, :-1]), ends], 1)
        asked = levels.reshape(len(levels), -1)  # (k, 1 or B)
        nearest = (asked.log()[..., None] - known.log()).abs().argmin(-1)
        found = scales.expand(nearest.shape[1], -1)[torch.arange(nearest.shape[1]), nearest]
        return towards(found.reshape(levels.shape) if found.numel() == levels.numel() else found)

    @property
    def _grid(self) -> Tensor | None:
        return None if self.times is None else torch.tensor(self.times, dtype=torch.float64)


def _grid_of(run: Current) -> Tensor:
    r"""The grid of a run, after checking that its steps are those of DDIM."""

    if run.solver is not get(SOLVER):
        raise ValueError(
            f"CFG++ is defined for the steps of DDIM, so it has no effect on {run.solver}; use "
            f"solver={SOLVER!r}, or plain guidance, ss.classifier_free."
        )
    if run.eta:
        raise ValueError(
            f"CFG++ is defined for the steps of DDIM without noise, but eta={told_amount(run.eta)}."
        )
    assert run.times is not None
    return run.times
