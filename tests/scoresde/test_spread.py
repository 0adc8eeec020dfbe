r"""Work on many items: each result once, the work's own errors, and what died is named."""

import os
import signal

import pytest

from scoresde.jobs.engines import Died
from scoresde.jobs.spread import Spread


def risky(item: int) -> int:
    r"""The square of a number, but 3 kills its process."""

    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item**2


def fails(item: int) -> int:
    if item == 2:
        raise Died("3 workers died at it: of hunger")
    if item == 7:
        raise LookupError("seven")
    return item**2


def test_each_item_has_its_result_and_work_its_own_errors() -> None:
    with Spread(fails, None) as spread:
        assert dict(spread([1, 4, 5])) == {1: 1, 4: 16, 5: 25}
        assert dict(spread([])) == {}
        assert dict(spread([6])) == {6: 36}
        with pytest.raises(LookupError, match="seven"):
            dict(spread([6, 7, 8]))


def test_what_died_is_named_after_all_else_is_done() -> None:
    done = []
    with (
        Spread(fails, None, lambda item: f"number {item}") as spread,
        pytest.raises(
            RuntimeError, match="no result of number 2: 3 workers died at it: of hunger"
        ),
    ):
        done.extend(spread([1, 2, 4]))
    assert done == [(1, 1), (4, 16)]


@pytest.mark.slow
def test_a_worker_that_dies_takes_nothing_with_it() -> None:
    done = []
    with (
        Spread(risky, 2) as spread,
        pytest.raises(RuntimeError, match="no result of 3: 3 workers"),
    ):
        done.extend(spread(range(6)))
    assert sorted(done) == [(i, i**2) for i in range(6) if i != 3]
