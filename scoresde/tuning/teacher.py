r"""A grid from a teacher's path: the steps with the smallest sum of local errors.

The states of the flow are known at many nodes, and so are the values that a multistep method would use there.
The local error of its step from one node to another, after a step from a third, then follows without a network
call (methods with more values are treated as if they had two, and without corrector). Errors are assumed to
shrink on the way to data as they would for Gaussian data. Dynamic programming finds the nodes.

References:
    | On the Trajectory Regularity of ODE-based Diffusion Sampling (Chen et al., 2024), section 4,
    | for the idea with Euler's steps
    | https://arxiv.org/abs/2405.11326
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from solvers import SemiLinear, Solver
from solvers.methods.exponential import ExponentialMultistep

from ..comparing.bench import Bench
from ..models.scale import scale_of, start_of
from ..runs.grids import model_grid
from ..runs.run import Run
from ..runs.settings import Settings

NODES, SAMPLES = 30, 8
# Weights of local errors: the power of their shrinking on the way to data, and of the errors themselves.
# Which of these is right depends on model and budget, and trying them costs one run each.
COUNTED = ((1.0, 1.0), (1.5, 1.0), (2.0, 1.0), (1.0, 2.0))


@dataclass(frozen=True)
class Teacher:
    r"""States on the way from noise to data.

    Arguments:
        bench: The model and its start.
        times: The times of the nodes, from noise to data, with shape (n + 1,).
        path: The states there, with shape (n + 1, B, *).
    """

    bench: Bench
    times: Tensor
    path: Tensor

    @staticmethod
    def of(bench: Bench) -> "Teacher":
        r"""Returns a teacher that follows the flow."""

        process, options = bench.model.process, bench.options
        stop = options.get("t_min") or start_of(bench.model, "sampling")
        times = model_grid(bench.model, "log_snr", process.t_max, stop, NODES)
        small = bench.resized(min(SAMPLES, bench.shape[0]))
        run = small.run(
            solver="exponential", times=times, rtol=1e-4, atol=1e-4, path=True, denoise=False
        )
        assert run.path is not None
        return Teacher(small, times, run.path)

    def grids(self, solver: Solver, steps: int) -> list[Tensor]:
        r"""Returns the times of the best steps for each weighting; none unless the solver is multistep."""

        if not isinstance(solver, ExponentialMultistep) or steps >= NODES:
            return []
        costs, shrinking = self._costs(solver), self._shrinking()
        found = {tuple(_cheapest((costs * shrinking**a) ** b, steps)) for a, b in COUNTED}
        return [self.times[list(nodes)] for nodes in sorted(found)]

    @torch.no_grad()
    def _costs(self, solver: ExponentialMultistep) -> Tensor:
        r"""The error of a step from node i to j after one from h, with shape (n, n + 1, n + 1).

        The first index is h + 1, where 0 means that there was no step before.
        """

        # a corrector counts as its predictor; each step is taken separately, wherever it will be in the grid
        solver = replace(
            solver, lower_order_final=False, analytic_first=False, corrector=(), stochastic=False
        )
        reverse = Run(self.bench.model, Settings(solver=solver), self.times).reverse
        clock, problem = reverse.to_clock(self.times), reverse.problem()
        assert isinstance(problem, SemiLinear)
        states = torch.stack(
            [reverse.enter(x, t) for x, t in zip(self.path, self.times, strict=True)]
        )
        fields = problem.at(clock, states[0])
        values = torch.stack([f(x) for f, x in zip(fields, states, strict=True)])
        count = len(clock)
        costs = torch.full((count - 1, count, count), torch.inf, dtype=torch.float64)
        for i in range(count - 1):
            for before in [[]] if i == 0 else [[h] for h in range(i)]:
                errors = _local(solver, problem, clock, states, values, [*before, i])
                row = before[0] + 1 if before else 0
                costs[row, i, i + 1 :] = errors.mean(1)
        return costs

    def _shrinking(self) -> Tensor:
        r"""The remainder at the end of an error made at each node, for Gaussian data."""

        level = torch.exp(-self.bench.model.process.log_snr(self.times))
        total = scale_of(self.bench.model) ** 2 + level**2
        return (total[-1] / total).sqrt()


def _local(
    solver: ExponentialMultistep,
    problem: SemiLinear,
    clock: Tensor,
    states: Tensor,
    values: Tensor,
    seen: list[int],
) -> Tensor:
    r"""The local errors of steps from the last node seen to all later ones, with shape (m, B)."""

    last, batch = seen[-1], states.shape[1]
    later = torch.arange(last + 1, len(clock))
    rows = len(later) * batch

    def spread(x: Tensor) -> Tensor:  # one row per later node and sample
        return x.expand(len(later), *x.shape).reshape(rows, *x.shape[1:])

    ends = torch.stack(
        [*(clock[i].expand(rows) for i in seen), clock[later].repeat_interleave(batch)]
    )
    known = [spread(values[i]) for i in seen]
    told = replace(problem, tabulate=lambda times, x: [partial(_say, value) for value in known])
    plans = solver.plan(told, ends[:-1], ends[1:], known[0])
    memory = None
    for plan, i in zip(plans, seen, strict=True):
        x, memory = solver.step(plan, spread(states[i]), memory, None)[:2]
    error = x - states[later].reshape(rows, *states.shape[2:])
    return error.flatten(1).double().square().mean(1).sqrt().reshape(len(later), batch).cpu()


def _say(value: Tensor, X: Tensor) -> Tensor:
    return value


def _cheapest(costs: Tensor, steps: int) -> list[int]:
    r"""The nodes of the path with the given number of steps and the smallest sum of costs."""

    total, choices = costs[0, 0], []  # of steps from node 0 to j
    sums = torch.full_like(costs[0], torch.inf)
    sums[0] = total  # of paths that end with a step from i to j
    for _ in range(steps - 1):
        # sums[h, i] + costs[h + 1, i, j], over h
        options = sums[: len(costs) - 1, :, None] + costs[1:]
        sums, choice = options.min(0)
        choices.append(choice)
    j = costs.shape[-1] - 1
    i = int(sums[:, j].argmin())
    nodes = [j, i]
    for choice in reversed(choices):
        nodes.append(int(choice[nodes[-1], nodes[-2]]))
    return nodes[::-1]
