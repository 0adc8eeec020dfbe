r"""Score models as denoising autoencoders: reconstructions, features of layers, and linear probes of them."""

import math

import pytest
import torch
from torch import Tensor, nn

import scoresde as ss
from scoresde import autoencoders
from scoresde.autoencoders.probe import _accuracy

MEANS, STD = torch.tensor([[-1.0, 0.5], [1.5, 0.0], [0.0, -2.0]]).double(), 0.4


class Layers(nn.Module):
    r"""A network of vectors with layers that keep all, only the first entry, or nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.keeps, self.tells = nn.Identity(), nn.Linear(2, 1, bias=False)
        self.hides, self.unused = nn.Linear(2, 3), nn.Identity()
        self.tuple, self.numbers = nn.Identity(), nn.Flatten(0)
        with torch.no_grad():
            self.tells.weight.copy_(torch.tensor([[3.0, 0.0]]))
            self.hides.weight.zero_()

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        self.keeps(x), self.tells(x), self.hides(x), self.tuple((x, t)), self.numbers(x)
        return x if label is None else x + label[:, None]


class Maps(nn.Module):
    r"""A network of images whose layer has two channels: the images, and their squares."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = nn.Identity()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.pair(torch.cat([x, x**2], 1))[:, :1]


def vectors(process: ss.Process | None = None) -> ss.NetworkScore:
    return ss.NetworkScore(
        Layers(), process or ss.EDM(), "data", shape=(2,), conditions=("label",)
    )


def two_classes(count: int) -> tuple[Tensor, Tensor]:
    r"""Points at -1 and 1 along the first axis, whose second entry says nothing."""

    classes = torch.arange(count) % 2
    x = torch.stack([2.0 * classes - 1, torch.randn(count)], 1)
    return x, classes


