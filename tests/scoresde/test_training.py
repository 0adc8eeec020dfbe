r"""Training finds what is known by derivation: scores, weights of averages, draws, and when to stop."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde.training import draws
from scoresde.training.averages import averaged, combination, exponent, profile
from scoresde.training.schedule import factor

D64 = torch.float64


class Normal(nn.Module):
    r"""The denoised data of normal data whose mean and deviation are the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(2, dtype=D64))
        self.log_std = nn.Parameter(torch.zeros((), dtype=D64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        share = 1 / (1 + (t / self.log_std.exp()) ** 2)
        return self.mean + share[:, None] * (x - self.mean)


class Table(nn.Module):
    r"""A flexible network of one number and the noise level, with labels if it has classes."""

    def __init__(self, width: int = 8, classes: int = 0) -> None:
        super().__init__()
        self.classes = classes
        self.first = nn.Linear(2, width)
        self.label = nn.Embedding(classes + 1, width)
        self.last = nn.Linear(width, 1)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.first(torch.stack([x[:, 0], t], 1))
        none = torch.full(x.shape[:1], self.classes, device=x.device)
        return self.last(torch.tanh(h + self.label(none if label is None else label)))


ss.register_network(Table)


@pytest.fixture
def numbers() -> Tensor:
    return torch.randn(64, 1, generator=torch.Generator().manual_seed(0))


def table(classes: int = 0) -> Table:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Table(classes=classes)


def test_the_score_of_normal_data_is_found() -> None:
    x = 3 + 0.7 * torch.randn(400, 2, generator=torch.Generator().manual_seed(0), dtype=D64)
    trained = ss.train(
        Normal(), x, predicts="data", steps=300, lr=0.1, batch_size=100, validation=0
    )
    network: Any = trained.model.network
    mean = x.mean(0)  # the best denoiser is linear in x, with these moments at every noise level
    std = (x - mean).square().mean().sqrt()
    torch.testing.assert_close(network.mean, mean, rtol=0, atol=0.02)
    torch.testing.assert_close(network.log_std.exp(), std, rtol=0.02, atol=0)
    known = ss.GaussianOracle(mean, std, ss.EDM())
    at, t = torch.randn(5, 2, dtype=D64), torch.tensor(0.8, dtype=D64)
    torch.testing.assert_close(trained.model.score(at, t), known.score(at, t), rtol=0.1, atol=0.1)


# ---- averages


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.25, 0.28])
def test_width_of_a_profile_is_its_standard_deviation(width: float) -> None:
    power = exponent(width)
    closed = math.sqrt(power + 1) / ((power + 2) * math.sqrt(power + 3))
    assert closed == pytest.approx(width)
    n = 20_000
    weights = profile(width, n, torch.arange(n + 1, dtype=D64))
    at = torch.arange(n, dtype=D64) + 0.5
    mean = (weights * at).sum()
    assert float((weights * (at - mean) ** 2).sum().sqrt() / n) == pytest.approx(width, rel=1e-3)
    assert float(weights.sum()) == pytest.approx(1)


def test_exponents_are_those_of_the_paper() -> None:
    assert exponent(0.05) == pytest.approx(16.97, abs=0.01)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.01)


@pytest.mark.parametrize("width", [0.05, 0.2])
def test_weights_of_steps_in_an_average_are_the_closed_form(width: float) -> None:
    steps, network = 30, nn.Linear(30, 1, bias=False, dtype=D64)
    mean, power = averaged(network, width), exponent(width) + 1
    for k in range(steps):
        with torch.no_grad():
            network.weight.copy_(torch.eye(steps, dtype=D64)[k : k + 1])
        mean.update_parameters(network)
    k = torch.arange(1, steps + 1, dtype=D64)
    closed = (k**power - (k - 1) ** power) / steps**power
    found: Tensor = mean.module.weight[0]
    torch.testing.assert_close(found.detach(), closed, rtol=1e-10, atol=1e-15)


