r"""Gradients with respect to start, weights and conditions, by every way there is."""

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
import solvers

from .cases import gaussian, mixture

NATIVE = [
    "ddim",
    "dpmpp_2m",
    "unipc",
    "dpm_3",
    "heun",
    "ipndm",
    "moment_2",
    "ancestral",
    "sra1",
    "dpmpp_sde",
]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2).double()

    def forward(self, x: Tensor, t: Tensor, shift: Tensor) -> Tensor:
        return torch.tanh(self.layer(torch.cat([x, t[:, None]], 1))) + shift


def model_and_inputs() -> tuple[ss.NetworkScore, Tensor, Tensor]:
    torch.manual_seed(0)
    model = ss.NetworkScore(Network(), ss.VP(), "data", conditions=("shift",), shape=(2,))
    model.moments = ss.moments(torch.randn(50, 2, dtype=torch.float64))
    z = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    return model, z, torch.randn(3, 2, dtype=torch.float64, requires_grad=True)


def gradients(solver: str, grad: str, **options: object) -> list[Tensor]:
    model, z, shift = model_and_inputs()
    s = ss.decode(model, z, solver=solver, shift=shift, grad=grad, **options)
    inputs = [z, shift, *model.parameters()]
    return list(torch.autograd.grad(s.x.square().sum(), inputs))


@pytest.mark.parametrize("solver", NATIVE)
def test_gradients_are_those_of_finite_differences(solver: str) -> None:
    oracle = mixture(ss.VP())

    def run(z: Tensor) -> Tensor:
        return ss.decode(oracle, z, solver=solver, steps=3, grad="backprop").x

    z = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (z,), atol=1e-6)


def test_gradients_of_the_latent_and_of_tolerances() -> None:
    oracle = gaussian(ss.EDM())

    def run(x: Tensor) -> Tensor:
        return ss.encode(oracle, x, rtol=1e-9, atol=1e-9, grad="backprop").x

    x = oracle.data(2).double().requires_grad_()
    jacobian = torch.autograd.functional.jacobian(lambda x: run(x).sum(0), x)
    start, stop = oracle.process.start_of("encoding"), oracle.process.t_max
    want = torch.autograd.functional.jacobian(lambda x: oracle.flow(x, start, stop).sum(0), x)
    assert torch.allclose(jacobian, want, rtol=1e-5)


@pytest.mark.parametrize(
    "solver",
    [
        *NATIVE,
        "em",
        "torchdiffeq/rk4",
        *(n for n in solvers.available() if n.startswith("torchsde/")),
    ],
)
def test_checkpointing_changes_memory_alone(solver: str) -> None:
    whole, small = (gradients(solver, way, steps=5) for way in ("backprop", "checkpoint"))
    for a, b in zip(whole, small, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    assert max(a.abs().max() for a in whole) > 0


@pytest.mark.parametrize("solver", ["exponential", "dopri5", "torchdiffeq/dopri5"])
def test_checkpointing_under_tolerances(solver: str) -> None:
    options = {"rtol": 1e-4, "atol": 1e-4}
    whole, small = (gradients(solver, way, **options) for way in ("backprop", "checkpoint"))
    for a, b in zip(whole, small, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_the_adjoint_of_torchdiffeq() -> None:
    options = {"rtol": 1e-8, "atol": 1e-8, "clock": "log_snr"}
    back = gradients("torchdiffeq/dopri5", "backprop", **options)
    adjoint = gradients("torchdiffeq/dopri5", "adjoint", **options)
    for a, b in zip(back, adjoint, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_checkpointing_keeps_less() -> None:
    def kept(grad: str) -> int:
        sizes: list[int] = []
        model, z, shift = model_and_inputs()

        def pack(x: Tensor) -> Tensor:
            sizes.append(x.numel())
            return x

        ss.decode(model, z, steps=1, shift=shift, grad=grad)  # which checks the model's derivative
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            ss.decode(model, z, solver="dpmpp_2m", steps=10, shift=shift, grad=grad)
        return sum(sizes)

    assert kept("checkpoint") < 0.5 * kept("backprop")


def test_without_asking_there_are_none() -> None:
    model, z, shift = model_and_inputs()
    assert not ss.decode(model, z, steps=2, shift=shift).x.requires_grad


def test_ways_without_effect_are_refused() -> None:
    oracle = gaussian(ss.VP())
    with pytest.raises(ValueError, match="grad='adjoint' is for the methods of torchdiffeq"):
        ss.sample(oracle, 2, steps=2, grad="adjoint")
    with pytest.raises(ValueError, match="grad must be 'none', 'backprop'"):
        ss.sample(oracle, 2, steps=2, grad="all")
    with pytest.raises(ValueError, match="has no adjoint"):
        problem = ss.probability_flow(oracle)
        solvers.solve(problem, torch.ones(1, 2), torch.tensor([1.0, 0.5]), "heun", grad="adjoint")
