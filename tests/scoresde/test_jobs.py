r"""Jobs give the bits of the functions they run, however often they are interrupted and whoever does the work."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as ss
from scoresde.jobs import Folder, drive, start
from scoresde.jobs.engines import Here
from scoresde.jobs.shards import FOLDER

from .job_models import CALLS, SIZE, Backwards, N, engine, made, of

LABEL = torch.arange(N, dtype=torch.float64) / N
X = torch.linspace(-1, 1, 2 * N, dtype=torch.float64).reshape(N, 2)
LEVELS = (X * 2).round() / 2
STEPS = {"solver": "heun", "steps": 4}
QUIET = {"shard_size": SIZE, "progress": False}


def draw(out: Any, **options: Any) -> Folder:
    return ss.jobs.sample(
        options.pop("model", made), options.pop("n", N), out=out,
        **{**QUIET, **STEPS, "label": LABEL, **options},
    )  # fmt: skip


def test_a_job_of_sample_is_sample(tmp_path: Path) -> None:
    done, want = draw(tmp_path, seed=5), ss.sample(made(), N, seed=5, label=LABEL, **STEPS)
    assert torch.equal(done.tensor(), want.x)
    assert torch.equal(done.tensor("calls"), want.calls)
    assert [shard.count for shard in done.shards()] == [3, 3, 3, 1]
    table = done.table()
    assert table["index"] == list(range(N))
    assert table["status"] == ["ok"] * N


def test_a_job_of_encode_or_decode_is_that(tmp_path: Path) -> None:
    some = {"label": LABEL, **STEPS}
    there = ss.jobs.encode(made, X, out=tmp_path / "there", **QUIET, **some)
    z = ss.encode(made(), X, **some)
    assert torch.equal(there.tensor(), z.x)
    back = ss.jobs.decode(made, there, out=tmp_path / "back", denoise=False, **QUIET, **some)
    assert torch.equal(back.tensor(), ss.decode(made(), z.x, denoise=False, **some).x)


def test_a_job_of_edit_is_edit(tmp_path: Path) -> None:
    source, target = made().given(label=0.0), made().given(label=1.0)
    some = {"strength": 0.5, "method": "noise", "seed": 3, **STEPS}
    done = ss.jobs.edit(source, target, X, out=tmp_path, **QUIET, **some)
    assert torch.equal(done.tensor(), ss.edit(source, target, X, **some).x)


def test_a_job_of_likelihood_is_the_density(tmp_path: Path) -> None:
    some = {"label": LABEL, "solver": "heun", "steps": 16, "divergence": "hutchinson", "seed": 2}
    done = ss.jobs.likelihood(made, X, out=tmp_path, **QUIET, **some)
    parts = [  # each batch has its own check of its first rows, and one density
        ss.log_likelihood(
            made(), X[k : k + SIZE], **{**some, "label": LABEL[k : k + SIZE]}, first_index=k
        )
        for k in range(0, N, SIZE)
    ]
    want = ss.Likelihood.stack(parts)
    assert torch.equal(done.tensor("nats"), want.nats)
    assert torch.equal(done.tensor("total"), want.total)
    assert torch.equal(done.tensor("budget.path"), want.budget["path"])
    whole = ss.log_likelihood(made(), X, **some)
    assert torch.allclose(done.tensor("nats"), whole.nats, atol=1e-10)


def test_levels_make_it_the_probability_of_levels(tmp_path: Path) -> None:
    some = {"label": LABEL, "levels": 5, "low": -1.0, "high": 1.0, "steps": 16, "solver": "heun"}
    done = ss.jobs.likelihood(made, LEVELS, out=tmp_path, **QUIET, **some)
    want = ss.discrete_log_likelihood(made(), LEVELS, **some)
    assert torch.allclose(done.tensor("nats"), want.nats, atol=1e-10)
    assert set(done.table()["status"]) == {"ok"}


@pytest.mark.parametrize("transform", [
    ss.Standardized(torch.tensor([3.0, -1.0]), 2.0), ss.ComplexPairs(), ss.NamedParts({"a": (1,), "b": (1,)}),
])  # fmt: skip
def test_data_has_the_form_of_the_users(tmp_path: Path, transform: ss.Transform) -> None:
    model = made()
    model.transform = transform
    done, want = draw(tmp_path / "x", model=model), ss.sample(model, N, label=LABEL, **STEPS)
    assert done.tensor().dtype == want.x.dtype
    assert torch.equal(done.tensor(), want.x)
    there = ss.jobs.encode(model, want.x, out=tmp_path / "z", **QUIET, label=LABEL, **STEPS)
    assert torch.equal(there.tensor(), ss.encode(model, want.x, label=LABEL, **STEPS).x)


def test_a_plan_states_the_options(tmp_path: Path) -> None:
    plan = ss.Plan({"solver": "em", "steps": 3, "eta": 0.5})
    plan.save(tmp_path / "plan.json")
    want = ss.sample(made(), N, label=0.0, plan=plan).x
    for k, said in enumerate((plan, str(tmp_path / "plan.json"), tmp_path / "plan.json")):
        done = ss.jobs.sample(made, N, out=tmp_path / str(k), plan=said, label=0.0, **QUIET)
        assert torch.equal(done.tensor(), want)


def test_a_model_comes_by_name_by_function_or_as_it_is(tmp_path: Path) -> None:
    digits = ss.load("digits")
    ss.save(digits, tmp_path / "model")
    some = {"shard_size": 2, "progress": False, "steps": 2, "label": 3}
    want = ss.sample(digits, 2, steps=2, label=3).x
    for k, model in enumerate(
        ("digits", str(tmp_path / "model"), lambda: ss.load("digits"), digits)
    ):
        assert torch.equal(ss.jobs.sample(model, 2, out=tmp_path / str(k), **some).tensor(), want)
    done = ss.jobs.sample(digits, 2, out=tmp_path / "0", **some)  # the same job
    assert torch.equal(done.tensor(), want)
    with pytest.raises(TypeError, match="the function makes a int"):
        ss.jobs.sample(lambda: 3, 2, out=tmp_path / "none", **some)


def test_workers_give_the_same_bits(tmp_path: Path) -> None:
    r"""Also those of a model that no worker can import, in the default dtype of this process."""

    shift = 0.25

    def own(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return shift * x + label.reshape(-1, 1)

    here = draw(tmp_path / "here", model=of(own))
    threads = torch.get_num_threads()
    pool = draw(tmp_path / "pool", model=of(own), workers=2, threads=threads)
    assert here.tensor().dtype == torch.float64
    assert torch.equal(here.tensor(), pool.tensor())
    assert [s.digest for s in here.shards()] == [s.digest for s in pool.shards()]
    assert pool.manifest.threads == threads


def test_the_order_of_shards_does_not_matter(tmp_path: Path) -> None:
    one = draw(tmp_path / "one")
    with engine(Backwards):
        other = draw(tmp_path / "other")
    assert [s.digest for s in one.shards()] == [s.digest for s in other.shards()]


class Interrupted(Here):
    r"""An engine whose user loses patience in the third shard."""

    def ready(self) -> list[tuple[Any, Any]]:
        if self._tasks[0].number == 2:
            raise KeyboardInterrupt
        return super().ready()


def test_an_interrupt_says_how_to_go_on_and_no_shard_is_computed_twice(tmp_path: Path) -> None:
    CALLS[0] = 0
    whole = draw(tmp_path / "whole")
    each = CALLS[0] // 4
    with (
        engine(Interrupted),
        pytest.raises(KeyboardInterrupt, match="2 of 4 shards are in .*go on"),
    ):
        draw(tmp_path / "job")
    state = ss.jobs.open(tmp_path / "job").progress()
    assert (state.samples, state.count, state.running) == (6, N, False)
    with pytest.raises(ValueError, match="lacks the shards 2, 3 of 4"):
        ss.jobs.open(tmp_path / "job").tensor()
    CALLS[0] = 0
    done = draw(tmp_path / "job")
    assert CALLS[0] == 2 * each
    assert [s.digest for s in done.shards()] == [s.digest for s in whole.shards()]
    CALLS[0] = 0
    draw(tmp_path / "job", shard_size=None)  # by default, that of the job
    assert CALLS[0] == 0


def test_an_interrupt_of_the_network_ends_a_job_alike(tmp_path: Path) -> None:
    def stop(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        if float(label[-1]) == 5:
            raise KeyboardInterrupt
        return 0 * x

    with pytest.raises(KeyboardInterrupt, match="1 of 4 shards"):
        draw(tmp_path, model=of(stop), label=torch.arange(N))


@pytest.mark.parametrize(("change", "words"), [
    ({"steps": 5}, "steps= was 4, but is 5"),
    ({"eta": 0.5, "solver": "ancestral"}, "solver= was heun, but is ancestral"),
    ({"rtol": 0.1}, "rtol= was not passed, but is 0.1"),
    ({"label": LABEL + 1}, "label= was"),
    ({"model": lambda: of(lambda x, t, label=None: 0 * x)}, "the model was NetworkScore"),
    ({"seed": 1}, "the seed was 0, but is 1"),
    ({"n": N + 1, "label": 0.0}, "the number of samples was 10, but is 11"),
    ({"shard_size": 4}, "shard_size= was 3, but is 4"),
])  # fmt: skip
def test_another_job_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    done = draw(tmp_path)
    before = [shard.digest for shard in done.shards()]
    with pytest.raises(ValueError, match=f"holds another job: {words}"):
        draw(tmp_path, **change)
    assert [shard.digest for shard in draw(tmp_path).shards()] == before


def test_other_data_another_function_and_another_dtype_are_refused(tmp_path: Path) -> None:
    some = {"out": tmp_path, "label": LABEL, **QUIET, **STEPS}
    ss.jobs.encode(made, X, **some)
    with pytest.raises(ValueError, match="the digest of the data was"):
        ss.jobs.encode(made, X + 1e-12, **some)
    with pytest.raises(ValueError, match="the verb was encode, but is decode"):
        ss.jobs.decode(made, X, **some)
    torch.set_default_dtype(torch.float32)
    with pytest.raises(ValueError, match="the default dtype of PyTorch was torch.float64"):
        ss.jobs.encode(made, X, **some)


def test_other_threads_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with engine(Interrupted), pytest.raises(KeyboardInterrupt):
        draw(tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    with pytest.warns(
        UserWarning, match=r"began with threads \d+ \(now 64\), so its bits may differ"
    ):
        draw(tmp_path)


@pytest.mark.parametrize(("options", "words"), [
    ({"steps": 0}, "steps must be at least 1"),
    ({"solver": "huen"}, "huen"),
    ({"stepz": 4}, "stepz"),
    ({"label": torch.zeros(3)}, "label must have leading size 10 or 1, but has 3"),
    ({"callback": print}, "callback= has no effect on a job"),
    ({"shard_size": 0}, "shard_size must be at least 1"),
    ({"seed": None}, "seed must be a whole number"),
    ({"n": 0}, "n must be at least 1"),
    ({"workers": 0}, "workers must be at least 1, but is 0"),
    ({"workers": "x"}, "workers must be a number, 'ray' or 'ray://HOST:PORT', but is 'x'"),
    ({"workers": True}, "workers must be"),
    ({"workers": 1.5}, "workers must be"),
    ({"threads": 77}, "threads=77 is for workers"),
])  # fmt: skip
def test_a_job_that_cannot_begin_leaves_no_manifest(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        draw(tmp_path, **options)
    assert not (tmp_path / "manifest.json").exists()
    assert draw(tmp_path).progress().samples == N  # so that another job may


@pytest.mark.parametrize(("data", "words"), [
    ("data.npz", "x must be numbers in a tensor, an array or a list, but is"),
    ({"x": X}, "x must be numbers in a tensor, an array or a list, but is a dict"),
    (iter(X), "x must be numbers in a tensor, an array or a list"),
    (torch.zeros(0, 2), r"must have shape \(N, \*\), but has \(0, 2\)"),
    (torch.zeros(4), r"must have shape \(N, \*\), but has \(4,\)"),
    ([["a", "b"]], "x must be numbers"),
    (torch.ones(4, 2).long(), "whole|floating"),
    (torch.full((4, 2), float("nan")), "finite"),
])  # fmt: skip
def test_data_of_another_kind_is_refused(tmp_path: Path, data: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        ss.jobs.encode(made, data, out=tmp_path, **QUIET, **STEPS, label=0.0)
    assert not (tmp_path / "manifest.json").exists()


def test_data_from_a_mapped_file_and_from_lists(tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "x.npy", X.numpy())
    want = ss.encode(made(), X, label=0.0, **STEPS).x
    for k, data in enumerate((np.load(tmp_path / "x.npy", mmap_mode="r"), X.tolist())):
        done = ss.jobs.encode(made, data, out=tmp_path / str(k), label=0.0, **QUIET, **STEPS)
        assert torch.equal(done.tensor(), want)


def test_a_model_that_cannot_be_shipped_is_refused_with_the_cure(tmp_path: Path) -> None:
    lock = threading.Lock()

    def held(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        with lock:
            return 0 * x

    with pytest.raises(ValueError, match=r"cannot be shipped to workers .*lock.*ss\.save"):
        draw(tmp_path, model=of(held), workers=2)
    assert not (tmp_path / "manifest.json").exists()
    assert draw(tmp_path, model=of(held)).progress().samples == N


def test_more_workers_than_shards_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def pool(work: Any, workers: int, threads: int) -> Here:
        asked.append(workers)
        return Here(work)

    monkeypatch.setattr(start, "Pool", pool)
    with pytest.warns(UserWarning, match="workers=9 are more than the 4 shards"):
        draw(tmp_path, workers=9)
    assert asked == [4]


def test_a_shard_may_be_larger_than_the_job(tmp_path: Path) -> None:
    done = draw(tmp_path, shard_size=1000)
    assert [shard.count for shard in done.shards()] == [N]
    assert torch.equal(done.tensor(), ss.sample(made(), N, label=LABEL, **STEPS).x)


def test_tables_are_written(tmp_path: Path) -> None:
    done = draw(tmp_path / "job")
    done.save_table(tmp_path / "table.csv")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[0] == ",".join(done.table())
    assert [line.split(",")[0] for line in lines[1:]] == [str(k) for k in range(N)]
    with pytest.raises(ValueError, match=r"csv or parquet file, not table\.txt"):
        done.save_table(tmp_path / "table.txt")
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    done.save_table(tmp_path / "table.parquet")
    assert parquet.read_table(tmp_path / "table.parquet").to_pydict() == done.table()


def test_errors_name_the_shard(tmp_path: Path) -> None:
    def broken(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        if bool((label == 5).any()):
            raise LookupError("no such label")
        return 0 * x

    with pytest.raises(LookupError, match="no such label") as found:
        draw(tmp_path, model=of(broken), label=torch.arange(N))
    assert "shard 1 of" in "".join(found.value.__notes__)
    assert ss.jobs.open(tmp_path).finished == [0]
    assert sorted(file.name for file in (tmp_path / FOLDER).iterdir()) == ["0000000.safetensors"]
    assert ss.jobs.open(tmp_path).manifest.done.keys() == {"0"}


def test_the_manifest_is_written_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "EVERY", 0.0)
    seen: list[int] = []

    class Watched(Here):
        def ready(self) -> list[tuple[Any, Any]]:
            seen.append(len(ss.jobs.open(tmp_path).manifest.done))
            assert ss.jobs.open(tmp_path).progress().running
            return super().ready()

    with engine(Watched):
        draw(tmp_path)
    assert seen == [0, 1, 2, 3]