def test_a_width_that_was_tracked_is_reconstructed_exactly() -> None:
    kept = [(width, step) for width in (0.1, 0.05) for step in (40, 80, 120)]
    shares = combination(kept, 0.1, 120)
    wanted = [1.0 if one == (0.1, 120) else 0.0 for one in kept]
    torch.testing.assert_close(shares, torch.tensor(wanted, dtype=D64), rtol=0, atol=1e-7)


@pytest.mark.parametrize("width", [0.07, 0.15, 0.2])
def test_reconstructed_weights_of_steps_are_near_those_of_the_width(width: float) -> None:
    n = 400
    kept = [(w, step) for w in (0.1, 0.05) for step in range(25, n + 1, 25)]
    edges = torch.arange(n + 1, dtype=D64)
    known = torch.stack([profile(w, step, edges) for w, step in kept], 1)
    missed = known @ combination(kept, width, n) - profile(width, n, edges)
    unlike = profile(0.1, n, edges) - profile(width, n, edges)
    assert float(missed.abs().sum()) < 0.05 * float(unlike.abs().sum())


# ---- what is drawn


@pytest.mark.parametrize("size", [1, 7, 64])
def test_each_even_interval_of_shares_has_one(size: int) -> None:
    orders = set()
    for step in range(20):
        found = draws.shares(3, step, size, torch.arange(size))
        assert (found * size).floor().long().sort().values.tolist() == list(range(size))
        orders.add(tuple((found * size).floor().tolist()))
    assert len(orders) > 10 or size == 1  # so that the order of the samples does not matter


def test_shares_within_their_intervals_are_even() -> None:
    inside = torch.cat([draws.shares(0, s, 8, torch.arange(8)) * 8 % 1 for s in range(500)])
    expected = torch.linspace(0, 1, 4001, dtype=D64)[1:]
    assert float((inside.sort().values - expected).abs().max()) < 1.63 / math.sqrt(4000)  # 1 %


def test_every_epoch_has_each_sample_once_in_an_order_of_its_own() -> None:
    count, size = 10, 4
    found = torch.cat([draws.indices(0, s, size, torch.arange(size), count) for s in range(10)])
    epochs = found.split(count)
    assert all(sorted(epoch.tolist()) == list(range(count)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == len(epochs)


@pytest.mark.parametrize("world", [2, 3])
def test_devices_draw_together_what_one_draws(world: int) -> None:
    size, like = 6, torch.zeros(6, 2)
    whole = draws.noise(1, 5, torch.arange(size), like)
    shares = draws.shares(1, 5, size, torch.arange(size))
    for rank in range(world):
        place = draws.rows_of_batch(size, rank, world)
        assert torch.equal(draws.noise(1, 5, place, like[place]), whole[place])
        assert torch.equal(draws.shares(1, 5, size, place), shares[place])


def test_learning_rates_are_the_closed_forms() -> None:
    cosine, root = factor("cosine", 100, 10), factor("inverse_sqrt", 100, 10)
    assert cosine(4) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.04)) / 2)
    assert cosine(50) == pytest.approx(0.5)
    assert root(39) == pytest.approx(0.5)
    assert [factor("constant", 10, 0)(s) for s in range(3)] == [1.0] * 3


# ---- steps


