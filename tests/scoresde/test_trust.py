r"""Guidance through a network ends where its derivatives are errors; exact models have no such end."""

import math

import pytest
import torch
from torch import Tensor

import scoresde as ss
import solvers
from scoresde import guidance
from scoresde.guidance.trust import measured, trusted_level

from .cases import PROCESSES, gaussian, mixture

RATE, SLOPE = (
    40.0,
    0.1,
)  # an error of the values below 0.003, and one of the derivatives of about 0.07


class Rough(torch.nn.Module):
    r"""A network of exact noise but for a ripple: its values are right, its derivatives are not.

    Beyond what it was trained on it is as wrong as networks are.
    """

    def __init__(self, slope: float = SLOPE) -> None:
        super().__init__()
        self.slope, self.calls = torch.nn.Parameter(torch.tensor(slope).double()), 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        sigma = ss.VP().scales(t)[1][:, None]  # of data of deviation 1, E[z | x] = sigma x
        return sigma * x.clamp(-4, 4) + self.slope / RATE * torch.sin(RATE * x)


def rough(slope: float = SLOPE) -> ss.NetworkScore:
    return ss.NetworkScore(Rough(slope), ss.VP(), "noise", shape=(2,))


def loss(D: Tensor, target: Tensor) -> Tensor:
    return (D[:, 0] - target) ** 2


def total(x: Tensor) -> Tensor:
    return x.sum(1, keepdim=True)


def test_the_limit_is_where_errors_outgrow_the_data() -> None:
    r"""dD/dX = 1/(1 + s^2) - sigma slope cos: |V v| has the square 1 + (s^2 slope)^2 / 2 at high noise.

    It is twice that of the data, 1, at s^2 = sqrt(6) / slope; the ladder of levels is a little coarse.
    """

    x = torch.zeros(1, 2, dtype=torch.float64)
    for slope in (0.3, 0.1, 0.03, 0.003):
        level, want = trusted_level(rough(slope), x, 1), math.sqrt(math.sqrt(6) / slope)
        assert want / 2.2 < level < want * 1.3, (slope, level, want)
    assert trusted_level(rough(0.0), x, 1) == math.inf


@pytest.mark.slow
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("scale", [0.003, 1.0, 10.0])
def test_exact_functions_have_no_limit(process: str, scale: float) -> None:
    here = PROCESSES[process]
    means = torch.tensor([[1.2, 0.0], [-0.6, 1.0], [-0.6, -1.0]], dtype=torch.float64)
    oracle = ss.MixtureOracle(scale * means, 0.2 * scale, process=here)
    model = ss.NetworkScore(oracle.denoise, here, "data", shape=(2,))
    x = torch.zeros(1, 2, dtype=torch.float64)
    assert trusted_level(oracle, x, 1) == math.inf
    assert measured(model, x, 1).level == math.inf


@pytest.mark.slow
def test_the_covariance_of_the_data_is_found() -> None:
    found = measured(gaussian(ss.EDM()), torch.zeros(1, 2, dtype=torch.float64), 1)
    covariance = torch.tensor([[0.30, 0.10], [0.10, 0.20]], dtype=torch.float64)
    want = (covariance**2).sum().div(2).sqrt()  # of |C v|, v of length 1
    assert found.data == pytest.approx(float(want), rel=0.3)
    assert found.std == pytest.approx(0.5, rel=0.15)
    assert torch.allclose(found.sizes[:4], want, rtol=0.15)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (
            lambda m, top: guidance.universal(m, loss, 1.0, target=1.0, max_level=top),
            {"steps": 30},
        ),
        (
            lambda m, top: guidance.pseudoinverse(m, total, [[0.5]], noise=0.1, max_level=top),
            {"solver": "ancestral", "steps": 50},
        ),
        (
            lambda m, top: guidance.within(
                guidance.universal(m, loss, 5.0, target=1.0, max_level=top), m, (0.0, 40.0)
            ),
            {"solver": "ancestral", "steps": 50},
        ),
    ],
)
def test_guided_samples_stay_with_the_data(make, options) -> None:  # type: ignore[no-untyped-def]
    model = rough()
    s = ss.sample(make(model, None), 100, dtype=torch.float64, **options)
    assert s.ok
    assert s.x.square().mean().sqrt() < 2  # of data of deviation 1
    assert s.calls.tolist() == [options["steps"] + 1] * 100  # the check counts apart
    with pytest.raises(solvers.SolverError, match="10,000 times|NaN or infinite"):
        ss.sample(make(model, math.inf), 100, dtype=torch.float64, **options)


