r"""What members share: a model by noise level, levels, and runs of solvers from given noise."""

from collections.abc import Sequence

import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde.comparing.cells import options_of, steps_within
from scoresde.models.scale import scale_of
from scoresde.reverse.reverse import Reverse
from scoresde.runs.grids import grid_times
from solvers.methods.weights import Rule, exact, weights

from ..distance import T_MIN


def levels(model: ss.ScoreModel, grid: str, steps: int, first: float | None = None) -> list[float]:
    r"""Returns the noise levels of a grid, from that of t_max or the given one."""

    process = model.process
    start = process.t_max if first is None else process.at_noise_level(first)
    times = grid_times(process, grid, start, T_MIN, steps, scale_of(model))
    return torch.exp(-process.log_snr(times)).tolist()


def solve(
    model: ss.ScoreModel, z: Tensor, solver: str | solvers.Solver, calls: int, **options: object
) -> Tensor:
    r"""Returns what a solver makes of noise within a budget, on a grid by name or on levels."""

    solver = solvers.get(solver)
    if not {"levels", "times"} & options.keys():
        steps = steps_within(solver, calls)
        if not steps:
            raise ValueError(f"{solver} takes no step within {calls} calls.")
        options = {"steps": steps, "t_min": T_MIN, **options_of(model, solver), **options}
    return ss.decode(model, z, **{"solver": solver, **options}).x


class Flow:
    r"""Creates the probability flow in the coordinates of a form, with noise levels as times.

    Arguments:
        model: The score model.
        form: The linear part: "data", "noise", "isotropic" or "moments".
    """

    def __init__(self, model: ss.ScoreModel, form: str) -> None:
        self.model = model
        self.reverse = Reverse(model, solvers.SemiLinear, 0.0, "log_snr", form)
        self.problem = self.reverse.problem()

    def enter(self, x: Tensor, level: float) -> Tensor:
        return self.reverse.enter(x, self._time(level))

    def leave(self, X: Tensor, level: float) -> Tensor:
        return self.reverse.leave(X, self._time(level))

    def denoised(self, X: Tensor, level: float) -> Tensor:
        r"""Returns the denoised data, which takes a call."""

        return self.model.denoise(self.leave(X, level), self._time(level))

    def value(self, X: Tensor, level: float) -> Tensor:
        r"""Returns the value of N, which takes a call."""

        return self.problem.at(_clock([level]), X)[0](X)

    def step(
        self,
        X: Tensor,
        values: Sequence[Tensor],
        places: Sequence[float],
        start: float,
        stop: float,
        variable: str = "clock",
        rule: Rule = exact,
    ) -> Tensor:
        r"""Returns the state after a step that integrates the polynomial through known values of N.

        Arguments:
            X: The state.
            values: The values of N, the newest first.
            places: The noise levels at which they are.
            start: The noise level at which the step starts.
            stop: The noise level at which it ends.
            variable: The variable of the polynomial.
            rule: The rule of its weights.
        """

        s, t = _clock([start]), _clock([stop])
        decay = self.problem.linear.decay(s, t)
        w = weights(self.problem.linear, s, t, decay, _clock(places)[None], rule, variable)[0]
        out = X * decay[0].to(X)
        for value, weight in zip(values, w, strict=True):
            out += value * weight.to(X)
        return out

    def _time(self, level: float) -> Tensor:
        return torch.tensor(self.model.process.at_noise_level(level), dtype=torch.float64)


def _clock(places: Sequence[float]) -> Tensor:
    return -torch.tensor(places, dtype=torch.float64).log()
