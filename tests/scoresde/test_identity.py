r"""What identifies a model: everything in it that may change a result, and nothing else."""

from collections.abc import Callable

import pytest
import torch

import scoresde as ss
from scoresde.runs.identity import identity

from .cases import mixture

MODELS: dict[str, Callable[[float], ss.ScoreModel]] = {
    "guided": lambda scale: ss.classifier_free(ss.load("digits"), scale, label=3),
    "conditions": lambda scale: ss.load("digits").given(label=int(scale)),
    "function": lambda scale: ss.NetworkScore(
        lambda x, t: scale * torch.tanh(x) / 9, ss.VP(), "data", shape=(2,), data_scale=0.5
    ),
    "process": lambda scale: mixture(ss.VP(ss.LinearBeta(0.1, 10 * scale))),
    "weights": lambda scale: ss.GaussianOracle(torch.tensor([scale, 0.0]), 0.5),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_has_the_identity_of_what_is_in_it(make: Callable[[float], ss.ScoreModel]) -> None:
    assert identity(make(2.0)) == identity(make(2.0)) != identity(make(3.0))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_keeps_its_identity_when_it_is_used(
    make: Callable[[float], ss.ScoreModel],
) -> None:
    model = make(2.0)
    before = identity(model)
    x = ss.sample(model, 4, steps=4).x
    ss.encode(model, x, solver="ddim", steps=3)
    ss.log_likelihood(model, x, solver="euler", steps=2, nodes=8, probes=1)
    ss.compare(model, ["ddim"], [3], samples=4, progress=False, reference_tolerance=0.1)
    assert identity(model) == before