@pytest.mark.slow
def test_a_model_is_checked_once_and_again_when_it_is_trained() -> None:
    model = rough()
    x, t = torch.zeros(3, 2, dtype=torch.float64), torch.tensor(0.5)
    guided = guidance.universal(model, loss, 1.0, target=1.0)
    with solvers.counting() as counter:
        guided.denoise(x, t)
    assert (counter.total, counter.backward) == (1, 1)
    first = model.network.calls
    guidance.universal(model, loss, 2.0, target=0.0).denoise(x, t)
    guided.rows(torch.tensor([1])).denoise(x[:1], t)
    assert model.network.calls == first + 2
    with torch.no_grad():
        model.network.slope.mul_(0.1)
    before = trusted_level(rough(), x, 3)
    assert trusted_level(model, x, 3) > 2 * before
    assert model.network.calls > first + 2


@pytest.mark.slow
def test_above_the_limit_the_model_is_left_alone_row_by_row() -> None:
    model, x = mixture(ss.EDM()), torch.randn(4, 2, dtype=torch.float64)
    t = torch.tensor([0.5, 3.0, 1.0, 5.0], dtype=torch.float64)
    free = guidance.universal(model, loss, 0.7, target=1.0).denoise(x, t)
    guided = guidance.universal(model, loss, 0.7, target=1.0, max_level=2.0)
    assert torch.equal(guided.denoise(x, t)[::2], free[::2])
    assert torch.equal(guided.denoise(x, t)[1::2], model.denoise(x, t)[1::2])
    with solvers.counting() as counter:
        guided.denoise(x, torch.tensor(5.0))
    assert counter.backward == 0
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="max_level must be a"):
            guidance.universal(model, loss, 0.7, target=1.0, max_level=wrong)


@pytest.mark.slow
def test_a_network_that_detaches_is_named() -> None:
    oracle = mixture(ss.VP())
    cut = ss.NetworkScore(lambda x, t: oracle.denoise(x, t).detach(), ss.VP(), "data", shape=(2,))
    for top in (None, math.inf):
        guided = guidance.universal(cut, loss, 1.0, target=1.0, max_level=top)
        with pytest.raises(
            ValueError, match="needs the derivative of the model.*the network detaches"
        ):
            ss.sample(guided, 2, steps=3)


@pytest.mark.slow
def test_parts_of_a_guided_model_are_checked_one_by_one() -> None:
    model = rough()
    x = torch.zeros(1, 2, dtype=torch.float64)
    wide = guidance.autoguidance(model, rough(0.3), 3.0)
    assert trusted_level(wide, x, 1) == trusted_level(rough(0.3), x, 1)
    assert trusted_level(guidance.thresholded(model), x, 1) == trusted_level(model, x, 1)


@pytest.mark.slow
def test_twisted_samples_are_led_by_derivatives_that_hold() -> None:
    r"""p(y) of y = the first entry + noise of 0.3, for data of deviation 1: N(0.5 | 0, 1.09)."""

    def log_prob(D: Tensor, level: float, y: Tensor) -> Tensor:
        variance = 0.3**2 + level**2 / (1 + level**2)
        return -((y - D[:, 0]) ** 2) / (2 * variance) - math.log(2 * math.pi * variance) / 2

    s = ss.twisted_sample(rough(), log_prob, 500, steps=60, y=0.5)
    want = -(0.5**2) / (2 * 1.09) - math.log(2 * math.pi * 1.09) / 2
    assert s.log_normaliser == pytest.approx(want, abs=0.5)
    assert float(s.mean(lambda x: x)[0]) == pytest.approx(0.5 / 1.09, abs=0.15)
