r"""Solutions: their rows by any kind of index, and what they say of their steps."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import scoresde as ss
from solvers import Solution


@pytest.fixture(scope="module")
def oracle() -> ss.MixtureOracle:
    return ss.MixtureOracle(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), 0.3, process=ss.VP())


@pytest.fixture(scope="module")
def z(oracle: ss.MixtureOracle) -> Solution:
    z = ss.encode(oracle, oracle.data(4), rtol=1e-3, atol=1e-3)
    return replace(z, provenance={**z.provenance, "seeds": [5, 6, 7, 8]})


@pytest.mark.parametrize(("index", "right"), [
    (3, [3]), (-1, [3]), ([-1], [3]), ([-4, 1], [0, 1]), (np.int64(2), [2]), (torch.tensor(1), [1]),
    ([True, False, False, True], [0, 3]), (torch.tensor([False, True, True, False]), [1, 2]),
    (np.array([False, True, False, False]), [1]), (slice(1, None), [1, 2, 3]),
    (slice(None, None, -1), [3, 2, 1, 0]),
    (range(2), [0, 1]), ((2, 2), [2, 2]), (torch.tensor([1, 0], dtype=torch.uint8), [1, 0]),
])  # fmt: skip
def test_rows_are_those_that_are_meant(z: Solution, index: object, right: list[int]) -> None:
    for part in (z.rows(index), z[index]):  # type: ignore[arg-type]
        assert torch.equal(part.x, z.x[right])
        assert torch.equal(part.calls, z.calls[right])
        assert part.provenance["seeds"] == [5 + i for i in right]
        assert len(part) == len(part.status) == len(right)


@pytest.mark.parametrize(("index", "error", "words"), [
    ([True, False], ValueError, "true or false for each of 4 samples, but has 2"),
    (True, TypeError, "whole numbers"), ([0.5], TypeError, "whole numbers"), ([], ValueError, "is empty"),
    ([False] * 4, ValueError, "is empty"), (slice(2, 2), ValueError, "is empty"), (4, IndexError, "one is 4"),
    ([0, -5], IndexError, "one is -5"), (None, TypeError, "rows must be indices of samples"),
    ("a", TypeError, "rows must be indices of samples"),
    ([[0, 1]], ValueError, r"shape \(n,\)"),
])  # fmt: skip
def test_what_is_no_row_is_refused(
    z: Solution, index: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        z.rows(index)  # type: ignore[arg-type]


def test_a_solution_is_a_sequence_of_its_samples(oracle: ss.MixtureOracle, z: Solution) -> None:
    assert len(z) == 4
    assert torch.equal(torch.cat([one.x for one in z]), z.x)
    y = ss.decode(oracle, z[2])
    assert torch.allclose(y.x, ss.decode(oracle, z).x[2:3], atol=1e-10)


def test_rows_remember_the_numbers_that_they_were_drawn_by(oracle: ss.MixtureOracle) -> None:
    s = ss.sample(oracle, 5, seed=3, first_index=10, steps=4)
    part = s.rows([4, 1, 2]).rows([0, 2])
    assert part.provenance["rows"] == [14, 12]
    alone = [
        ss.sample(oracle, 1, seed=3, first_index=i, steps=4).x for i in part.provenance["rows"]
    ]
    assert torch.allclose(torch.cat(alone), part.x)
    assert "rows" not in s.provenance


def test_a_run_that_chose_its_steps_says_how_many(
    oracle: ss.MixtureOracle, tmp_path: Path
) -> None:
    for solver in ("dopri5", "exponential", "torchdiffeq/dopri5"):
        s = ss.sample(oracle, 20, solver=solver, rtol=1e-3, atol=1e-3)
        words = repr(s)
        low, high = int(s.accepted.min()), int(s.accepted.max())
        span = str(low) if low == high else f"{low}-{high}"
        assert f" {span} steps" in words
        assert "interval" not in words
        assert ("rejected" in words) == bool(s.rejected.any())
    fixed = repr(ss.sample(oracle, 3, solver="heun", steps=7))
    assert re.search(r"by heun, 7 intervals, 15 calls per sample\)$", fixed)
    z = ss.encode(oracle, oracle.data(2))
    ss.save_latents(tmp_path / "z.npz", z)
    assert repr(ss.load_latents(tmp_path / "z.npz")) == repr(z)
