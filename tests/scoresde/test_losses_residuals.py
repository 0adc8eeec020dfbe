r"""Residuals as regularisers: they lead models with one free number to the one that is a score."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde import losses

TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
LOSSES = {
    "martingale": losses.martingale,
    "flow": partial(losses.flow_consistency, probes=None),
    "fokker_planck": partial(losses.fokker_planck, probes=None),
}


class Normal(ss.ScoreModel):
    r"""Normal data of the standard deviation 1, with a wrong drift of its variance and a wrong turn."""

    def __init__(self, drift: float, turn: float) -> None:
        super().__init__()
        self.process, self.shape = ss.EDM(), (2,)
        self.drift = torch.nn.Parameter(torch.tensor(drift).double())
        self.turn = torch.nn.Parameter(torch.tensor(turn).double())

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        u = t.to(x)[:, None] ** 2
        spread = u + 1 + self.drift * u
        return x - u / spread * (x + self.turn * x @ TURN.T)


def batch(count: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    x, z = torch.randn(2, count, 2, generator=draw, dtype=torch.float64)
    return x, 1.0 - 2 * torch.rand(count, generator=draw, dtype=torch.float64), z


def values(model: ss.ScoreModel) -> dict[str, float]:
    return {name: float(loss(model, *batch()).mean().detach()) for name, loss in LOSSES.items()}


def test_regularisers_are_the_squares_of_the_report() -> None:
    r"""At one level and the same noise; by probes of two entries, sums are exact here."""

    model, level = Normal(0.2, 0.3), 0.8
    x, _, z = batch()
    u, B = torch.tensor(level**2).double(), -(torch.eye(2) + 0.3 * TURN)
    at = 1.2 * u + 1
    X = x + level * z
    slope = -1.2 * B / at**2
    want = {
        "flow": -2 * u**2 * (slope - (B + B.T) @ B / 2 / at**2),
        "fokker_planck": -2 * u**2 * (slope - B.T @ B / at**2),
        "martingale": -2 * u**2 * (slope - B @ B / at**2),
    }
    log_snr = -torch.tensor(level).double().log().expand(len(x))
    for name, gap in want.items():
        found = LOSSES[name](model, x, log_snr, z, **({"step": 1e-3} if "mart" in name else {}))
        expected = (X @ gap.T).square().mean(1)
        assert torch.allclose(found, expected, rtol=5e-3 if "mart" in name else 1e-6)


@pytest.mark.parametrize(("name", "below", "above"), [
    ("martingale", 0.0, 0.1), ("flow", 0.004, 0.004), ("fokker_planck", 0.004, 0.004),
])  # fmt: skip
def test_levels_at_the_ends_are_moved_to_where_there_is_room(
    name: str, below: float, above: float
) -> None:
    r"""By a step of the continuation, or by two of the derivative, with the same x and z."""

    model = Normal(0.2, 0.3)
    x, _, z = batch(4)
    ends = model.process.log_snr(torch.tensor([model.process.t_max, model.process.t_min]).double())
    for end, moved in zip(ends, (ends[0] + below, ends[1] - above), strict=True):
        found, want = (LOSSES[name](model, x, at.expand(4), z) for at in (end, moved))
        assert torch.allclose(found, want, rtol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_each_leads_a_drifting_variance_to_the_known_score(name: str) -> None:
    model = Normal(0.4, 0.0)
    found = descend(model, [model.drift], partial(LOSSES[name]))
    assert abs(found["drift"]) < 2e-3
    assert max(values(model).values()) < 1e-5


def test_a_turn_is_removed_only_where_it_is_seen() -> None:
    r"""The flow has none for any constant turn of this form; the Fokker-Planck equation leads it to 0."""

    turned = Normal(0.0, 0.4)
    assert values(turned)["flow"] < 1e-15
    assert descend(turned, [turned.turn], LOSSES["fokker_planck"])["turn"] == pytest.approx(
        0.0, abs=2e-3
    )
    assert max(values(turned).values()) < 1e-5
    both = Normal(0.3, 0.3)
    found = descend(both, [both.drift, both.turn], LOSSES["martingale"], steps=250)
    assert abs(found["drift"]) + abs(found["turn"]) < 5e-3


def descend(
    model: Normal,
    weights: list[torch.nn.Parameter],
    loss: Callable[..., Tensor],
    steps: int = 120,
) -> dict[str, float]:
    optimizer = torch.optim.LBFGS(
        weights, lr=0.5, max_iter=steps // 4, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(model, *batch()).mean()
        value.backward()
        return value

    optimizer.step(closure)
    return {name: float(value.detach()) for name, value in model.named_parameters()}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_differences(name: str) -> None:
    model, loss = Normal(0.3, 0.2), LOSSES[name]
    loss(model, *batch()).mean().backward()
    for weight in (model.drift, model.turn):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight += sign * 1e-4
                ends.append(float(loss(model, *batch()).mean()))
                weight -= sign * 1e-4
        assert float(weight.grad) == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-4, abs=1e-7)


def test_exact_mixtures_have_none_by_probes_or_continuations() -> None:
    model = ss.MixtureOracle(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]).double(), 0.5)
    x, log_snr, z = batch(400)
    label = torch.zeros(1, dtype=torch.long)
    for loss in (losses.flow_consistency, losses.fokker_planck):
        found = loss(model, x, log_snr, z, probes=2, seed=1).detach()
        assert abs(float(found.mean())) < 4 * float(found.std()) / 20
        exact = loss(model, x, log_snr, z, probes=None, label=label)
        assert float(exact.max()) < 1e-14
    found = losses.martingale(model, x, log_snr, z, step=0.02, seed=1)
    assert abs(float(found.mean())) < 4 * float(found.std()) / 20
    again = losses.martingale(model, x, log_snr, z, step=0.02, seed=2)
    assert not torch.equal(found, again)


def test_levels_beyond_the_domain_are_its_ends() -> None:
    model = Normal(0.3, 0.2)
    x, _, z = batch(2)
    for name, loss in LOSSES.items():
        far, end = (loss(model, x, torch.full((2,), c), z).double() for c in (1e3, 1e6))
        assert torch.equal(far, end), name


def test_bad_input_is_named() -> None:
    model = Normal(0.0, 0.0)
    x, log_snr, z = batch(4)
    with pytest.raises(ValueError, match=r"z must have the shape of x, \(4, 2\)"):
        losses.martingale(model, x, log_snr, z[:, :1])
    with pytest.raises(ValueError, match=r"log_snr must have shape \(4,\)"):
        losses.fokker_planck(model, x, log_snr[:3], z)
    with pytest.raises(ValueError, match="probes"):
        losses.flow_consistency(model, x, log_snr, z, probes=1)
    with pytest.raises(ValueError, match="draws"):
        losses.martingale(model, x, log_snr, z, draws=1)
    model.learned = "bridge"
    with pytest.raises(ValueError, match="learns a 'bridge'"):
        losses.martingale(model, x, log_snr, z)
