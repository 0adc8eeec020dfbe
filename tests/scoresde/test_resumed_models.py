r"""A run that ended early goes on with the same model only: its weights, and tensors that belong to samples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as ss

from .cases import mixture
from .test_resume import Stop, assert_same


def masked(size: int) -> ss.ScoreModel:
    return ss.Masked(mixture(ss.VP()), torch.arange(2) < torch.tensor([[size], [2], [2]]))


def scaled(mean: float) -> ss.ScoreModel:
    model = mixture(ss.VP())
    model.transform = ss.Standardized(mean, 2.0)
    return model


class Shrinking(torch.nn.Module):
    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.weight * x


def shrinking(weight: float) -> ss.ScoreModel:
    return ss.NetworkScore(Shrinking(weight), ss.VP(), "data", shape=(2,), data_scale=1.0)


def guided(scale: object) -> ss.ScoreModel:
    return ss.classifier_free(mixture(ss.VP()), scale, label=torch.tensor([0, 1, 2]))


@pytest.mark.parametrize(
    ("make", "same", "other"),
    [
        (masked, 1, 2),
        (scaled, 1.0, 0.0),
        (shrinking, 0.5, 0.4),
        (guided, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 4.0])),
        (guided, lambda level: 1 / (1 + level), lambda level: 2 / (1 + level)),
    ],
)
def test_a_model_with_other_numbers_is_refused(
    make: Callable[[Any], ss.ScoreModel], same: object, other: object, tmp_path: Path
) -> None:
    options = {"steps": 5, "seed": 1}
    part = ss.sample(make(same), 3, callback=Stop(2), **options)
    ss.save_solution(tmp_path / "part.npz", part)
    part = ss.load_solution(tmp_path / "part.npz")
    assert_same(ss.resume(make(same), part), ss.sample(make(same), 3, **options))
    with pytest.raises(
        ValueError, match="weights, scales, masks or transform of the model differ"
    ):
        ss.resume(make(other), part)
