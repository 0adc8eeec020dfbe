r"""Training takes data in many forms, says what is wrong with it before the first step, and splits it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import scoresde as ss
from scoresde.training.batches import OfDataset, Stream
from scoresde.training.data import Form, source_of

X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).clamp(-2.5, 2.5)
LABEL = torch.arange(40) % 3


class Net(nn.Module):
    r"""A small network of two numbers with three labels, and none."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.classes = classes
        self.layer, self.label = nn.Linear(3, 2), nn.Embedding(classes + 1, 2)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        out = self.layer(torch.cat([x, t[:, None]], 1))
        return out if label is None else out + self.label(label)


class Blind(Net):
    r"""A network that is told the noise level, and does not listen."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return super().forward(x, 0 * t, label)


class Wide(Net):
    r"""A network whose output has another shape than the data."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return super().forward(x, t, label).repeat(1, 2)


class Shifted(Dataset[Any]):
    r"""Data with an augmentation that is drawn anew in each step."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        shift = torch.rand(1) + float(np.random.rand())  # noqa: NPY002, as augmentations do
        return {"x": X[index] + shift, "label": LABEL[index]}


class Flowing(IterableDataset[Any]):
    r"""Data that comes one by one."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(X)


def net(kind: type[Net] = Net) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind()


def weights(data: Any, **options: Any) -> Tensor:
    r"""All weights after a short training."""

    said: dict[str, Any] = {"steps": 3, "batch_size": 8, "validation": 0.25, "assessed": False}
    trained = ss.train(net(), data, **{**said, **options})
    return torch.cat([p.flatten() for p in trained.model.parameters()])


# ---- forms


def test_the_same_data_in_other_forms_gives_the_same_model(tmp_path: Path) -> None:
    named = {"x": X.numpy(), "label": LABEL.numpy()}
    np.savez(tmp_path / "data.npz", **named)
    np.save(tmp_path / "data.npy", X.numpy())
    wanted = weights(named)
    assert torch.equal(weights(X, label=LABEL), wanted)
    assert torch.equal(weights(X.tolist(), label=LABEL.tolist()), wanted)
    assert torch.equal(weights(tmp_path / "data.npz"), wanted)
    assert torch.equal(weights(str(tmp_path / "data.npy")), weights(X))
    pairs = TensorDataset(X, LABEL)
    assert torch.equal(weights(pairs), wanted)
    assert torch.equal(weights(DataLoader(pairs, batch_size=5, shuffle=True)), wanted)
    assert not torch.equal(weights(X), wanted)


def trained_on(data: object, transform: object, **options: Any) -> Any:
    model = ss.NetworkScore(net(), ss.EDM(), "edm", shape=(2,))
    model.transform = transform  # type: ignore[assignment]
    said: dict[str, Any] = {"steps": 3, "batch_size": 8, "validation": 0.25, "assessed": False}
    return ss.train(model, data, **{**said, **options})


def test_data_in_units_of_the_user_is_trained_on_and_held_out_as_states() -> None:
    x = X.double()
    plain = trained_on(x, None)
    units = trained_on(20 + 4 * x, ss.Standardized(mean=20.0, std=4.0))
    kept = trained_on(
        20 + 4 * x[8:], ss.Standardized(mean=20.0, std=4.0), validation=20 + 4 * x[:8]
    )
    apart = trained_on(x[8:], None, validation=x[:8])
    assert units.history[-1]["validation"] == pytest.approx(
        plain.history[-1]["validation"], rel=1e-5
    )
    assert kept.history[-1]["validation"] == pytest.approx(
        apart.history[-1]["validation"], rel=1e-5
    )
    both = torch.complex(x[:, :1], x[:, 1:])
    turned = trained_on(both, ss.ComplexPairs())
    assert turned.history == plain.history


