r"""Times as models receive them."""

import torch
from torch import Tensor

from solvers.shapes import align

from ..doors.data import as_times
from ..processes.process import Process


def model_times(process: Process, times: Tensor, x: Tensor) -> list[Tensor]:
    r"""Returns times as models receive them: with shape (B,), in the state's dtype, inside the domain.

    If rounding to the dtype of the state leaves the domain, the nearest number inside is taken.
    """

    rounded = times.to(x.dtype)
    exact = rounded.double()
    for beyond, inwards in (
        (exact > process.t_max, -torch.inf),
        (exact < process.t_min, torch.inf),
    ):
        if bool(beyond.any()):
            near = torch.nextafter(rounded, torch.full_like(rounded, inwards))
            rounded = torch.where(beyond, near, rounded)
    return list(rounded.to(x.device).reshape(len(times), -1).expand(-1, len(x)))


def check_time(process: Process, t: Tensor | float, x: Tensor) -> Tensor:
    r"""Returns times in float64 on the CPU, after checking that they lie in the domain of the process.

    One time that was expanded to all rows has shape () again.
    """

    t = as_times("t", t)
    if t.ndim == 1 and t.stride() == (0,) and len(t) == len(x):
        t = t[0]
    t = t.detach().cpu()
    slack = 1e-6 * process.t_max if t.dtype != torch.float64 else 1e-12 * process.t_max
    t = t.double()
    if t.ndim == 0 and process.t_min <= t.item() <= process.t_max:
        return t
    align(t, x)
    outside = ~((t >= process.t_min - slack) & (t <= process.t_max + slack))
    if bool(outside.any()):
        raise ValueError(
            f"t must lie in [{process.t_min:.4g}, {process.t_max:.4g}], but is "
            f"{t[outside].flatten()[0]:.4g}."
        )
    return t.clamp(process.t_min, process.t_max)
