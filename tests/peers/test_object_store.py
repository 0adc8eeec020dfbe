r"""Jobs in an object store, moto's emulator of S3, have the bits of a local folder, and one driver."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from scoresde.jobs.store import LOCK, Store

from ..scoresde.test_jobs import draw

pytestmark = pytest.mark.peers
server = pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    emulator = server.ThreadedMotoServer(port=0)
    emulator.start()
    host, port = emulator.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket"
    emulator.stop()


def test_a_job_of_workers_in_a_store_has_the_bits_of_a_folder(bucket: str, tmp_path: Path) -> None:
    here = draw(tmp_path)
    there = draw(f"{bucket}/job", workers=2)
    assert torch.equal(here.tensor(), there.tensor())
    assert [s.digest for s in here.shards()] == [s.digest for s in there.shards()]
    assert draw(f"{bucket}/job").table() == here.table()
    assert not there.progress().running


def test_a_store_has_one_driver(bucket: str) -> None:
    store = Store(f"{bucket}/two")
    with store.driven():
        assert not store.create(LOCK, b"")  # a conditional put
        assert store.is_driven()
        with pytest.raises(ValueError, match="another run works on the job in s3://bucket/two"):
            draw(store.url)
    assert draw(store.url).finished == [0, 1, 2, 3]
    store.write(LOCK, json.dumps({"owner": "dead", "time": time.time() - 61}).encode())
    assert draw(store.url).finished == [0, 1, 2, 3]


def test_damage_in_a_store_is_named(bucket: str) -> None:
    draw(f"{bucket}/damaged")
    store = Store(f"{bucket}/damaged")
    store.write("shards/0000002.safetensors", b"x")
    with pytest.raises(
        ValueError, match=r"s3://bucket/damaged/shards/0000002\.safetensors is damaged"
    ):
        draw(store.url)
    with pytest.raises(OSError, match=r"nowhere/job/.* cannot be written"):
        draw("s3://nowhere/job")
