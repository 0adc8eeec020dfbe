r"""The weights of exponential methods are integrals, and published coefficients."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import solvers
from solvers import ConstantRate, SemiLinear, solve
from solvers.methods.interaction import Interaction
from solvers.methods.two_step import TwoStep
from solvers.methods.weights import Rule, edge, even, exact, halved, midpoint, weights

from .problems import Decay

EXPONENTIAL = [
    n
    for n in solvers.available()
    if solvers.get(n).solves is SemiLinear and not solvers.get(n).stochastic
    if not isinstance(solvers.get(n), Interaction | TwoStep)  # whose sums amplify where N is stiff
]
rates = st.floats(-4, 4).filter(lambda a: abs(a) > 1e-3)


def weigh(
    rate: float, h: float, nodes: list[float], rule: Rule = exact, **settings: str
) -> Tensor:
    times = torch.tensor([0.7]), torch.tensor([0.7 + h])
    places = 0.7 + h * torch.tensor([nodes])
    linear = Decay(rate)
    return weights(linear, *times, linear.decay(*times), places, rule, **settings)[0, :, 0]


def integral(f: object, rate: float, h: float) -> float:
    points, gauss = np.polynomial.legendre.leggauss(60)
    theta = (points + 1) / 2
    weight = -rate * h * np.exp(rate * h * (1 - theta))
    return float((gauss / 2 * weight * f(theta)).sum())  # type: ignore[operator]


@given(rate=rates, h=st.floats(0.05, 3), r=st.floats(0.3, 3))
def test_exact_weights_integrate_polynomials_through_their_nodes(
    rate: float, h: float, r: float
) -> None:
    nodes = [0.0, -r, -1.5 * r]
    w = weigh(rate, h, nodes)
    for power in range(3):
        found = (w * torch.tensor(nodes) ** power).sum().item()
        want = integral(lambda theta, p=power: theta**p, rate, h)
        assert found == pytest.approx(want, rel=1e-8, abs=1e-10)


@given(rate=rates, h=st.floats(0.05, 1))
def test_the_variable_is_where_the_polynomial_is_one(rate: float, h: float) -> None:
    # the values of 2 - 3 exp(-t), which is linear in the noise level, are integrated exactly
    nodes = [0.0, -0.8]
    w = weigh(rate, h, nodes, variable="noise_level")
    values = 2 - 3 * torch.exp(-(0.7 + h * torch.tensor(nodes)))
    want = integral(lambda theta: 2 - 3 * np.exp(-(0.7 + h * theta)), rate, h)
    assert (w * values).sum().item() == pytest.approx(want, rel=1e-8, abs=1e-10)


@given(h=st.floats(0.05, 2), r=st.floats(0.3, 3))
def test_midpoint_is_dpm_solver_pp_2m_as_published(h: float, r: float) -> None:
    # Lu et al. (2022), algorithm 2: -(e^{-h} - 1) ((1 + 1/2r) D_i - D_{i-1}/2r)
    gain = -math.expm1(-h)
    want = torch.tensor([gain * (1 + 1 / (2 * r)), -gain / (2 * r)])
    assert torch.allclose(weigh(-1.0, h, [0.0, -r], midpoint), want)


@given(h=st.floats(0.05, 2), r=st.floats(0.3, 3))
def test_edge_is_unip_2_with_bh1(h: float, r: float) -> None:
    # Zhao et al. (2023), B(h) = h: -(e^{-h} - 1) D_i + h/2 (D_i - D_{i-1}) / r
    gain = -math.expm1(-h)
    want = torch.tensor([gain + h / (2 * r), -h / (2 * r)])
    assert torch.allclose(weigh(-1.0, h, [0.0, -r], edge), want)


@given(h=st.floats(0.05, 2), r0=st.floats(0.3, 2), r1=st.floats(0.3, 2))
def test_halved_is_dpm_solver_pp_3m_as_published(h: float, r0: float, r1: float) -> None:
    w = weigh(-1.0, h, [0.0, -r0, -r0 - r1], halved)
    phi1 = math.expm1(-h)
    phi2 = phi1 / h + 1
    phi3 = phi2 / h - 1 / 2
    d = torch.eye(3)  # the update is linear in the values, so each unit vector gives a weight
    first, second = (d[0] - d[1]) / r0, (d[1] - d[2]) / r1
    slope = first + r0 / (r0 + r1) * (first - second)
    want = -phi1 * d[0] + phi2 * slope - phi3 * (first - second) / (r0 + r1)
    assert torch.allclose(w, want, atol=1e-12)
    right = -phi1 * d[0] + phi2 * slope - phi3 * 2 * (first - second) / (r0 + r1)
    assert torch.allclose(weigh(-1.0, h, [0.0, -r0, -r0 - r1]), right, atol=1e-12)


def test_even_has_the_coefficients_of_adams_and_bashforth() -> None:
    w = weigh(-1.0, 0.5, [0.0, -0.7, -1.1, -3.0], even)
    want = torch.tensor([55.0, -59.0, 37.0, -9.0]) / 24
    assert torch.allclose(w / -math.expm1(-0.5), want)


@pytest.mark.parametrize("name", EXPONENTIAL)
@pytest.mark.parametrize("rate", [-50.0, -1.0, 1.0])
def test_linear_problems_are_exact_at_any_step_count(name: str, rate: float) -> None:
    problem = SemiLinear(lambda t, x: torch.full_like(x, 0.3), Decay(rate))
    times, options = torch.tensor([0.0, 0.2, 0.9, 1.0]), {}
    if not solvers.get(name).fixed:
        times, options = times[[0, -1]], {"rtol": 1e-3}
    x = solve(problem, torch.ones(1, 3), times, name, **options).x
    assert torch.allclose(x, torch.full((1, 3), 0.3 + 0.7 * math.exp(rate)))


@pytest.mark.parametrize("values", [0, 5])
def test_the_number_of_values_is_bounded(values: int) -> None:
    with pytest.raises(ValueError, match=r"values of .* must be a whole number in \[1, 4\]"):
        solvers.ExponentialMultistep("adams", values)


def test_a_variable_that_the_problem_lacks_is_refused() -> None:
    problem = SemiLinear(lambda t, x: x, ConstantRate(-1.0))
    with pytest.raises(ValueError, match="no variable 'noise_level', only 'clock'"):
        solve(problem, torch.ones(1, 1), torch.tensor([0.0, 1.0]), "lms_2")


def test_the_last_steps_can_have_fewer_values() -> None:
    # with one value in each of two steps, Adams of order 2 is DDIM
    problem = SemiLinear(lambda t, x: torch.sin(3 * x + t), Decay(-1.0))
    times, x = torch.tensor([0.0, 0.4, 1.0]), torch.ones(1, 1)
    lower = solvers.get("exponential_2:lower_order_final=True")
    assert torch.equal(*(solve(problem, x, times, s).x for s in (lower, "ddim")))


def test_the_first_value_can_come_from_a_simple_model() -> None:
    problem = SemiLinear(
        lambda t, x: torch.sin(3 * x + t), Decay(-1.0), guess=lambda t, x: [lambda x: 0 * x + 0.2]
    )
    times, x = torch.tensor([0.0, 0.4]), torch.ones(1, 1)
    s = solve(problem, x, times, solvers.get("ddim:analytic_first=True"))
    assert s.calls.tolist() == [0]
    assert torch.allclose(s.x, torch.tensor(0.2 + 0.8 * math.exp(-0.4)))


def test_churn_raises_the_noise_level_by_its_share() -> None:
    # Karras et al. (2022), algorithm 2: gamma = S / N, where N counts the last denoising
    solver = solvers.get("edm_churn:amount=2:low=0.1:high=0.6")
    problem = SemiLinear(lambda t, x: x, Decay(-1.0))
    t = torch.linspace(0.0, 2.5, 6)
    plan = solver.plan(problem, t[:-1], t[1:], torch.ones(1, 2))  # type: ignore[attr-defined]
    levels, gamma = torch.exp(-t[:-1]), 2 / 6
    churned = (levels >= 0.1) & (levels <= 0.6)
    want = 1.003 * levels * math.sqrt((1 + gamma) ** 2 - 1) * churned
    assert torch.allclose(torch.tensor([step.noise_std for step in plan]), want)


def test_additions_are_in_units_of_the_weight_of_one_value() -> None:
    # for dx = -x + N with N = x^2: W = 1 - exp(-h), and the second step knows two values
    problem = SemiLinear(lambda t, x: x * x, Decay(-1.0))
    times, x = torch.tensor([0.0, 0.4, 1.0]), torch.tensor([[1.5]])
    rows = ((0.1, -0.2), (0.0, 0.3, 0.5))
    s = solve(problem, x, times, replace(solvers.get("ddim"), additions=rows))
    y = 1.1 * math.exp(-0.4) * x + 0.8 * (1 - math.exp(-0.4)) * x**2
    want = math.exp(-0.6) * y + (1 - math.exp(-0.6)) * (1.3 * y**2 + 0.5 * x**2)
    assert torch.allclose(s.x, want)
    assert s.calls.tolist() == [2]


@pytest.mark.parametrize("name", ["ddim", "dpmpp_3m", "ipndm_4", "deis_3", "moment_2"])
def test_additions_of_zero_change_no_bit(name: str) -> None:
    problem = SemiLinear(lambda t, x: torch.sin(3 * x + t), Decay(-1.0))
    times, x = torch.linspace(0, 2, 7), torch.linspace(-1, 1, 5)[:, None]
    base = solvers.get(name)
    rows = tuple((0.0,) * (i + 2) for i in range(6))
    same = (solve(problem, x, times, s).x for s in (base, replace(base, additions=rows)))
    assert torch.equal(*same)


def test_additions_that_do_not_fit_get_a_sentence() -> None:
    problem, x = SemiLinear(lambda t, x: x, Decay(-1.0)), torch.ones(1, 1)
    solver = replace(solvers.get("ddim"), additions=((0.0, 0.0),))
    with pytest.raises(ValueError, match="are for 1 steps, so they cannot be used for 2 steps"):
        solve(problem, x, torch.tensor([0.0, 0.4, 1.0]), solver)
    with pytest.raises(ValueError, match="additions of step 1 must be 3 numbers, .*, but are 2"):
        replace(solver, additions=((0.0, 0.0), (0.0, 0.0)))
    with pytest.raises(ValueError, match="without corrector, but unipc has one"):
        replace(solvers.get("unipc"), additions=((0.0, 0.0),))