def test_pairs_of_a_dataset_are_states_too() -> None:
    pairs = [{"x": 20 + 4 * x, "z": 20 + 4 * z} for x, z in zip(X, X.flip(0), strict=True)]
    memory = {"x": X, "z": X.flip(0)}
    units = trained_on(pairs_of(pairs), ss.Standardized(mean=20.0, std=4.0), coupling="paired")
    plain = trained_on(memory, None, coupling="paired")
    assert units.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=1e-4)


def pairs_of(samples: list[dict[str, Tensor]]) -> Dataset[Any]:
    class Pairs(Dataset[Any]):
        def __len__(self) -> int:
            return len(samples)

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return samples[index]

    return Pairs()


def test_a_range_is_in_units_of_the_user() -> None:
    unit = ss.Standardized(mean=20.0, std=4.0)
    trained_on(20 + 4 * X, unit, low=10.0, high=30.0)
    with pytest.raises(ValueError, match="must lie between low=20 and high=30"):
        trained_on(20 + 4 * X, unit, low=20.0, high=30.0)
    with pytest.raises(ValueError, match=r"on levels \(bins=16\) has no noise yet"):
        trained_on((X > 0).to(torch.uint8), unit, bins=16)


class Still(nn.Module):
    r"""The velocity 0, for data that is its own partner."""

    def __init__(self) -> None:
        super().__init__()
        self.speed = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.speed * t[:, None] * x


def test_a_flow_of_pairs_leads_from_z_to_x_by_default() -> None:
    pairs = {"x": X, "z": X}
    options: dict[str, Any] = {"steps": 1, "batch_size": 8, "validation": 0}
    made = ss.train(Still(), pairs, coupling="paired", predicts="velocity", lr=1e-9, **options)
    assert torch.allclose(ss.decode(made.model, X).x, X, atol=1e-6)
    assert isinstance(made.model.process, ss.Interpolant)
    assert isinstance(ss.train(net(), X, coupling="ot", **options).model.process, ss.EDM)


def test_augmentations_do_not_depend_on_who_loads() -> None:
    state = torch.get_rng_state()
    here = weights(Shifted())
    workers = weights(DataLoader(Shifted(), batch_size=5, num_workers=2))
    assert torch.equal(here, workers)
    assert torch.equal(torch.get_rng_state(), state)


class Random(Dataset[Any]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Tensor:
        return torch.rand(1)


def test_augmentations_are_drawn_anew_in_each_step() -> None:
    index = torch.arange(3)
    first, second, again = (
        next(OfDataset(Random()).batches([(step, index)], seed=1)).x for step in (0, 1, 0)
    )
    assert torch.equal(first, again)
    assert len(torch.cat([first, second]).unique()) == 6


def test_a_resumed_stream_goes_on_where_it_was() -> None:
    batches = [torch.full((2, 1), float(k)) for k in range(3)]
    asked = [(step, torch.arange(2)) for step in (4, 5, 6)]
    found = [float(one.x[0]) for one in Stream(batches).batches(asked, seed=0)]
    assert found == [1.0, 2.0, 0.0]  # of steps 4, 5 and 6 of passes of three


def test_streams_are_taken_as_they_come() -> None:
    seen: list[Tensor] = []

    def loss(model: Any, x: Tensor, log_snr: Tensor, z: Tensor) -> Tensor:
        seen.append(x)
        return model.denoise(x, torch.ones(len(x))).square().mean(1)

    ss.train(net(), DataLoader(Flowing(), batch_size=16), loss=loss, steps=4, validation=0)
    assert torch.equal(torch.cat(seen), torch.cat([X, X[:16]]))  # in three batches, and anew


def test_folders_of_images_are_bytes_with_their_folders_as_labels(tmp_path: Path) -> None:
    pixels = np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4)
    for i, one in enumerate(pixels):
        place = tmp_path / ("b" if i % 2 else "a")
        place.mkdir(exist_ok=True)
        Image.fromarray(one).save(place / f"{i}.png")
    source, form, words = source_of(tmp_path, {}, Form())
    found = source.some(torch.arange(6))
    assert found.condition["label"].tolist() == [0, 0, 0, 1, 1, 1]
    assert words.endswith("labelled a, b")
    assert form.bins == 256
    wanted = torch.from_numpy(pixels[[0, 2, 4, 1, 3, 5]]).double()[:, None] / 127.5 - 1
    torch.testing.assert_close(found.x, wanted, rtol=0, atol=1e-12)
    Image.fromarray(np.zeros((4, 5), dtype=np.uint8)).save(tmp_path / "a" / "9.png")
    with pytest.raises(
        ValueError, match=r"must have one size, but 0.png has 4 x 4 pixels and 9.png has 5 x 4"
    ):
        source_of(tmp_path, {}, Form())


