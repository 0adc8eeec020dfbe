r"""A trained model with another process: the same noise level, at another time and scale."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from solvers.doors.signatures import checked
from solvers.problem import StateField
from solvers.shapes import align

from ..processes.process import Process
from .conditions import Bound
from .score_model import ScoreModel


@checked
class Rescheduled(ScoreModel):
    r"""Creates a model for another process, which calls the given model at the same noise level.

    Both processes have :math:`x_t = \alpha x_0 + \sigma z`. With s such that
    :math:`\lambda_B(t) = \lambda_A(s)`,

    .. math:: D_B(x, t) = D_A(x \, \alpha_A(s) / \alpha_B(t), s) ,

    so samples, likelihoods and latents follow without training. Times outside the noise levels of the model are
    cut off.

    Arguments:
        model: The model, with any process A.
        process: The process B.

    Raises:
        ValueError: If the processes have no noise level in common.

    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), appendix C
        | https://arxiv.org/abs/2206.00364

    Examples:
        >>> trained = ss.GaussianOracle(torch.zeros(2), 0.5, process=ss.VP())
        >>> ss.Rescheduled(trained, ss.EDM()).denoise(torch.ones(1, 2), torch.tensor([0.5]))
        tensor([[0.5000, 0.5000]])
    """

    def __init__(self, model: ScoreModel, process: Process) -> None:
        super().__init__()
        self.resemble(model)
        self.model, self.process = model, _within(process, model.process)

    def __repr__(self) -> str:
        return f"Rescheduled({self.model!r}, {self.process})"

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        s, ratio = self._inner(t)
        return self.model.denoise(align(ratio.to(x), x) * x, s, **condition)

    def raw(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        s, ratio = self._inner(t)
        return self.model.raw(align(ratio.to(x), x) * x, s, **condition)

    def combine(
        self, times: Tensor, a: Tensor, b: Tensor, scale: Tensor, x: Tensor, **condition: Tensor
    ) -> Sequence[StateField]:
        s, ratio = self._inner(times)
        return self.model.combine(s, a / ratio, b, scale * ratio, x, **condition)

    def take_condition(self, name: str, value: object) -> Bound:
        return self.model.take_condition(name, value)

    def check_condition(self, name: str, value: Tensor) -> None:
        self.model.check_condition(name, value)

    def _inner(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""The model's own time, and the factor from the state to that of the model, in float64."""

        t = t.double()
        s = self.model.process.bare_time(self.process.bare_log_snr(t))
        return s, self.model.process.bare_scales(s)[0] / self.process.bare_scales(t)[0]


def _within(process: Process, known: Process) -> Process:
    r"""A process without the times whose noise levels another process does not have."""

    for one in (process, known):
        one.scales(torch.tensor(one.t_max))  # refused by processes without them
    low, high = (
        max(process.noise_level(process.t_min), known.noise_level(known.t_min)),
        min(process.noise_level(process.t_max), known.noise_level(known.t_max)),
    )
    if not low < high:
        raise ValueError(
            f"process must have noise levels that the model knows, from {known.noise_level(known.t_min):.3g} to "
            f"{known.noise_level(known.t_max):.3g}, but {process} has none of them."
        )
    ends = {"t_min": process.at_noise_level(low), "t_max": process.at_noise_level(high)}
    cut = {n: v for n, v in ends.items() if abs(v - getattr(process, n)) > 1e-9 * process.t_max}
    if not cut:
        return process
    if not dataclasses.is_dataclass(process):
        raise ValueError(
            f"process must lie within the noise levels {low:.3g} to {high:.3g}, which the model knows; create it "
            f"with {' and '.join(f'{n}={v:.6g}' for n, v in cut.items())}."
        )
    return dataclasses.replace(process, **cut)
