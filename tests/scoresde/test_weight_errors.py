"""What weighted samples state of themselves, against Gaussians."""

import math
import warnings

import pytest
import torch

import scoresde as ss


def gaussian(std: float, mean: float = 0.0) -> ss.GaussianOracle:
    return ss.GaussianOracle(torch.full((2,), mean).double(), std, ss.EDM())


@pytest.mark.parametrize("count", [1, 2])
def test_a_product_without_finite_mass_is_refused(count: int) -> None:
    wide, narrow = gaussian(1.0), gaussian(0.5)  # precision 1.5 - 0.5 / 0.25 < 0
    with pytest.raises(ValueError, match="has no finite mass"):
        ss.weighted_sample([wide, narrow], [1.5, -0.5 * count], 200, steps=100)


def test_the_balance_of_a_product_is_one() -> None:
    found = ss.weighted_sample([gaussian(1.0), gaussian(1.0)], [1.5, -0.5], 1000, steps=200)
    assert found.balance == pytest.approx(1.0, abs=0.15)
    assert found.effective == pytest.approx(1000, rel=1e-3)
    assert found.stderr < 1e-3
    assert "first order in its 200 steps" in repr(found)


@pytest.mark.slow
def test_the_stated_error_of_the_mass_covers_its_spread() -> None:
    first, other = gaussian(1.0), gaussian(1.0, 1.0)
    # the mass of N(0, v) N(m, v) is N(m; 0, 2 v), with the noise at t_min
    v = 1 + ss.EDM().noise_level(ss.EDM().start_of("sampling")) ** 2
    want = 2 * (-1 / (4 * v) - math.log(4 * math.pi * v) / 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few families
        runs = [
            ss.weighted_sample([first, other], [1.0, 1.0], 400, steps=150, seed=k)
            for k in range(6)
        ]
    far = torch.tensor([(run.log_normaliser - want) / (run.stderr + 0.1) for run in runs])
    assert far.abs().max() < 3
    assert all(0.01 < run.stderr < 1 for run in runs)
    assert all(len(run.ancestors.unique()) < 400 for run in runs if run.resampled)


def test_few_samples_that_carry_the_weight_are_said() -> None:
    with pytest.warns(UserWarning, match="are worth about .* independent ones") as caught:
        ss.weighted_sample(
            [gaussian(1.0), gaussian(1.0, 1.0)], [1.0, 1.0], 60, steps=100, threshold=0.0
        )
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "options", [{"seed": 1.5}, {"seed": True}, {"t_min": -1.0}, {"t_min": 1e9}]
)
def test_doors(options: dict[str, float]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        ss.weighted_sample([gaussian(1.0)], [1.0], 10, **options)  # type: ignore[arg-type]