def test_data_on_levels_fills_its_bins_anew_in_each_step() -> None:
    seen: list[Tensor] = []

    def loss(model: Any, x: Tensor, log_snr: Tensor, z: Tensor) -> Tensor:
        seen.append(x)
        return model.denoise(x, torch.ones(len(x))).square().mean(1)

    whole = torch.tensor([[0, 4], [2, 1]]).repeat(20, 1)
    ss.train(net(), whole, bins=5, loss=loss, steps=30, batch_size=40, validation=0)
    x = torch.cat(seen)
    level = ((x + 1) / 0.5).round()  # levels are half a unit apart, from -1 on
    inside = (x + 1) / 0.5 - level
    assert {tuple(row) for row in level.tolist()} == {(0.0, 4.0), (2.0, 1.0)}
    assert len(x.unique()) == x.numel()
    assert float(inside.var()) == pytest.approx(1 / 12, rel=0.05)


def test_held_out_samples_are_not_trained_on() -> None:
    seen: list[Tensor] = []

    def loss(model: Any, x: Tensor, log_snr: Tensor, z: Tensor) -> Tensor:
        (seen if model.network.training else held).append(x)
        return model.denoise(x, torch.ones(len(x))).square().mean(1)

    held: list[Tensor] = []
    trained = ss.train(net(), X, loss=loss, steps=10, every=10, batch_size=15, validation=0.25)
    mine, theirs = ({tuple(row) for row in torch.cat(x).tolist()} for x in (seen, held))
    assert len(mine) == 30
    assert len(theirs) == 10
    assert not mine & theirs
    assert (trained.card["data"]["samples"], trained.card["data"]["held out"]) == (30, 10)


# ---- what is refused


def nan_rows() -> Tensor:
    x = X.clone()
    x[[3, 7]] = torch.nan
    return x


