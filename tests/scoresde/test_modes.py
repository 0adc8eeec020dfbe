r"""Modes of densities, against those that Newton's method finds from the density in closed form."""

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.likelihood import ascent

from .cases import PROCESSES

MEANS = torch.tensor([[-3.0, 0.0], [3.0, 0.5], [0.0, 4.0]], dtype=torch.float64)
APART = ss.MixtureOracle(MEANS, 0.4)
NEAR = ss.MixtureOracle(
    torch.tensor([[0.0, 0.0], [1.5, 0.5]], dtype=torch.float64),
    torch.tensor([0.5, 0.7]),
    torch.tensor([0.4, 0.6]),
)
SKEW = ss.MixtureOracle(
    torch.tensor([[0.0], [2.0]], dtype=torch.float64), torch.tensor([0.3, 1.5]), process=ss.VP()
)
STRICT = {"tolerance": 1e-14}


def newton(oracle: ss.Oracle, x: Tensor, t_min: float) -> Tensor:
    r"""The mode near a point that is already close, from derivatives of the known density."""

    def negative(y: Tensor) -> Tensor:
        return -oracle.log_density(y[None], t_min)[0]

    found = []
    for y in x.clone():
        for _ in range(20):
            slope, bend = torch.func.grad(negative)(y), torch.func.hessian(negative)(y)
            assert (torch.linalg.eigvalsh(bend) > 0).all()
            y = y - torch.linalg.solve(bend, slope)
        found.append(y)
    return torch.stack(found)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
def test_the_mode_of_a_gaussian_is_its_mean(process: ss.Process) -> None:
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    turn = torch.linalg.qr(torch.tensor([[1.0, 2, 3], [0, 1, 4], [5, 6, 0]]).double())[0]
    covariance = turn @ torch.diag(torch.tensor([1.0, 0.1, 0.01]).double()) @ turn.T
    oracle = ss.GaussianOracle(mean, covariance, process)
    modes = ss.find_modes(oracle, oracle.data(6), **STRICT)
    assert modes.converged.all()
    assert (modes.x - mean).abs().max() < 1e-6
    assert modes.gradient.max() < 1e-4


@pytest.mark.parametrize(
    "oracle",
    [
        pytest.param(APART, id="apart", marks=pytest.mark.slow),
        pytest.param(NEAR, id="near", marks=pytest.mark.slow),
        pytest.param(SKEW, id="skew"),
    ],
)
def test_modes_are_those_of_the_known_density(oracle: ss.Oracle) -> None:
    x = oracle.data(40, seed=1)
    modes = ss.find_modes(oracle, x, **STRICT)
    assert modes.converged.all()
    assert (modes.x - newton(oracle, modes.x, modes.t_min)).abs().max() < 1e-6
    before, after = (oracle.log_density(y, modes.t_min) for y in (x.double(), modes.x))
    assert (after >= before).all()
    assert modes.calls.max() < 120


def test_starts_near_each_component_find_all_three_modes() -> None:
    modes = ss.find_modes(APART, MEANS + 0.3, density=True)
    assert (modes.x - MEANS).norm(dim=1).max() < 1e-3
    assert modes.density is not None
    want = APART.log_density(modes.x, modes.t_min)
    assert torch.allclose(modes.density.nats, want, atol=modes.density.total.max().item())


def test_the_image_of_the_mode_of_the_prior_is_not_a_mode() -> None:
    mode = ss.find_modes(SKEW, torch.zeros(1, 1), **STRICT)
    image = ss.decode(SKEW, torch.zeros(1, 1).double(), rtol=1e-6, atol=1e-6).x
    assert mode.x.item() == pytest.approx(0.0, abs=0.05)
    assert image.item() > 0.2
    high, low = (SKEW.log_density(y.double(), mode.t_min).item() for y in (mode.x, image))
    assert high > low + 0.2


def test_a_condition_chooses_the_mode() -> None:
    label = torch.tensor([0, 1, 2])
    modes = ss.find_modes(APART, torch.zeros(3, 2), label=label)
    assert modes.converged.all()
    assert (modes.x - MEANS).abs().max() < 1e-3


def test_rows_do_not_depend_on_their_batch() -> None:
    x = NEAR.data(7, seed=2)
    whole = ss.find_modes(NEAR, x)
    assert len(whole.calls.unique()) > 1
    for parts in (
        ss.find_modes(NEAR, x, batch_size=3).x,
        ss.find_modes(NEAR, x.flip(0)).x.flip(0),
        torch.cat([ss.find_modes(NEAR, one[None]).x for one in x]),
    ):
        assert torch.allclose(parts, whole.x, atol=1e-9)


def test_a_saddle_point_is_left() -> None:
    pair = ss.MixtureOracle(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).double(), 0.3)
    modes = ss.find_modes(pair, torch.zeros(1, 2))
    assert modes.converged.all()
    assert abs(modes.x[0, 0].item()) == pytest.approx(1.0, abs=1e-3)


def test_a_row_that_does_not_converge_says_so() -> None:
    few = ss.find_modes(APART, APART.data(4), max_calls=3)
    assert not few.converged.any()
    assert few.calls.tolist() == [3] * 4

    def flat(x: Tensor, rows: Tensor) -> Tensor:  # a ridge
        return torch.stack([-x[:, 0], torch.zeros_like(x[:, 1])], 1)

    end = ascent.ascend(flat, torch.ones(3, 2).double(), 1.0, 1e-10, 0.0, 400)
    assert not end.converged.any()
    assert end.calls.max() < 400
    assert end.x[:, 0].abs().max() < 1e-3


def test_a_network_in_single_precision_converges_as_far_as_its_rounding() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return self.scale * (0.3 + 0.25 / (0.25 + sigma[:, None] ** 2) * (x - 0.3))

    model = ss.NetworkScore(Net(), ss.EDM(), predicts="data", data_std=0.5)
    modes = ss.find_modes(model, torch.randn(5, 2, generator=torch.Generator().manual_seed(0)))
    assert modes.converged.all()
    assert (modes.x - 0.3).abs().max() < 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"max_calls": 0}, "max_calls must be at least 1"),
        ({"t_min": 1e9}, "t_min"),
        ({"steps": 5}, "steps= has no effect on a search for modes"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input_is_told(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ss.find_modes(APART, torch.zeros(1, 2), **options)


def test_modes_are_in_the_units_of_the_data() -> None:
    mean, std = torch.tensor([5.0, -1.0]).double(), torch.tensor([2.0, 0.1]).double()
    oracle = ss.GaussianOracle(torch.tensor([0.5, 0.25]).double(), 0.4)
    oracle.transform = ss.Standardized(mean, std)
    x = torch.tensor([[6.0, -1.1], [4.0, -0.9]]).double()
    early = ss.find_modes(oracle, x, max_calls=1)
    states = (x - mean) / std
    want = (torch.tensor([0.5, 0.25]).double() - states) / (0.4**2 + early.t_min**2) / std
    assert torch.allclose(early.x, x)
    assert torch.allclose(early.slope, want)
    modes = ss.find_modes(oracle, x, density=True)
    assert torch.allclose(modes.x, mean + std * torch.tensor([0.5, 0.25]).double(), atol=1e-4)
    assert modes.density is not None
    assert torch.allclose(modes.density.nats, ss.log_likelihood(oracle, modes.x).nats)
