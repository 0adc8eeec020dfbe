"""Adams methods that iterate: a sample does not depend on those whose iteration would take longer."""

import pytest
import torch
from torch import Tensor

import solvers


def drift(t: Tensor, x: Tensor) -> Tensor:
    return -torch.cos(3 * t) * x * x.abs()


@pytest.mark.parametrize("name", ["explicit_adams", "implicit_adams", "fixed_adams"])
def test_a_row_is_what_it_is_alone(name: str) -> None:
    x = torch.tensor([[0.01], [0.5], [4.0]], dtype=torch.float64)
    times = torch.linspace(0, 1, 13, dtype=torch.float64)
    solver = solvers.get(f"torchdiffeq/{name}")
    problem = solvers.ODE(drift)
    whole = solvers.solve(problem, x, times, solver)
    for row in range(3):
        alone = solvers.solve(problem, x[row : row + 1], times, solver)
        assert torch.equal(whole.x[row], alone.x[0])
        assert int(whole.calls[row]) == int(alone.calls[0])