BAD: list[tuple[str, Any, dict[str, Any], str]] = [
    ("NaN", nan_rows(), {}, r"data must be finite, but has NaN or infinite entries in rows \[3, 7\]"),
    ("integers", X.long(), {}, r"data must hold floating-point numbers, but holds torch.int64; .* pass bins="),
    ("range", X, {"low": -2.0, "high": 1.0}, r"data must lie between low=-2 and high=1, but in rows \["),
    ("ends", X, {"low": 2.0, "high": 1.0}, "low must be below high, but they are 2 and 1"),
    ("levels", X, {"bins": 256}, "data must l"),
    ("shape", X[:, 0], {}, r"data must have shape \(B, \*\)"),
    ("few", X[:20], {"validation": 0.1}, "validation=0.1 holds out 2 of the 20 samples, but 8 must be held out"),
    ("share", X, {"validation": 1.0}, "validation must be the share of the data"),
    ("label", {"x": X, "label": LABEL - 1}, {}, r"label must be at least 0, but is -1 in rows \[0, 3"),
    ("labels", {"x": X, "label": LABEL + 1}, {}, r"label must lie in \[0, 2\] for this network, but is up to 3"),
    ("count", {"x": X, "label": LABEL[:5]}, {}, "label must have one entry for each of the 40 samples"),
    ("pairs", {"x": X, "z": X}, {}, "data has pairs z, which coupling='independent' does not use"),
    ("no pairs", X, {"coupling": "paired"}, "coupling='paired' needs the other half"),
    ("pair", {"x": X, "z": X[:, :1]}, {"coupling": "paired"}, "z must have the shape of data"),
    ("entry", {"y": X}, {}, "data must have an entry 'x', but has: y"),
    ("held", X, {"validation": X[:, :1]}, r"validation must have samples of shape \(2,\), as data"),
    ("held labels", {"x": X, "label": LABEL}, {"validation": X}, "validation must have the entries of data"),
    ("held NaN", X, {"validation": nan_rows()}, r"validation must be finite, but has NaN .* in rows \[3, 7\]"),
    ("file", "none.npz", {}, "there is no file none.npz"),
    ("ending", "none.txt", {}, "data must be an npz or npy file, or a folder of images"),
    ("dropped", X, {"dropped": 0.5}, "dropped=0.5 has no effect, since the data has no conditions"),
    ("null", {"x": X, "label": LABEL}, {"null": {"lable": 0}}, "null has 'lable', which is no condition of data"),
    ("no null", {"x": X, "label": LABEL}, {"dropped": 0.5, "null": {}}, "needs the value of 'label'"),
    ("patience", X, {"patience": 3, "validation": 0}, "patience=3 has no effect without held-out data"),
    ("device", X, {"accelerate": True, "device": "cpu"}, "device= has no effect with accelerate=True"),
    ("null", {"x": X, "label": LABEL}, {"dropped": 0.5, "null": {"a": 0}}, "null has 'a', which is no condition"),
    ("unknown", {"x": X, "other": X}, {}, "data has the condition 'other', which Net does not take"),
    ("loss", X, {"loss": "none"}, "loss must be one of 'denoising'"),
    ("ema", X, {"ema": 0.5}, "ema must be the width of an average"),
    ("steps", X, {"steps": 0}, "steps must be at least 1, but is 0"),
    ("lr", X, {"lr": 0.0}, "lr must be positive"),
    ("predicts", X, {"predicts": "x"}, "predicts must be one of 'data'"),
    ("stream", DataLoader(Flowing(), batch_size=8), {"validation": 0.5}, "data is a stream, of which no samples"),
    ("board", X, {"tensorboard": True}, "tensorboard=True needs out="),
    ("condition", TensorDataset(X), {"label": LABEL}, "label= has no effect on a dataset"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "options", "words"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_what_does_not_fit_is_said_before_the_first_step(
    data: Any, options: dict[str, Any], words: str
) -> None:
    network = net()
    before = [p.clone() for p in network.parameters()]
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=words):
        ss.train(network, data, **{"validation": 0.25, "steps": 2, **options})
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (net(Blind), "the output of Blind does not depend on the time"),
        (net(Wide), "shape"),
        (nn.Identity(), "model must have weights to train, but Identity has none"),
        (lambda x, t: x, "model must be a ScoreModel, a Module or a text"),
        (
            ss.GaussianOracle(torch.zeros(2), 1.0),
            "model must be a network, a NetworkScore, the name",
        ),
        (ss.NetworkScore(lambda x, t: x, ss.EDM(), "noise"), "model must hold a module"),
        ("Net", "model must be the name of a network, one of"),
    ],
)
def test_networks_that_cannot_learn_are_refused(network: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        ss.train(network, X, validation=0, steps=2)


def test_networks_that_begin_at_zero_are_asked_with_other_weights() -> None:
    network = net()
    for weight in network.parameters():
        nn.init.zeros_(weight)
    ss.train(network, X, validation=0, steps=1)


def test_data_that_is_bad_on_the_way_is_named() -> None:
    class Seldom(Shifted):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            found = super().__getitem__(index)
            return {
                **found,
                "x": torch.full((2,), torch.inf) if found["x"][0] > 2.8 else found["x"],
            }

    words = r"data must be finite, but has NaN or infinite entries in samples \[\d+(, \d+)*\]\."
    with pytest.raises(ValueError, match=words):
        ss.train(net(), Seldom(), validation=0, steps=50, batch_size=8)
