r"""Our solvers as samplers of k-diffusion, which take a denoiser and noise levels."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from solvers import Solver, get
from solvers.doors.signatures import checked
from solvers.doors.values import as_tensor

from ..models.network import NetworkScore
from ..processes.schedules import Karras
from ..processes.standard import EDM
from ..runs.between import telling
from ..sampling import decode
from .schedulers import WIDER

LEAST, MOST = 0.002, 80.0  # the noise levels that the process has at least
Callback = Callable[[dict[str, Any]], object]


@checked
class KDiffusionSampler:
    r"""Creates a function like the `sample_*` of k-diffusion that takes the steps of a solver.

    It is called as `sampler(model, x, sigmas, extra_args=None, callback=None, disable=None)`, where
    `model(x, sigma, **extra_args)` returns denoised data, x is the state at the first noise level, and the
    levels fall, to a last 0 if the result is to be denoised. The callback gets a dictionary of x, i, sigma,
    sigma_hat and denoised at the first network call of each step; with reversible solvers, of the first alone.

    Arguments:
        solver: A solver with fixed steps, or its name.
        options: Further options of :func:`scoresde.decode`, such as `eta=` and `seed=`. Without a seed, noise is
            drawn by torch's own generator.

    Raises:
        ValueError: If the solver chooses its own steps, or takes samples apart.

    Examples:
        >>> sampler = ss.adapters.KDiffusionSampler("ddim")
        >>> sampler(lambda x, sigma: 0 * x, torch.ones(1, 2), torch.tensor([2.0, 1.0]))
        tensor([[0.5000, 0.5000]])
    """

    def __init__(self, solver: str | Solver, **options: object) -> None:
        self.solver, self.options = get(solver), options
        can = self.solver.can
        if not can.fixed or can.block:
            reason = "takes samples apart" if can.fixed else "chooses its own steps"
            raise ValueError(
                f"solver must take all samples along the given noise levels, but {self.solver} {reason}; use "
                "another, such as 'dpmpp_2m'."
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.solver)!r})"

    @torch.no_grad()
    def __call__(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, object] | None = None,
        callback: Callback | None = None,
        disable: bool | None = None,
    ) -> Tensor:
        r"""Returns the state at the last noise level.

        Arguments:
            model: The denoiser.
            x: The state at the first noise level.
            sigmas: The noise levels.
            extra_args: Keyword arguments of each call of the denoiser.
            callback: A function that is told of each step.
            disable: Whether there is no progress bar. By default, there is none.
        """

        levels = as_tensor("sigmas", sigmas, torch.float64).cpu()
        clean = len(levels) > 0 and float(levels[-1]) == 0
        levels = levels[:-1] if clean else levels
        if not len(levels) or not bool((levels > 0).all()):
            raise ValueError(
                f"sigmas must be positive noise levels, and perhaps a last 0, but are {sigmas.tolist()}."
            )
        process = EDM(
            Karras(min(LEAST, float(levels[-1]) / WIDER), max(MOST, float(levels[0]) * WIDER))
        )
        asked = _Asked(model, dict(extra_args or {}), callback, sigmas)
        score = NetworkScore(asked, process, "data", shape=tuple(x.shape[1:]))
        start = x if x.dtype == torch.float64 else x.float()
        if len(levels) == 1:
            return score.denoise(start, levels[0].to(x.device)).to(x.dtype) if clean else x
        options: dict[str, Any] = {"progress": disable is False, **self.options}
        if self.solver.stochastic and not {"seed", "seeds", "noise"} & options.keys():
            options["seed"] = int(torch.randint(2**31, ()))
        options |= {"solver": self.solver, "times": levels, "denoise": clean}
        with telling(score, asked.between):
            return decode(score, start, **options).x.to(x.dtype)


class _Asked:
    r"""The denoiser, which tells of the first call of each step."""

    def __init__(
        self,
        model: Callable[..., Tensor],
        extra: dict[str, Any],
        callback: Callback | None,
        sigmas: Tensor,
    ) -> None:
        self.model, self.extra, self.callback, self.sigmas = model, extra, callback, sigmas
        self.step, self.first = 0, True
        self.state: Tensor | None = None

    def between(self, x: Tensor, t: Tensor) -> None:
        self.step, self.state, self.first = self.step + 1, x, True

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        denoised = self.model(x, sigma, **self.extra)
        if self.callback is not None and self.first:
            told = {
                "x": x if self.state is None else self.state,
                "i": self.step,
                "sigma": self.sigmas[self.step],
                "sigma_hat": sigma[0],
                "denoised": denoised,
            }
            self.callback(told)
        self.first = False
        return denoised
