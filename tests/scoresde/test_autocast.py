r"""An outer autocast reaches networks, and no arithmetic of solvers."""

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss

MIXTURE = ss.MixtureOracle(
    torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), 0.3, process=ss.VP()
)


class Exact(ss.ScoreModel):
    r"""A model in float32 whatever the context, so that only solvers can differ."""

    def __init__(self) -> None:
        super().__init__()
        self.resemble(MIXTURE)

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return MIXTURE.denoise(x, t)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "moment_2", "moment_belm", "anderson_ddim"])
def test_solvers_keep_the_dtype_of_the_state(solver: str) -> None:
    options = {"solver": solver, "steps": 6, "seed": 0}
    alone = ss.sample(Exact(), 8, **options).x
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ss.sample(Exact(), 8, **options).x, alone)


def test_likelihoods_and_latents_keep_it_too() -> None:
    x = MIXTURE.data(4)
    alone = ss.log_likelihood(Exact(), x).nats, ss.encode(Exact(), x, rtol=1e-3).x
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ss.log_likelihood(Exact(), x).nats, ss.encode(Exact(), x, rtol=1e-3).x
    assert all(torch.equal(a, b) for a, b in zip(alone, inside, strict=True))


@pytest.mark.parametrize("grad", ["none", "backprop", "checkpoint"])
def test_networks_are_called_in_it(grad: str) -> None:
    seen: list[tuple[bool, torch.dtype]] = []

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            out = self.linear(x)
            seen.append((torch.is_autocast_enabled("cpu"), out.dtype))
            return out

    model = ss.NetworkScore(Network().float(), ss.EDM(), "data", shape=(3,))
    z = model.process.prior_sample((2, 3), dtype=torch.float32).requires_grad_(grad != "none")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = ss.decode(model, z, steps=3, grad=grad, denoise=False)
    if grad != "none":
        made.x.sum().backward()
        assert z.grad is not None
    assert made.x.dtype == torch.float32
    assert set(seen) == {(True, torch.bfloat16)}
    assert not torch.is_autocast_enabled("cpu")


ORACLES: list[ss.Oracle] = [
    MIXTURE,
    ss.GaussianOracle(torch.ones(16), torch.eye(16) / 3 + 0.1),
    ss.KernelOracle(torch.randn(5, 16, generator=torch.Generator().manual_seed(1)), 0.3),
    ss.QuantileOracle(torch.randn(16, 2), torch.ones(16, 2), None, torch.linalg.qr(torch.randn(16, 16))[0]),
]  # fmt: skip


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: type(oracle).__name__)
def test_oracles_are_exact_inside_an_autocast(oracle: ss.Oracle) -> None:
    def asked() -> list[Tensor]:
        found = [
            getattr(oracle, name)(x, 0.5)
            for name in ("denoise", "score", "velocity", "noise", "log_prob")
        ]
        found += [oracle.log_density(x, 0.01), oracle.data(3)]
        return [*found, oracle.flow(x, 0.5, 0.1)] if hasattr(oracle, "flow") else found

    x = oracle.data(4)
    alone = asked()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = asked()
        assert (x @ x.T).dtype == torch.bfloat16  # the context itself is as it was
    assert all(torch.equal(a, b) for a, b in zip(alone, inside, strict=True))