class Seen:
    r"""A loss that keeps what it was given."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Tensor]] = []

    def __call__(
        self, model: Any, x: Tensor, log_snr: Tensor, z: Tensor, **condition: Tensor
    ) -> Tensor:
        if model.network.training:
            self.calls.append({"x": x, "log_snr": log_snr, "z": z, **condition})
        return (
            model.denoise(x, torch.full((len(x),), 0.5), **condition).square().flatten(1).mean(1)
        )


def test_a_share_of_conditions_is_dropped(numbers: Tensor) -> None:
    seen, label = Seen(), torch.arange(64) % 3
    trained = ss.train(
        table(classes=3), {"x": numbers, "label": label}, loss=seen, steps=100, batch_size=64,
        dropped=0.3, validation=0,
    )  # fmt: skip
    labels = torch.cat([call["label"] for call in seen.calls])
    share = float((labels == 3).double().mean())
    assert share == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / len(labels)))
    order = torch.cat([call["x"] for call in seen.calls])[:, 0]
    own = {float(x): int(c) for x, c in zip(numbers[:, 0], label, strict=True)}
    kept = labels != 3
    assert labels[kept].tolist() == [own[float(x)] for x in order[kept]]
    assert trained.model.conditions == ("label",)


def test_pairs_come_as_they_were_given(numbers: Tensor) -> None:
    seen = Seen()
    pairs = {"x": numbers, "z": 10 * numbers}
    made = ss.train(table(), pairs, loss=seen, coupling="paired", steps=2, validation=0)
    assert made.model.learned == "bridge"
    assert all(torch.equal(call["z"], 10 * call["x"]) for call in seen.calls)
    told = ss.train(table(), pairs, coupling="paired", learned="flow", steps=1, validation=0)
    assert told.model.learned == "flow"
    other = ss.train(
        table(), numbers, loss=seen, coupling="ot", steps=1, batch_size=64, validation=0
    )
    assert other.model.learned == "flow"
    x, z = (seen.calls[-1][name][:, 0] for name in ("x", "z"))
    assert torch.equal(x.argsort(), z.argsort())  # of one dimension, the pairing is by rank


def test_noise_is_paired_within_each_label(numbers: Tensor) -> None:
    seen, label = Seen(), torch.arange(64) % 3
    ss.train(
        table(classes=3), {"x": numbers, "label": label}, loss=seen, coupling="ot", dropped=0.0,
        steps=1, batch_size=64, validation=0,
    )  # fmt: skip
    x, z, own = (seen.calls[0][name] for name in ("x", "z", "label"))
    ranks = [(x[own == c, 0].argsort(), z[own == c, 0].argsort()) for c in range(3)]
    assert all(torch.equal(a, b) for a, b in ranks)
    assert not torch.equal(x[:, 0].argsort(), z[:, 0].argsort())


def test_weights_of_a_loss_are_trained_too(numbers: Tensor) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros(()))

        def forward(self, model: Any, x: Tensor, log_snr: Tensor, z: Tensor) -> Tensor:
            return (x[:, 0] ** 2 / self.log_scale.exp() + self.log_scale) + 0 * model.denoise(
                x, torch.ones(len(x))
            )[:, 0]

    loss = Scaled()
    ss.train(table(), numbers, loss=loss, steps=150, lr=0.05, batch_size=64, validation=0)
    assert loss.log_scale.exp().item() == pytest.approx(float(numbers.square().mean()), rel=0.02)


def test_half_precision_is_that_of_the_network_alone(numbers: Tensor) -> None:
    dtypes = set()

    class Told(Table):
        def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
            out = super().forward(x, t, label)
            dtypes.add((self.training, x.dtype, out.dtype))
            return out

    trained = ss.train(Told().float(), numbers, steps=2, precision="bfloat16", validation=0)
    assert (True, torch.float32, torch.bfloat16) in dtypes
    assert {p.dtype for p in trained.model.parameters()} == {torch.float32}


# ---- the end


def measured(loss: Any, model: Any, held: Tensor, levels: list[list[float]]) -> list[float]:
    r"""The loss of a model at noise levels, on the noise of validations."""

    z = draws.noise(0, -1, torch.arange(len(held)), held)
    found = [loss(model, held, torch.full((len(held),), -math.log(s)), z) for s, _ in levels]
    return [float(losses.mean()) for losses in found]


def test_a_training_that_overfits_stops_and_keeps_its_best(numbers: Tensor) -> None:
    few, others = numbers[:4], numbers[4:]

    def wrong_way(model: Any, x: Tensor, log_snr: Tensor, z: Tensor) -> Tensor:
        given = x + z * torch.exp(-log_snr)[:, None]
        planted = (
            x if model.network.training else 1.5 * x
        )  # what is learned is passed, and then left
        return (model.denoise(given, torch.exp(-log_snr)) - planted).square().flatten(1).mean(1)

    trained = ss.train(
        table(), few, loss=wrong_way, validation=others, steps=150, every=3, lr=0.02, batch_size=8,
        patience=3, assessed=False,
    )  # fmt: skip
    losses = [entry["validation"] for entry in trained.history]
    best = losses.index(min(losses))
    assert 0 < best < 40
    assert len(losses) == best + 1 + 3  # three validations without improvement, and no more
    assert trained.card["training"]["best step"] == (best + 1) * 3
    levels = trained.history[best]["levels"]
    again = measured(wrong_way, trained.model, others, levels)
    assert again == pytest.approx([loss for _, loss in levels])


def test_the_loss_by_noise_level_is_that_of_the_model(numbers: Tensor) -> None:
    held = numbers[:32] + 0.1
    trained = ss.train(table(), numbers, validation=held, steps=20, every=20, assessed=False)
    scale = trained.model.data_std

    def loss(model: Any, x: Tensor, log_snr: Tensor, z: Tensor) -> Tensor:
        level = torch.exp(-log_snr)[:, None]
        error = model.denoise(x + level * z, level[:, 0]) - x
        return ((level**-2 + scale**-2) * error.square()).mean(1)

    levels = trained.history[-1]["levels"]
    again = measured(loss, trained.model, held, levels)
    assert again == pytest.approx([loss for _, loss in levels])
    assert [level for level, _ in levels] == sorted(level for level, _ in levels)
    middle = 0.6065 * scale  # the median of the levels
    assert sum(level < middle for level, _ in levels) == 4


@pytest.mark.parametrize("share", [False, True])
def test_held_out_samples_are_of_all_parts_of_sorted_data(numbers: Tensor, share: bool) -> None:
    seen, line = [], torch.arange(1000.0)[:, None] / 1000

    def loss(model: Any, x: Tensor, log_snr: Tensor, z: Tensor) -> Tensor:
        if not model.network.training:
            seen.append(x[:, 0])
        return model.denoise(x, torch.ones(len(x)))[:, 0] ** 2

    data, validation = (line, 0.5) if share else (numbers, line)
    ss.train(table(), data, validation=validation, loss=loss, steps=1, assessed=False)
    found = seen[0].sort().values
    assert len(found.unique()) == 128
    expected = (torch.arange(128) + 0.5) / 128
    assert float((found - expected).abs().max()) < 1.63 / math.sqrt(128)  # of 1 %


@pytest.mark.parametrize(("count", "shared"), [(192, None), (150, 128 + 64 - 150)])
def test_scored_samples_that_chose_the_weights_are_counted(
    numbers: Tensor, count: int, shared: int | None
) -> None:
    held = torch.randn(count, 1, generator=torch.Generator().manual_seed(1))
    trained = ss.train(table(), numbers, validation=held, patience=2, steps=4, every=2)
    metrics = trained.card["metrics"]
    assert metrics.get("samples that chose the weights") == shared
    assert metrics["log-likelihood in nats, samples"] == 64


def test_a_loss_that_is_not_finite_is_named(numbers: Tensor) -> None:
    def bad(model: Any, x: Tensor, log_snr: Tensor, z: Tensor) -> Tensor:
        return model.denoise(x, torch.ones(len(x)))[:, 0] * (float("nan") if count() > 7 else 1.0)

    calls: list[int] = []

    def count() -> int:
        calls.append(1)
        return len(calls)

    with pytest.raises(ss.training.TrainingError, match="the loss is nan at step 8, with the"):
        ss.train(table(), numbers, loss=bad, steps=20, validation=0)
