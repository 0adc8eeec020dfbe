r"""The weights of a plan, learned by gradients of the error through the solver.

Each weight of a multistep method, one per value and step, is multiplied by a separate factor, which starts at 1.
The loss is the mean error of samples, compared with those of the exact flow.

References:
    | S4S: Solving for a Diffusion Model Solver (Frankel et al., 2025), section 3, for the idea
    | https://arxiv.org/abs/2502.17423
"""

from dataclasses import replace

import torch
from torch import nn
from tqdm import tqdm

from solvers.methods.exponential import ExponentialMultistep

from ..comparing.bench import Bench
from ..comparing.reference import rms
from ..runs.plan import Plan

ITERATIONS, RATE, CLIP = 80, 0.01, 1.0


def learn(bench: Bench, plan: Plan, bar: tqdm) -> Plan:
    r"""Returns the plan with the best weights for the samples of the bench.

    Arguments:
        bench: The model and the training samples.
        plan: A plan with its own grid.
        bar: The progress bar.

    Raises:
        ValueError: If the solver of the plan has no weights to learn.
    """

    solver = plan.solver
    if not isinstance(solver, ExponentialMultistep) or plan.noise_levels is None:
        raise ValueError(f"learned=True is for multistep solvers, but {solver} is not one.")
    bar.total += ITERATIONS
    counts = solver.known(len(plan.noise_levels) - 1).tolist()
    scales = nn.Parameter(torch.ones(sum(counts), dtype=torch.float64))
    optimizer = torch.optim.Adam([scales], RATE)
    options, exact = plan.options_for(bench.model), bench.reference().x
    best, least = plan, torch.inf
    for _ in range(ITERATIONS):
        rows = tuple(row.unbind() for row in scales.split(counts))
        x = bench.run(**{**options, "solver": replace(solver, scales=rows)}, grad="backprop").x
        loss = rms(x, exact).mean()
        if loss < least:
            known = tuple(tuple(row.tolist()) for row in scales.detach().split(counts))
            best, least = replace(plan, scales=known), loss.item()
        scales.grad = torch.autograd.grad(loss, scales)[0]  # the network's own gradients are kept
        nn.utils.clip_grad_norm_([scales], CLIP)
        optimizer.step()
        bar.update()
    return best