@pytest.mark.parametrize("process", [ss.EDM(), ss.VP(), ss.Interpolant()])
@pytest.mark.parametrize("level", [0.1, 0.7, 3.0])
def test_a_reconstruction_differs_from_its_input_by_the_score(
    process: ss.Process, level: float
) -> None:
    r"""The identity r(x) - x = s^2 grad log p_s(x), with the density written out."""

    model = ss.MixtureOracle(MEANS, STD, process=process)
    x = (3 * torch.randn(6, 2)).requires_grad_()
    spread = STD**2 + level**2
    log_p = (-(x[:, None] - MEANS).square().sum(2) / (2 * spread)).logsumexp(1)
    [score] = torch.autograd.grad(log_p.sum(), x)
    t = torch.tensor(process.at_noise_level(level))
    r = model.denoise(process.signal(t) * x.detach(), t)
    assert torch.allclose(r - x.detach(), level**2 * score, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("process", [ss.EDM(), ss.VP()])
def test_features_are_those_of_the_noisy_data(process: ss.Process) -> None:
    x, level, model = torch.randn(4000, 2), 0.6, vectors(process)
    alpha, sigma = process.scales(torch.tensor(process.at_noise_level(level)))
    found = ss.representation(model, x, noise_level=level, layer="keeps")
    z = (found - alpha * x) / sigma
    assert abs(float(z.mean())) < 4 / math.sqrt(8000)
    assert abs(float(z.square().mean()) - 1) < 4 * math.sqrt(2 / 8000)
    clean = ss.representation(model, x, noise_level=level, layer="tells", noise=False)
    assert torch.allclose(clean, 3 * alpha * x[:, :1])


def test_features_of_a_row_depend_on_its_seed_and_index_alone() -> None:
    x, model = torch.randn(5, 2), vectors()
    whole = ss.representation(model, x, noise_level=1.0, layer="keeps", seed=3)
    parts = ss.representation(model, x, noise_level=1.0, layer="keeps", seed=3, batch_size=2)
    last = ss.representation(model, x[3:], noise_level=1.0, layer="keeps", seed=3, first_index=3)
    other = ss.representation(model, x, noise_level=1.0, layer="keeps", seed=4)
    assert torch.equal(whole, parts)
    assert torch.equal(whole[3:], last)
    assert not torch.isclose(whole, other).any()


def test_features_become_vectors() -> None:
    model = ss.NetworkScore(Maps(), ss.EDM(), "data", shape=(1, 2, 3))
    x = torch.randn(4, 1, 2, 3)
    options = {"noise_level": 0.5, "layer": "pair", "noise": False}
    mean = ss.representation(model, x, **options)
    assert torch.allclose(mean, torch.cat([x.mean((2, 3)), (x**2).mean((2, 3))], 1))
    assert ss.representation(model, x, pool="none", **options).shape == (4, 12)
    tokens = ss.representation(model, x, pool="tokens", **options)
    assert torch.allclose(tokens, ((x + x**2) / 2).flatten(1))
    largest = ss.representation(model, x, pool=lambda h: h.amax((2, 3)), **options)
    assert torch.allclose(largest[:, 0], x.amax((1, 2, 3)))


def test_a_model_with_data_in_other_units_is_asked_in_these() -> None:
    model, plain, x = vectors(), vectors(), torch.randn(3, 2)
    model.transform = ss.Standardized(5.0, 2.0)
    options = {"noise_level": 0.5, "layer": ["keeps", "tells"]}
    found, wanted = (ss.representation(*of, **options) for of in ((model, 5 + 2 * x), (plain, x)))
    assert found.keys() == {"keeps", "tells"}
    assert all(torch.allclose(found[name], wanted[name]) for name in found)


@pytest.mark.parametrize("level", [0.5, 1.0, 2.0])
def test_a_probe_is_as_good_as_the_noise_allows(level: float) -> None:
    r"""Of classes at -1 and 1, the best classifier is right with the probability Phi(1 / s)."""

    x, classes = two_classes(6000)
    found = autoencoders.linear_probe(
        vectors(), x, classes, levels=[level], layer=["keeps", "hides"], held_out=0.5
    )
    best = (1 + math.erf(1 / level / math.sqrt(2))) / 2
    error = math.sqrt(best * (1 - best) / found.count)
    assert abs(float(found.accuracy[0, 0]) - best) < 4 * error
    assert abs(float(found.stderr[0, 0]) - error) < 0.3 * error
    assert float(found.accuracy[0, 1]) == found.chance == 0.5


def test_a_layer_with_the_label_is_read_without_error() -> None:
    x, classes = two_classes(40)
    found = autoencoders.linear_probe(
        vectors(), x, classes, levels=[0.01, 1.0], layer=["hides", "tells"], noise=False
    )
    assert torch.equal(found.accuracy, torch.tensor([[0.5, 1.0], [0.5, 1.0]]))
    assert found.best == (0.01, "tells")
    assert found.table()[1] == {"noise level": 1.0, "hides": 0.5, "tells": 1.0}


def test_held_out_samples_can_be_named() -> None:
    r"""A classifier of samples whose classes are swapped is always wrong."""

    x, classes = two_classes(40)
    unseen = torch.arange(40) >= 30
    swapped = torch.where(unseen, 1 - classes, classes)
    options = {"levels": [0.01], "layer": "tells", "held_out": unseen}
    right = autoencoders.linear_probe(vectors(), x, classes, **options)
    wrong = autoencoders.linear_probe(vectors(), x, swapped, **options)
    assert (float(right.accuracy), float(wrong.accuracy), right.count) == (1.0, 0.0, 10)


def probe(**options: object) -> object:
    x, classes = two_classes(8)
    given = {"levels": [0.1], "layer": "keeps", "classes": classes, **options}
    return autoencoders.linear_probe(vectors(), x, **given)


def features(model: ss.ScoreModel | None = None, **options: object) -> object:
    given = {"noise_level": 0.1, "layer": "keeps", **options}
    return ss.representation(model or vectors(), torch.zeros(3, 2), **given)


@pytest.mark.parametrize(("call", "words"), [
    (lambda: features(layer="keep"), "such as keeps.*but is 'keep'"),
    (lambda: features(layer=[]), "names none"),
    (lambda: features(layer="unused"), "'unused' is not called"),
    (lambda: features(layer="numbers"), r"must return a tensor with shape \(3, n, \*\), but returns \(6,\)"),
    (lambda: features(pool="max"), "pool must be one of mean, tokens, none"),
    (lambda: features(pool=lambda h: h.sum()), "pool must return a tensor with leading size 3"),
    (lambda: features(noise_level=100.0), r"noise_level must be from 0.002 to 80 for this process, but is 100"),
    (lambda: features(noise_level=0.0), "noise_level must be positive"),
    (lambda: features(ss.classifier_free(vectors(), 2.0, label=torch.ones(3))), "model is guided"),
    (lambda: features(ss.GaussianOracle(torch.zeros(2), 1.0)), "GaussianOracle has 0"),
    (lambda: probe(levels=[]), "levels must hold at least one"),
    (lambda: probe(levels=[0.1, 500]), "noise_level must be from"),
    (lambda: probe(classes=torch.zeros(8)), "classes must be 8 whole numbers"),
    (lambda: probe(classes=torch.zeros(8).long()), "classes must hold at least two"),
    (lambda: probe(classes=torch.arange(8)), "at least 2 samples each, but class 0 has one"),
    (lambda: probe(held_out=1.0), "holds out 8 of 8 samples"),
    (lambda: probe(held_out=torch.ones(8)), "or a Boolean for each of the 8"),
    (lambda: probe(held_out=torch.ones(8).bool()), "leaves 0 samples of 0 classes to fit, and 8"),
    (lambda: probe(penalty=0.0), "penalty must be positive"),
])  # fmt: skip
def test_refusals(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()  # type: ignore[operator]


def test_a_large_penalty_leaves_the_frequencies_of_the_classes() -> None:
    truth = (torch.arange(60) % 3 == 0).long()
    features, rows = 2.0 * truth[:, None].double() - 1, torch.arange(60).numpy()
    found = [_accuracy(features, truth.numpy(), rows, rows, penalty) for penalty in (1e-3, 1e6)]
    assert found == pytest.approx([1.0, 2 / 3])
