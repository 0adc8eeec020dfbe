r"""The folder of a job: damage is named, one run at a time works on it, and what cannot be written is said."""

import json
import os
import resource
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

import scoresde as ss
from scoresde.jobs import lease
from scoresde.jobs.engines import Here
from scoresde.jobs.shards import FOLDER, VERSION, name_of, unpacked
from scoresde.jobs.store import LOCK, Store

from .job_models import N, engine, made
from .test_jobs import LABEL, STEPS, draw

SECOND = f"{FOLDER}/0000001.safetensors"


def in_child(work: Callable[[], object]) -> str:
    r"""What a forked process says of an error of its work; nothing, if there is none."""

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    return said


def said_in(content: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["shard"])


def resaid(content: bytes, **changes: Any) -> bytes:
    r"""A shard file that says something else beside its tensors; `None` leaves an entry out."""

    said = {n: v for n, v in {**said_in(content), **changes}.items() if v is not None}
    return save(load(content), {"shard": json.dumps(said)})


def edited(content: bytes) -> bytes:
    r"""A shard file of another sample, whose digest was made anew."""

    shard = unpacked(content, "")
    return type(shard)(
        shard.job, shard.number, shard.start, shard.count, shard.pieces,
        {**shard.tensors, "x": shard.tensors["x"] + 1},
    ).pack()  # fmt: skip


@pytest.mark.parametrize(("change", "words"), [
    (lambda c: b"", "is damaged: it is no shard"),
    (lambda c: c[:40], "is damaged: it is no shard"),
    (lambda c: c[:-8], "is damaged: it is no shard"),
    (lambda c: b"x" * 100, "is damaged: it is no shard"),
    (lambda c: c[:-1] + bytes([c[-1] ^ 1]), "is damaged: its content does not have the digest"),
    (lambda c: resaid(c, failed={"3": "nonfinite"}), "is damaged: its content does not have"),
    (lambda c: resaid(c, failed=None), "is damaged: its content does not have"),
    (lambda c: resaid(c, names=["y"]), "is damaged: its content does not have"),
    (lambda c: resaid(c, color="red"), "is damaged: its content does not have"),
    (lambda c: resaid(c, version=VERSION + 1), f"has the form of version {VERSION + 1} of shards"),
    (edited, "is not the file that the job wrote"),
])  # fmt: skip
def test_a_damaged_shard_is_named(
    tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    done = draw(tmp_path)
    want, file = done.tensor(), tmp_path / SECOND
    whole = file.read_bytes()
    file.write_bytes(change(whole))
    for use in (lambda: ss.jobs.open(tmp_path).tensor(), lambda: draw(tmp_path)):
        with pytest.raises(ValueError, match=rf"0000001\.safetensors {words}"):
            use()
    file.unlink()  # as the messages say
    assert torch.equal(draw(tmp_path).tensor(), want)
    assert file.read_bytes() == whole


def test_a_shard_of_another_job_or_place_is_named(tmp_path: Path) -> None:
    draw(tmp_path / "a")
    draw(tmp_path / "b", seed=1)
    (tmp_path / "b" / SECOND).replace(tmp_path / "a" / SECOND)
    with pytest.raises(ValueError, match=r"0000001\.safetensors belongs to another job"):
        draw(tmp_path / "a")
    (tmp_path / "a" / SECOND).write_bytes((tmp_path / "a" / name_of(2)).read_bytes())
    with pytest.raises(ValueError, match=r"0000001\.safetensors belongs to another job"):
        ss.jobs.open(tmp_path / "a").tensor()


def test_other_files_in_the_folder_do_not_matter(tmp_path: Path) -> None:
    done = draw(tmp_path)
    for name in ("1.safetensors", "notes.txt", "\u00b2.safetensors", ".hidden"):
        (tmp_path / FOLDER / name).write_text("x")
    assert done.finished == [0, 1, 2, 3]
    assert draw(tmp_path).progress().samples == N


@pytest.mark.parametrize(("change", "words"), [
    (lambda text: "", "is no manifest of a job"),
    (lambda text: text[:100], "is no manifest of a job"),
    (lambda text: text.replace("job of scoresde", "plan of scoresde"), "is no manifest of a job"),
    (lambda text: text.replace('"count": 10', '"count": 11'), "was edited: what it says is not of"),
    (lambda text: text.replace('"verb"', '"word"'), "lacks 'verb'"),
    (lambda text: text.replace('"shard_size": 3', '"shard_size": 0'), "'shard_size' must be"),
    (lambda text: text.replace('"pieces": {}', '"pieces": {"1": "x"}'), "'pieces' must be"),
    (lambda text: text.replace('"aside": {}', '"aside": {"one": "x"}'), "'aside' must be"),
])  # fmt: skip
def test_a_damaged_manifest_is_named(
    tmp_path: Path, change: Callable[[str], str], words: str
) -> None:
    want = [shard.digest for shard in draw(tmp_path).shards()]
    file = tmp_path / "manifest.json"
    file.write_text(change(file.read_text()))
    for use in (lambda: ss.jobs.open(tmp_path), lambda: draw(tmp_path)):
        with pytest.raises(ValueError, match=words):
            use()
    file.unlink()
    assert [shard.digest for shard in draw(tmp_path).shards()] == want


def test_a_folder_without_a_job_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no job in"):
        ss.jobs.open(tmp_path)
    with pytest.raises(ValueError, match="out='nowhere://x' cannot be opened"):
        draw("nowhere://x")


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with Store(str(tmp_path)).driven():
            os.write(writer, b"x")
            time.sleep(600)
    os.read(reader, 1)
    try:
        with pytest.raises(ValueError, match="another run works on the job in"):
            draw(tmp_path)
        assert not (tmp_path / "manifest.json").exists()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert draw(tmp_path).progress().running is False  # at once


def test_a_memory_store_holds_a_job_of_one_process() -> None:
    done = draw("memory://whole")
    assert torch.equal(done.tensor(), ss.sample(made(), N, label=LABEL, **STEPS).x)
    assert torch.equal(draw("memory://whole").tensor(), done.tensor())
    assert not done.progress().running
    with pytest.raises(ValueError, match="in the memory of this process"):
        draw("memory://whole", workers=2)


def test_a_store_has_one_driver_until_it_is_not_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "memory://two"
    with Store(url).driven():
        assert Store(url).is_driven()
        with pytest.raises(ValueError, match="another run works on the job in memory://two; wait"):
            draw(url)
    assert Store(url).read(LOCK) is None
    Store(url).write(LOCK, json.dumps({"owner": "dead", "time": time.time() - 61}).encode())
    assert draw(url).progress().samples == N
    Store(url).write(LOCK, b"not JSON")
    assert not Store(url).is_driven()
    assert draw(url).progress().samples == N


def test_a_driver_keeps_its_lease_while_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SECONDS", 0.2)
    with Store("memory://long").driven() as check:
        time.sleep(0.6)
        assert Store("memory://long").is_driven()
        check()


def test_a_driver_that_lost_its_lease_ends_and_leaves_the_job_to_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "SECONDS", 0.2)
    url, other = "memory://lost", json.dumps({"owner": "other", "time": time.time() + 60}).encode()

    asked: list[int] = []

    class Late(Here):
        def ready(self) -> list[tuple[Any, Any]]:
            Store(url).write(LOCK, other)
            time.sleep(0.2)
            Store(url).write("manifest.json", b"of the other")
            asked.append(1)
            return super().ready() if len(asked) > 5 else []

    with engine(Late), pytest.raises(ValueError, match="another run works on"):
        draw(url)
    assert Store(url).read("manifest.json") == b"of the other"
    assert Store(url).read(LOCK) == other


