r"""The exact flow between the nodes of a teacher's path.

For Gaussian data with variances l along some axes, :math:`u = X / \sqrt{l + s^2}` is constant on the way of the
flow. For other data it varies slowly, so a cubic spline in log-SNR goes through its values at the nodes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from solvers import SemiLinear

from ..comparing.bench import Bench
from ..models.scale import scale_of, start_of
from ..reverse.reverse import Reverse
from ..runs.grids import model_grid

NODES = 60


@dataclass(frozen=True)
class Exact:
    r"""The exact run of some samples, in the coordinates of the process.

    Arguments:
        times: The times of the nodes, from noise to data, with shape (n + 1,).
        path: The states there, with shape (n + 1, B, *).
        end: The samples, after the last denoising, with shape (B, *).
    """

    times: Tensor
    path: Tensor
    end: Tensor

    @staticmethod
    def of(bench: Bench) -> "Exact":
        r"""Returns the run of all samples of a bench."""

        process, options = bench.model.process, bench.options
        stop = options.get("t_min") or start_of(bench.model, "sampling")
        times = model_grid(bench.model, "log_snr", process.t_max, stop, NODES)
        tolerance = bench.tolerance
        run = bench.run(
            solver="exponential", times=times, path=True, rtol=tolerance, atol=tolerance
        )
        assert run.path is not None
        return Exact(times, run.path, run.x)


class ExactPath:
    r"""Creates the function from a clock to the exact states there, in the coordinates of a problem.

    Arguments:
        reverse: The reverse process, in semi-linear form.
        exact: The exact run.
    """

    def __init__(self, reverse: Reverse, exact: Exact) -> None:
        from scipy.interpolate import CubicSpline  # slow to import

        assert reverse.kind is SemiLinear
        self.variances = reverse.frame.variances
        if reverse.moments is None:
            self.variances = torch.full((1,), scale_of(reverse.model) ** 2, dtype=torch.float64)
        clock = reverse.to_clock(exact.times)
        states = [reverse.enter(x, t) for x, t in zip(exact.path, exact.times, strict=True)]
        self.like = states[0]
        flat = torch.stack(states).flatten(2).double().cpu() / self._size(clock)[:, None]
        self.spline = CubicSpline(clock.numpy(), flat.numpy())

    def __call__(self, clock: Tensor) -> Tensor:
        r"""Returns the states at a clock with shape (), with shape (B, *)."""

        u = torch.from_numpy(self.spline(float(clock)))
        return (u * self._size(clock)).reshape(self.like.shape).to(self.like)

    def _size(self, clock: Tensor) -> Tensor:
        return (self.variances + torch.exp(-2 * clock)[..., None]).sqrt()
