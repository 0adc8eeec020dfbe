r"""The last step of a learned plan, changed so that samples come closer to data.

The energy distance between samples and data can be differentiated, and samples are linear in the learned numbers
of the last step. With the states and values of many samples kept from one run, its minimum takes no further call.
Such a plan corrects errors of the model, too, so its samples are not those of the flow.

References:
    | Energy Statistics (Szekely and Rizzo, 2013), equation (5)
    | https://doi.org/10.1016/j.jspi.2013.03.018
"""

from dataclasses import replace

import torch
from torch import Tensor

from solvers import SemiLinear
from solvers.methods.exponential import ExponentialMultistep

from ..comparing.bench import Bench
from ..metrics import energy, energy_distance
from ..reverse.reverse import Reverse
from ..runs.plan import Plan
from .student import columns

SAMPLES, ITERATIONS = 1024, 30
LEAST = 1e-8  # of the largest column's square, in their inner products


@torch.no_grad()
def closing(bench: Bench, plan: Plan) -> tuple[Plan, float]:
    r"""Returns a plan with another last step, and the energy distance of its samples from the data of the bench.

    Arguments:
        bench: The model and the data. More samples are drawn from its seed.
        plan: A plan with learned numbers.
    """

    assert bench.data is not None
    reverse, parts = _last(bench, plan)
    data = reverse.enter(bench.data.to(parts), reverse.to_time(_clock(plan)[-1]))
    y, flat = data.flatten(1).double().cpu(), parts.flatten(1, -2).double().cpu()
    base = flat[..., 0] + flat[..., 1]
    start = torch.tensor(plan.additions[-1], dtype=torch.float64)
    squares = torch.einsum("bcj,bck->jk", flat, flat) / base.numel()
    squares += LEAST * squares.diagonal().max() * torch.eye(len(start), dtype=squares.dtype)
    # steps of one length then move samples alike
    way = torch.linalg.inv(torch.linalg.cholesky(squares)).T
    moved = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.LBFGS([moved], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    @torch.enable_grad()
    def loss() -> Tensor:
        optimizer.zero_grad()
        value = energy(base + flat @ (start + way @ moved), y)
        value.backward()
        return value

    optimizer.step(loss)
    numbers = start + way @ moved.detach()
    best = replace(plan, additions=(*plan.additions[:-1], tuple(numbers.tolist())))
    return best, float(energy(base + flat @ numbers, y))


def distance(bench: Bench, plan: Plan) -> float:
    r"""Returns the energy distance of a plan's samples from the data, for the same noise."""

    assert bench.data is not None
    return energy_distance(bench.resized(SAMPLES).run(plan=plan).x, bench.data)


def _clock(plan: Plan) -> Tensor:
    assert plan.noise_levels is not None
    return -torch.tensor(plan.noise_levels, dtype=torch.float64).log()


def _last(bench: Bench, plan: Plan) -> tuple[Reverse, Tensor]:
    r"""The problem, and what the numbers of the last step multiply, with shape (B, *, k)."""

    solver = plan.solver
    assert isinstance(solver, ExponentialMultistep)
    many = bench.resized(SAMPLES)
    reverse = Reverse(many.model, SemiLinear, 0.0, "log_snr", solver.form)
    size, noise = bench.options.get("batch_size") or SAMPLES, many.start()
    parts = []
    for rows in torch.arange(SAMPLES).split(size):
        some = reverse.rows(rows)
        problem, clock = some.problem(), _clock(plan)
        assert isinstance(problem, SemiLinear)
        X = some.enter(noise[rows.to(noise.device)], reverse.to_time(clock[0]))
        steps, memory = solver.plan(problem, clock[:-1], clock[1:], X), None
        for step in steps[:-1]:
            X, memory = solver.step(step, X, memory, None)[:2]
        values = (steps[-1].field(X), *(memory.values if memory else ()))
        s, t = clock[-2:, None]
        parts.append(torch.stack(columns(problem.linear, s, t, X, values), -1))
    return reverse, torch.cat(parts)
