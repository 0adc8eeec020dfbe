import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import solvers
from solvers import SemiLinear, solve
from solvers.exponential import adams, midpoint, phi

EXPONENTIAL = [n for n in solvers.available() if solvers.get(n).solves is SemiLinear]


@given(k=st.integers(1, 5), z=st.floats(-30, 30))
def test_phi_is_its_integral(k: int, z: float) -> None:
    nodes, weights = np.polynomial.legendre.leggauss(60)
    theta = (nodes + 1) / 2
    integral = (weights / 2 * np.exp(z * (1 - theta)) * theta ** (k - 1)).sum() / math.factorial(
        k - 1
    )
    assert phi(k, torch.tensor(z)).item() == pytest.approx(integral, rel=1e-9)


@given(z=st.floats(-3, 3).filter(lambda z: abs(z) > 1e-3), r=st.floats(0.3, 3))
def test_adams_integrates_polynomials_through_its_nodes(z: float, r: float) -> None:
    nodes = torch.tensor([[0.0, -r, -1.5 * r]])
    weights = adams(nodes, torch.tensor([z]))[0]
    theta, gauss = map(torch.from_numpy, np.polynomial.legendre.leggauss(40))
    theta = (theta + 1) / 2
    for power in range(3):
        integral = (gauss / 2 * -z * torch.exp(z * (1 - theta)) * theta**power).sum()
        assert torch.allclose((weights * nodes[0] ** power).sum(), integral, rtol=1e-8, atol=1e-10)


@given(h=st.floats(0.05, 2), ratio=st.floats(0.3, 3))
def test_midpoint_is_dpm_solver_pp_2m_as_published(h: float, ratio: float) -> None:
    # Lu et al. (2022), algorithm 2: -(e^{-h} - 1) ((1 + 1/2r) D_i - D_{i-1}/2r)
    weights = midpoint(torch.tensor([[0.0, -ratio]]), torch.tensor([-h]))[0]
    gain = -math.expm1(-h)
    want = torch.tensor([gain * (1 + 1 / (2 * ratio)), -gain / (2 * ratio)])
    assert torch.allclose(weights, want)


@pytest.mark.parametrize("name", EXPONENTIAL)
@pytest.mark.parametrize("rate", [-50.0, -1.0, 1.0])
def test_linear_problems_are_exact_at_any_step_count(name: str, rate: float) -> None:
    problem = SemiLinear(lambda t, x: torch.full_like(x, 0.3), rate)
    x = solve(problem, torch.ones(1, 3), torch.tensor([0.0, 0.2, 0.9, 1.0]), name).x
    assert torch.allclose(x, torch.full((1, 3), 0.3 + 0.7 * math.exp(rate)))
