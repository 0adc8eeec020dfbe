r"""Models of one's own: every sample gets what is its own, however rows are asked, or the model is refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde import guidance

from .cases import MEANS, mixture

SPREAD = 0.3  # the deviation of the data of each sample
TARGETS = torch.arange(4.0)
APART = {
    "batches": {"solver": "ddim", "steps": 5, "batch_size": 3},
    "tolerances": {"rtol": 1e-6, "atol": 1e-6},
    "blocks": {"solver": "lattice_heun", "steps": 5},
}


class Targets(ss.ScoreModel):
    r"""The exact model of normal data about a target of each sample."""

    process, data_scale, shape = ss.EDM(), 2.0, (1,)

    def __init__(self, targets: Tensor) -> None:
        super().__init__()
        self.targets = targets

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        share = (SPREAD**2 / (SPREAD**2 + t.to(x) ** 2)).reshape(-1, 1)
        own = self.targets.to(x)[: len(x), None]  # which would be others of a part of the batch
        return own + share * (x - own)


class Said(Targets):
    by_sample = ("targets",)


class ByHand(Targets):
    def rows(self, index: Tensor) -> ss.ScoreModel:
        return ByHand(self.targets[index])


class Halved(ss.ScoreModel):
    r"""A wrapper, as users write them."""

    def __init__(self, model: ss.ScoreModel) -> None:
        super().__init__()
        self.model = model
        self.resemble(model)

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.model.denoise(x, t, **condition) / 2


class Listed(Halved):
    r"""The same, that keeps its models in a list, a tuple and a dictionary."""

    def __init__(self, model: ss.ScoreModel) -> None:
        super().__init__(mixture(ss.EDM()))
        self.inside = [({"model": model}, "halved")]

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.inside[0][0]["model"].denoise(x, t, **condition) / 2


class Hidden(Halved):
    r"""The same, that keeps a function of the model."""

    def __init__(self, model: ss.ScoreModel) -> None:
        super().__init__(mixture(ss.EDM()))
        self.estimate = model.denoise

    def denoise(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        return self.estimate(x, t, **condition) / 2


@dataclass(frozen=True)
class Towards(guidance.Rule):
    r"""A share of the way towards a target of each sample."""

    share: float
    target: Tensor

    def __call__(self, denoised: Sequence[Tensor], noisy: guidance.Noisy) -> Tensor:
        return torch.lerp(denoised[0], self.target.expand_as(denoised[0]), self.share)


@dataclass(frozen=True)
class Leaning(guidance.Affine):
    r"""Guidance by a scale of each sample."""

    scales: Tensor
    roles = ("unconditional", "conditional")

    def weights(self, levels: Tensor) -> Tensor:
        w = self.scales.double().expand(len(levels), -1)
        return torch.stack([1 - w, w], -1)


@dataclass(frozen=True)
class Drawn(guidance.Pull):
    r"""Data weighted by exp(-|x - target|^2 / (2 width^2)), with the covariance of the model."""

    target: Tensor
    width: float

    def __call__(self, D: Tensor, known: guidance.Known) -> Tensor:
        return (self.target - D) / self.width**2


LABEL = torch.tensor([0, 1, 2, 1])


def conditioned() -> ss.ScoreModel:
    return mixture(ss.EDM()).given(label=LABEL)


OWN: dict[str, Callable[[], ss.ScoreModel]] = {
    "named": lambda: Said(TARGETS),
    "by hand": lambda: ByHand(TARGETS),
    "wrapper": lambda: Halved(conditioned()),
    "wrapper of a wrapper": lambda: Halved(Halved(conditioned())),
    "wrapper of what is named": lambda: Halved(Said(TARGETS)),
    "list": lambda: Listed(conditioned()),
    "rule": lambda: guidance.Guided([conditioned()], Towards(0.3, torch.randn(4, 2))),
    "rule of a wrapper": lambda: guidance.Guided([Halved(conditioned())], Towards(0.3, MEANS[:1])),
    "weights": lambda: guidance.Guided(
        [mixture(ss.EDM()), conditioned()], Leaning(torch.tensor([0.0, 2.0, 1.0, 1.5]))
    ),
    "pull": lambda: guidance.Guided([conditioned()], Drawn(torch.randn(4, 2), 2.0)),
}
SILENT: dict[str, tuple[Callable[[], ss.ScoreModel], str]] = {
    "tensor": (lambda: Targets(TARGETS), r"Targets holds .*\(targets\).*by_sample = "),
    "tensor inside": (lambda: Halved(Targets(TARGETS)), r"\(model.targets\)"),
    "function": (lambda: Hidden(conditioned()), r"Hidden holds .*\(estimate.bound\)"),
    "function of a tensor": (
        lambda: ss.NetworkScore(lambda x, t: 0.5 * x + TARGETS[: len(x), None], ss.EDM(), "data", shape=(1,)),
        r"NetworkScore holds .*\(network\).* by name, as a condition",
    ),
    "loss": (
        lambda: guidance.Guided([mixture(ss.EDM())], Sideways(lambda D: TARGETS[: len(D), None] + D)),
        r"Guided holds .*\(rule\)",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Sideways(guidance.Rule):
    way: Callable[[Tensor], Tensor]

    def __call__(self, denoised: Sequence[Tensor], noisy: guidance.Noisy) -> Tensor:
        return self.way(denoised[0])


@pytest.mark.parametrize("way", APART)
@pytest.mark.parametrize("name", OWN)
def test_every_sample_of_ones_own_model_gets_its_own(name: str, way: str) -> None:
    model, options = OWN[name](), APART[way]
    assert (
        model.rows(torch.tensor([2, 0]))
        .denoise(torch.ones(2, *model.shape), torch.tensor(0.7))
        .shape[0]
        == 2
    )
    if way == "blocks":
        x = 0.3 * torch.randn(4, *model.shape)
        z = ss.encode(model, x, **options)
        back = ss.decode(model, z, denoise=False)
        assert torch.allclose(back.x, x, atol=1e-12)
        return
    together = ss.sample(model, 4, seed=5, **options)
    for i in range(4):
        rows = torch.tensor([i])
        alone = ss.sample(model.rows(rows), 1, seed=5, first_index=i, **options)
        assert torch.allclose(alone.x[0], together.x[i], atol=1e-9)


def test_samples_are_about_their_own_targets() -> None:
    r"""The flow of normal data is known: x / alpha goes to m + (x - m) l / sqrt(l^2 + s^2)."""

    for model in (Said(TARGETS), ByHand(TARGETS)):
        for options in (
            {"solver": "ddim", "steps": 400, "batch_size": 2},
            {"rtol": 1e-7, "atol": 1e-7},
        ):
            z = ss.EDM().prior_sample((4, 1), seed=2)
            s = ss.decode(model, z, denoise=False, **options)
            last, first = float(s.times[-1]), float(s.times[0])
            ratio = ((SPREAD**2 + last**2) / (SPREAD**2 + first**2)) ** 0.5
            want = TARGETS[:, None] + ratio * (z - TARGETS[:, None])
            assert torch.allclose(s.x, want, atol=0.05 if "steps" in options else 1e-5)


def test_densities_and_latents_are_those_of_each_sample() -> None:
    x = TARGETS[:, None] + torch.tensor([[0.1], [-0.3], [0.2], [0.0]])
    for model in (Said(TARGETS), ByHand(TARGETS)):
        found = ss.log_likelihood(model, x, batch_size=3, rtol=1e-7, atol=1e-7)
        level = found.noise_level
        want = torch.distributions.Normal(TARGETS, (SPREAD**2 + level**2) ** 0.5).log_prob(x[:, 0])
        assert torch.allclose(
            found.nats, want, atol=0.02
        )  # of the prior, in which there is no data
        one = ss.log_likelihood(model.rows(torch.tensor([2])), x[2:3], rtol=1e-7, atol=1e-7)
        assert torch.allclose(found.nats[2:3], one.nats, atol=0.01)
        z = ss.encode(model, x, batch_size=3, rtol=1e-7, atol=1e-7)
        last, first = float(z.times[-1]), float(z.times[0])
        ratio = ((SPREAD**2 + last**2) / (SPREAD**2 + first**2)) ** 0.5
        want = TARGETS[:, None] + ratio * (x - TARGETS[:, None])
        assert torch.allclose(z.x, want, rtol=1e-5)


def test_rules_of_ones_own_are_their_formulas() -> None:
    r"""A pull towards normal weights makes normal data the product of both, for any covariance."""

    x, t, target = torch.randn(4, 2), torch.tensor(0.8), torch.randn(4, 2)
    free, bound = mixture(ss.EDM()), conditioned()
    D, other = bound.denoise(x, t), free.denoise(x, t)
    towards = guidance.Guided([bound], Towards(0.3, target))
    assert torch.allclose(towards.denoise(x, t), D + 0.3 * (target - D))
    scales = torch.tensor([0.0, 2.0, 1.0, 1.5])
    leaning = guidance.Guided([free, bound], Leaning(scales))
    assert torch.allclose(leaning.denoise(x, t), other + scales[:, None] * (D - other))
    normal = ss.GaussianOracle(torch.zeros(2), 0.5, ss.EDM())
    drawn = guidance.Guided([normal], Drawn(target, 2.0))
    gain = 0.25 / (0.25 + 0.64)
    want = (
        gain * x + 0.64 * gain * (target - gain * x) / 4
    )  # with the covariance s^2 times the gain
    assert torch.allclose(drawn.denoise(x, t), want)
    with pytest.raises(ValueError, match="scales must be one number or 3, not 4"):
        leaning.denoise(x[:3], t)


@pytest.mark.parametrize("name", SILENT)
def test_what_cannot_be_taken_apart_is_refused_at_the_door(name: str) -> None:
    make, words = SILENT[name]
    model = make()
    x = torch.randn(4, *model.shape)
    calls: list[Callable[[], Any]] = [
        lambda: ss.sample(model, 4, steps=3, batch_size=2),
        lambda: ss.sample(model, 4, rtol=1e-3, atol=1e-3),
        lambda: ss.encode(model, x),
        lambda: ss.log_likelihood(model, x, batch_size=3),
        lambda: ss.weighted_sample([model], [1.0], 4, steps=20),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=words):
            call()
    assert ss.sample(model, 4, steps=3).ok  # all at once


def test_one_size_is_said_of_what_is_named() -> None:
    with pytest.raises(ValueError, match=r"targets must have leading size 3 or 1, but has \(4,\)"):
        ss.sample(Said(TARGETS), 3, steps=3, batch_size=2)
    for model in (conditioned(), Halved(conditioned())):
        for options in ({"steps": 3, "batch_size": 2}, {"rtol": 1e-3, "atol": 1e-3}):
            with pytest.raises(ValueError, match="label must have leading size 3 or 1, but has"):
                ss.sample(model, 3, **options)
    with pytest.raises(ValueError, match="the same for all samples"):
        ss.weighted_sample([Said(TARGETS)], [1.0], 4, steps=20)
    shared = ss.sample(Said(torch.tensor([2.0])), 3, steps=3, batch_size=2)
    assert torch.allclose(shared.x, ss.sample(Said(torch.full((3,), 2.0)), 3, steps=3).x)


class Table(ss.ScoreModel):
    r"""A model whose weight, buffer, plain table and class constant have as many entries as there are samples."""

    process, data_scale, shape = ss.EDM(), 1.0, (4,)
    constants = torch.ones(4)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.1, 0.4, 4))
        self.register_buffer("shift", torch.linspace(0.0, 1.0, 4))
        self.means = torch.linspace(-1.0, 1.0, 4)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        return (
            self.weight * x / (1 + t.to(x).reshape(-1, 1))
            + self.shift
            + self.means * self.constants
        )


class Watched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table, self.rows = nn.Linear(4, 4).double(), torch.arange(4), []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.rows.append(len(x))
        return self.layer(x)


def test_tables_of_as_many_entries_raise_no_alarm() -> None:
    table, network = Table().requires_grad_(False), Watched().requires_grad_(False)
    for model in (table, ss.NetworkScore(network, ss.EDM(), "data", shape=(4,)), Halved(table),
                  ss.KernelOracle(torch.randn(4, 4), 0.3), ss.GaussianOracle(torch.zeros(4), 1.0)):  # fmt: skip
        whole = ss.sample(model, 4, steps=3, seed=1).x
        assert torch.allclose(ss.sample(model, 4, steps=3, seed=1, batch_size=3).x, whole)
        assert ss.sample(model, 4, rtol=1e-3, atol=1e-3).ok
        assert model.rows(torch.tensor([1])) is model
    network.rows.clear()
    network.table = torch.arange(5)
    ss.sample(ss.NetworkScore(network, ss.EDM(), "data", shape=(4,)), 4, steps=3, batch_size=2)
    assert (
        network.rows == [2] * 8
    )  # where nothing has the size of the batch, no call is made to see


def test_a_rule_says_all_that_it_holds() -> None:
    class Loose(guidance.Rule):
        def __init__(self, target: Tensor) -> None:
            self.target = target

        def __call__(self, denoised: Sequence[Tensor], noisy: guidance.Noisy) -> Tensor:
            return self.target

    with pytest.raises(
        TypeError, match="Loose holds target, .*write @dataclass\\(frozen=True\\) above Loose"
    ):
        guidance.Guided([mixture(ss.EDM())], Loose(torch.ones(4, 2)))
    own = guidance.Guided([mixture(ss.EDM())], Towards(0.3, torch.ones(4, 2)))
    assert str(own).startswith("towards 0.3(MixtureOracle")
    assert own.fingerprint == "MixtureOracle guided by towards 0.3"
    assert list(own.held) == ["target"]
    own.data_scale = 3.0
    assert own.rows(torch.tensor([1])).data_scale == 3.0


def test_rules_of_ones_own_are_refused_in_sentences() -> None:
    free, x = mixture(ss.EDM()), torch.randn(4, 2)

    @dataclass(frozen=True)
    class Even(guidance.Affine):
        def weights(self, levels: Tensor) -> Tensor:
            return torch.full((*levels.shape, 2), 0.5)

    wrong: dict[str, Callable[[], object]] = {
        "models must hold at least one model": lambda: guidance.Guided([], Towards(0.3, x)),
        "target must have leading size 4 or 1, but has": lambda: guidance.Guided(
            [free], Towards(0.3, x[:3])
        ).denoise(x, torch.tensor(0.5)),
        r"shape of the data, \(4, 2\), but returned \(4,\)": lambda: guidance.Guided(
            [free], Sideways(lambda D: D[:, 0])
        ).denoise(x, torch.tensor(0.5)),
        "an entry for each of 3 models, but have": lambda: guidance.Guided(
            [free, free, free], Even()
        ).denoise(x, torch.tensor(0.5)),
        "one model, but there are 2": lambda: guidance.Guided([free, free], Drawn(x, 1.0)),
        "cannot be differentiated again": lambda: guidance.Guided(
            [guidance.Guided([free], Drawn(x, 1.0))], Drawn(x, 1.0)
        ),
    }
    for words, call in wrong.items():
        with pytest.raises(ValueError, match=words):
            call()


class Targeted(ss.ScoreModel):
    process, data_scale, by_sample = ss.EDM(), 1.0, ("targets",)

    def __init__(self, targets: object) -> None:
        super().__init__()
        self.targets = targets

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.as_tensor(self.targets[: len(x)]).to(x)  # type: ignore[index]


@pytest.mark.parametrize("targets", [np.arange(8.0).reshape(4, 2), [[0.0, 1.0]] * 4])
def test_what_is_by_sample_must_be_a_tensor(targets: object) -> None:
    with pytest.raises(ValueError, match="targets is named in by_sample, so it must be a tensor"):
        ss.sample(Targeted(targets), (4, 2), steps=2, batch_size=2)
    right = torch.as_tensor(targets).double()
    x = ss.sample(Targeted(right), (4, 2), steps=2, batch_size=2, dtype=torch.float64).x
    torch.testing.assert_close(x, right)


def test_arrays_that_nothing_names_are_noticed_too() -> None:
    class Undeclared(Targeted):
        by_sample = ()

    with pytest.raises(ValueError, match="holds tensors that belong to samples .targets."):
        ss.sample(Undeclared(np.arange(8.0).reshape(4, 2)), (4, 2), steps=2, batch_size=2)


def test_names_by_sample_are_a_tuple_of_attributes() -> None:
    with pytest.raises(
        TypeError, match=r"by_sample must be a tuple of names, .* write \('targets',\)"
    ):

        class One(Targeted):
            by_sample = "targets"  # type: ignore[assignment]

    class Misspelt(Targeted):
        by_sample = ("target",)

    with pytest.raises(ValueError, match="names 'target', but the model has no such attribute"):
        ss.sample(Misspelt(torch.zeros(4, 2)), (4, 2), steps=2, batch_size=2)


def test_times_reach_models_of_ones_own_by_row() -> None:
    class Standard(ss.ScoreModel):
        process, data_scale = ss.EDM(), 1.0

        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            return x / (1 + t[:, None] ** 2)

    right = ss.GaussianOracle(torch.zeros(2), 1.0)
    for options in ({"steps": 4}, {"steps": 4, "batch_size": 3}, {"rtol": 1e-3}):
        x, want = (ss.sample(m, (4, 2), seed=0, **options).x for m in (Standard(), right))
        torch.testing.assert_close(x, want.to(x), rtol=1e-4, atol=1e-4)


def test_random_models_are_not_taken_for_others() -> None:
    class Dropped(ss.ScoreModel):
        process, data_scale = ss.EDM(), 1.0

        def __init__(self) -> None:
            super().__init__()
            self.table, self.drop = torch.randn(4), torch.nn.Dropout(0.1)

        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            return self.drop(x) / (1 + t.reshape(-1, 1) ** 2)

    with pytest.warns(UserWarning, match="training mode"):
        assert ss.sample(Dropped(), (4, 2), steps=3, seed=0, batch_size=2).ok
    for seed in range(10):
        torch.manual_seed(seed)
        with (
            pytest.warns(UserWarning, match="training mode"),
            pytest.raises(ValueError, match="two calls of"),
        ):
            ss.encode(Dropped(), torch.randn(4, 2))