def test_a_full_disk_is_named_and_what_was_written_stays(tmp_path: Path) -> None:
    draw(tmp_path / "whole")
    size = (tmp_path / "whole" / SECOND).stat().st_size

    class Filling(Here):
        def submit(self, task: Any) -> None:
            limit = size - 1 if task.number == 2 else size + 10**4
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            super().submit(task)

    def work() -> None:
        with engine(Filling):
            draw(tmp_path / "job")

    said = in_child(work)
    assert said.startswith("OSError: [Errno 27]")
    assert (
        "0000002.safetensors cannot be written: File too large; nothing that was written" in said
    )
    assert ss.jobs.open(tmp_path / "job").finished == [0, 1]
    assert not list((tmp_path / "job").rglob("*.part"))
    want = [shard.digest for shard in ss.jobs.open(tmp_path / "whole").shards()]
    assert [shard.digest for shard in draw(tmp_path / "job").shards()] == want


def test_a_folder_that_cannot_be_written_is_named_and_can_be_read() -> None:
    with tempfile.TemporaryDirectory() as folder:
        draw(f"{folder}/job")
        for part in (folder, f"{folder}/job", f"{folder}/job/{FOLDER}"):
            os.chmod(part, 0o555)

        def work() -> None:
            if os.getuid() == 0:
                os.setuid(65534)
            state = ss.jobs.open(f"{folder}/job").progress()
            assert (state.samples, state.running) == (N, False)
            with pytest.raises(OSError, match="out=.* cannot be written: .*; pass another folder"):
                draw(f"{folder}/job")
            draw(f"{folder}/new")

        said = in_child(work)
        assert said.startswith("PermissionError")
        assert f"out={folder}/new cannot be written" in said
        for part in (folder, f"{folder}/job", f"{folder}/job/{FOLDER}"):
            os.chmod(part, 0o755)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="out=.*file cannot be written"):
        draw(tmp_path / "file")


def test_parts_of_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    draw(tmp_path)
    part = tmp_path / FOLDER / ".0000001.safetensors.abc.part"
    part.write_bytes(b"half")
    draw(tmp_path)
    assert not part.exists()


def test_what_a_killed_worker_left_half_written_goes_when_the_job_ends(tmp_path: Path) -> None:
    left = tmp_path / "shards" / ".0000001.safetensors.0123.part"
    with Store(str(tmp_path)).driven():
        left.parent.mkdir()
        left.write_bytes(b"half")
    assert not left.exists()


def test_workers_that_cannot_start_leave_no_job_behind(tmp_path: Path) -> None:
    class Gone(Here):
        def __init__(self, *_: Any) -> None:
            raise ConnectionError("nobody answers")

    with engine(Gone), pytest.raises(ConnectionError, match="nobody answers"):
        draw(tmp_path, label=LABEL)
    assert draw(tmp_path, label=0).progress().samples == N  # another job
