r"""What fails in a job is said, with its cause, and the rest is computed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.jobs.engines import Died, Here

from .job_models import Deadly, N, engine, network, of
from .test_jobs import QUIET, STEPS, X, draw

LABEL = torch.arange(N, dtype=torch.float64)


def broken(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    return network(x, t, torch.where(label == 4, torch.nan, label))


def stiff(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    r"""A network that takes many small steps for label 4."""

    wave = (200 * x).sin() * (label == 4).reshape(-1, 1)
    return network(x, t, label) + wave


def statuses(want: str, at: int = 4) -> list[str]:
    return [want if k == at else "ok" for k in range(N)]


def test_a_sample_that_fails_is_listed_with_its_cause(tmp_path: Path) -> None:
    done = draw(tmp_path, model=of(broken), label=LABEL)
    assert done.table()["status"] == statuses("nonfinite")
    assert done.failed == {4: "nonfinite"}
    assert done.progress().failed == 1
    assert "10 of 10 samples by sample, 1 of them failed" in repr(done)
    fine = [k for k in range(N) if k != 4]
    want = ss.sample(of(network), N, label=LABEL, **STEPS).x
    assert torch.equal(done.tensor()[fine], want[fine])


def test_a_budget_that_does_not_suffice_is_a_cause(tmp_path: Path) -> None:
    some = {"solver": "dopri5", "rtol": 1e-4, "atol": 1e-4, "steps": None, "max_calls": 300}
    done = draw(tmp_path, model=of(stiff), label=LABEL, **some)
    assert done.table()["status"] == statuses("max_calls")
    assert max(done.table()["calls"]) <= 300


@pytest.mark.filterwarnings("ignore:the path of samples")
@pytest.mark.parametrize(("function", "options", "want"), [
    (broken, {"solver": "heun", "steps": 16}, "nonfinite"),
    (stiff, {"solver": "dopri5", "rtol": 1e-4, "atol": 1e-4, "max_calls": 300}, "max_calls"),
])  # fmt: skip
@pytest.mark.parametrize("levels", [None, 5])
def test_a_density_that_failed_has_a_cause(
    tmp_path: Path, function: Callable[..., Tensor], options: dict[str, Any], want: str,
    levels: int | None,
) -> None:  # fmt: skip
    x = X if levels is None else (X * 2).round() / 2
    done = ss.jobs.likelihood(
        of(function), x, out=tmp_path, **QUIET, label=LABEL, **options, levels=levels
    )
    assert done.table()["status"] == statuses(want)
    assert done.tensor("nats").isnan().tolist() == [k == 4 for k in range(N)]


@pytest.mark.filterwarnings("ignore:the path of samples", "ignore:two calls of the network")
def test_a_likelihood_knows_why_samples_failed() -> None:
    some = {"solver": "heun", "steps": 16, "on_failure": "partial"}
    found = ss.log_likelihood(of(broken), X, label=LABEL, batch_size=4, **some)
    assert found.status == tuple(statuses("nonfinite"))
    assert found.rows([4, 0]).status == ("nonfinite", "ok")
    with pytest.warns(UserWarning, match=r"samples \[0\] failed \(nonfinite\)"):
        ss.log_likelihood(of(broken), X[4:5], label=4.0, **some)
    levels = (X * 2).round() / 2
    twice = ss.discrete_log_likelihood(of(broken), levels, levels=5, draws=2, label=LABEL, **some)
    assert twice.status == found.status


SEEN: list[int] = []  # the rows of each first call
ROOM = [2]  # rows for which memory suffices


def narrow(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    if len(x) > ROOM[0]:
        raise MemoryError
    return network(x, t, label)


class Watched(Here):
    r"""An engine that notes in how many pieces each task comes, and what the manifest in the folder says of it."""

    folder: Path
    notes: list[tuple[int, int, int]]

    def submit(self, task: Any) -> None:
        known = ss.jobs.open(self.folder).manifest.pieces.get(str(task.number), 1)
        self.notes.append((task.number, task.pieces, known))
        super().submit(task)


def test_what_does_not_fit_into_memory_comes_in_halves_that_every_run_repeats(
    tmp_path: Path,
) -> None:
    Watched.folder, Watched.notes, ROOM[0] = tmp_path, [], 2
    with engine(Watched):
        done = draw(tmp_path, model=of(narrow), shard_size=5, label=LABEL)
        first = [(0, 1, 1), (0, 2, 2), (0, 4, 4), (1, 1, 1), (1, 2, 2), (1, 4, 4)]
        assert (
            Watched.notes == first
        )  # recorded before it is done: 5 rows, 3 and 2, 2 and 1 and 1 and 1
        digests = [shard.digest for shard in done.shards()]
        assert torch.equal(done.tensor(), ss.sample(of(network), N, label=LABEL, **STEPS).x)
        (tmp_path / "shards" / "0000001.safetensors").unlink()
        Watched.notes, ROOM[0] = [], 100
        again = draw(tmp_path, model=of(narrow), shard_size=5, label=LABEL)
        assert Watched.notes == [(1, 4, 4)]
        assert [shard.digest for shard in again.shards()] == digests
        (tmp_path / "manifest.json").unlink()  # the shards know it too
        draw(tmp_path, model=of(narrow), shard_size=5, label=LABEL)
        assert ss.jobs.open(tmp_path).manifest.pieces == {"0": 4, "1": 4}
        assert Watched.notes == [(1, 4, 4)]


def test_each_half_has_the_data_of_its_own_samples(tmp_path: Path) -> None:
    ROOM[0], x = 2, torch.linspace(-1, 1, 2 * N).reshape(N, 2)
    done = ss.jobs.encode(
        of(narrow), x, out=tmp_path, shard_size=5, label=LABEL, progress=False, **STEPS
    )
    assert done.shard(0).pieces == 4
    torch.testing.assert_close(done.tensor(), ss.encode(of(network), x, label=LABEL, **STEPS).x)


def test_a_single_sample_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    ROOM[0] = 0
    with pytest.raises(MemoryError, match="a single sample of shard 0 does not fit"):
        draw(tmp_path, model=of(narrow), label=LABEL)
    ROOM[0] = 100
    assert draw(tmp_path, model=of(narrow), label=LABEL).progress().samples == N


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory"),
])  # fmt: skip
def test_pytorch_says_in_its_words_that_memory_did_not_suffice(
    tmp_path: Path, error: Exception
) -> None:
    def full(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        if len(x) > 1:
            raise error
        return 0 * x

    done = draw(tmp_path, model=of(full), label=LABEL)
    assert [shard.pieces for shard in done.shards()] == [3, 3, 3, 1]


class Cursed(Here):
    r"""An engine whose workers die at shard 1."""

    def ready(self) -> list[tuple[Any, Any]]:
        if self._tasks[0].number == 1:
            return [(self._tasks.popleft(), Died("three workers died at it"))]
        return super().ready()


def test_a_shard_at_which_workers_die_is_set_aside_until_the_next_run(tmp_path: Path) -> None:
    with engine(Cursed), pytest.warns(UserWarning, match=r"shards 1 of .* set aside \(three work"):
        done = draw(tmp_path, label=LABEL)
    assert done.finished == [0, 2, 3]
    assert ss.jobs.open(tmp_path).progress().aside == {1: "three workers died at it"}
    done = draw(tmp_path, label=LABEL)
    assert done.progress().aside == {}
    assert torch.equal(done.tensor(), ss.sample(of(network), N, label=LABEL, **STEPS).x)


def test_workers_that_die_are_replaced_and_blamed_on_their_shard(tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    deaths.write_text("xxx")
    model = of(Deadly(str(deaths)))
    threads = torch.get_num_threads()
    with pytest.warns(UserWarning, match=r"shards 1 of .* were set aside \(3 workers died at it"):
        done = draw(tmp_path / "job", model=model, label=LABEL, workers=2, threads=threads)
    assert done.finished == [0, 2, 3]
    assert deaths.read_text() == ""
    done = draw(tmp_path / "job", model=model, label=LABEL)
    assert torch.equal(done.tensor(), ss.sample(of(network), N, label=LABEL, **STEPS).x)
