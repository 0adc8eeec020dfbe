r"""Chains of symbols: rows of a batch, options and files keep what belongs to them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.chains import Absorbing, Chain, ChainModel, TableOracle, Uniform

TABLE = torch.tensor([[0.3, 0.05, 0.1], [0.05, 0.2, 0.0], [0.1, 0.05, 0.15]], dtype=torch.float64)
ORACLE = TableOracle(TABLE, Absorbing(3, ss.Cosine()))
X = torch.tensor([[0, 1], [2, 2], [1, 1], [0, 0], [2, 0]])
MORE, LESS = 0.95, 0.05  # probabilities of the second symbol in the two orders


def two_orders(x: Tensor, t: Tensor) -> Tensor:
    r"""Logits of two symbols: the first is fair, and the second depends on whether the first is shown."""

    second = torch.where(x[:, :1] == 2, LESS, MORE)
    p = torch.cat([torch.full_like(second, 0.5), second], 1)
    return torch.stack([p.log(), (1 - p).log()], -1)


@pytest.mark.parametrize("solver", ["analytic", "first_hitting"])
def test_each_row_keeps_its_own_known_symbols(solver: str) -> None:
    known = torch.tensor([[3, 1], [2, 3], [3, 3], [0, 3], [3, 0]])
    options = {"steps": 4} if solver == "analytic" else {}
    whole = ss.sample(ORACLE, 5, solver=solver, known=known, seed=1, **options)
    parts = ss.sample(ORACLE, 5, solver=solver, known=known, seed=1, batch_size=2, **options)
    assert torch.equal(whole.x, parts.x)
    assert torch.equal(torch.where(known < 3, known, whole.x), whole.x)


def test_inpainting_keeps_the_known_symbols_of_each_row() -> None:
    known = torch.tensor([[1, 0], [0, 1], [0, 0], [1, 1], [0, 1]])
    drawn = ss.inpaint(ORACLE, X, known, steps=3, seed=1).x
    shown = torch.where(known.bool(), X, 3)
    assert torch.equal(drawn, ss.sample(ORACLE, 5, known=shown, steps=3, seed=1).x)


def test_likelihoods_and_losses_of_a_row_depend_on_its_index_alone() -> None:
    model = ChainModel(two_orders, Absorbing(2), "symbols", length=2)
    x, t = X.clamp(max=1), torch.full((5,), 0.9)
    whole = ss.log_likelihood(model, x, draws=3)
    assert torch.equal(
        whole.nats[3:], ss.log_likelihood(model, x[3:], draws=3, first_index=3).nats
    )
    assert torch.equal(whole.nats, ss.log_likelihood(model, x, draws=3, batch_size=2).nats)
    loss = ss.chains.loss(model, x, t)
    assert torch.equal(loss[3:], ss.chains.loss(model, x[3:], t[3:], first_index=3))
    same = ss.chains.loss(model, x[:1].expand(40, -1), t[:1].expand(40))
    assert len(same.unique()) > 1  # the noise of rows differs


def test_the_standard_error_of_a_likelihood_is_that_of_its_mean_probability() -> None:
    model = ChainModel(two_orders, Absorbing(2), "symbols", length=2)
    found = ss.log_likelihood(model, torch.tensor([[0, 0]]), draws=100)
    mean = (MORE + LESS) / 4  # each order has the chance 1/2
    known = (MORE - LESS) / (MORE + LESS) / 10
    torch.testing.assert_close(
        found.stderr, torch.tensor([known], dtype=torch.float64), rtol=0.25, atol=0
    )
    assert abs(float(found.nats.exp()) / mean - 1) < 4 * known


def test_calls_of_a_bound_are_those_of_the_network() -> None:
    asked = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        asked.append(len(x))
        return torch.zeros(*x.shape, 3)

    for chain in (
        Absorbing(3),
        Absorbing(3, ss.Cosine()),
    ):  # without and with noise at its first time
        asked.clear()
        bound = ss.elbo(ChainModel(network, chain, "symbols", length=2), X, nodes=3, draws=2)
        assert sum(asked) == bound.calls * len(X)


def test_shares_of_a_grid_are_even_between_its_ends() -> None:
    s = ss.sample(ORACLE, 1, steps=4, grid="share", t_min=0.3)
    lost = ORACLE.chain.shares(s.times)[1]
    torch.testing.assert_close(lost, torch.linspace(1, float(lost[-1]), 5).double())
    assert float(s.times[-1]) == 0.3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_networks_get_symbols_and_times_of_their_dtype(dtype: torch.dtype) -> None:
    seen = set()

    class Network(torch.nn.Linear):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            seen.add((x.dtype, t.dtype))
            return super().forward(torch.nn.functional.one_hot(x, 4).to(t))

    model = ChainModel(Network(4, 3, dtype=dtype), Absorbing(3), "symbols", length=2)
    ss.sample(model, 2, steps=2)
    ss.sample(model, 2, solver="first_hitting")
    ss.elbo(model, X, nodes=2, draws=2)
    ss.log_likelihood(model, X, draws=2)
    ss.chains.loss(model, X)
    assert seen == {(torch.int64, dtype)}


class Network(torch.nn.Module):
    r"""Logits of independent symbols given a label."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.logits = torch.nn.Embedding(2, vocabulary)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return self.logits(label)[:, None].expand(*x.shape, -1)


@pytest.mark.parametrize(
    "chain",
    [
        Absorbing(3, t_min=0.1, t_max=0.8),
        Uniform(3, t_max=0.7),
        Absorbing(3, ss.Cosine(), t_max=0.9),
        Uniform(3, ss.Tabulated.from_betas(torch.linspace(1e-3, 0.2, 30)), t_max=25.0),
    ],
    ids=["masks", "uniform", "cosine", "table"],
)
def test_files_keep_times_schedules_and_what_is_predicted(tmp_path: Path, chain: Chain) -> None:
    predicts = "ratios" if isinstance(chain, Uniform) else "symbols"
    model = ChainModel(Network(3), chain, predicts, length=2, conditions=["label"])
    file = ss.save(
        model,
        tmp_path / "chain",
        {"network": {"settings": {"vocabulary": 3}}},
        dtype=torch.float32,
    )
    again = ss.load_chain(file, trust=True)
    assert again.chain == chain
    assert again.predicts == predicts
    label = torch.tensor([0, 1, 1, 0, 1])
    one, two = (ss.sample(m, 5, label=label, steps=4, seed=2).x for m in (model, again))
    assert torch.equal(one, two)
    one, two = (ss.elbo(m, X, label=label, nodes=2, draws=2).nats for m in (model, again))
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("verb", [ss.chains.elbo, ss.chains.log_likelihood, ss.chains.loss])
def test_indices_before_the_first_are_refused(verb: Callable[..., object]) -> None:
    model = ss.chains.TableOracle(torch.ones(3, 3) / 9, Absorbing(3))
    with pytest.raises(ValueError, match="first_index"):
        verb(model, X[:, :2] % 3, first_index=-1)
