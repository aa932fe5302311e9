"""Tests of a shard set in an S3 bucket, served by moto on localhost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("s3fs", reason="colortrain[remote] is not installed")
moto_server = pytest.importorskip("moto.server", reason="moto[server] is not installed")

import boto3  # noqa: E402
import s3fs  # noqa: E402

from shards.errors import UserError  # noqa: E402
from shards.format.manifest import MANIFEST, Shard  # noqa: E402
from shards.read.cache import Cache  # noqa: E402
from shards.read.remote import RetryPolicy  # noqa: E402
from shards.read.store import Remote, open_store  # noqa: E402

DATA = hashlib.shake_128(b"shard").digest(20 << 20)  # more than two blocks of a concurrent download


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "ENDPOINT_URL": f"http://{host}:{port}",
        "ACCESS_KEY_ID": "a",
        "SECRET_ACCESS_KEY": "b",
    }
    for name, value in {**settings, "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="photos")
    client.put_object(Bucket="photos", Key=f"set/{MANIFEST}", Body=b"{}")
    client.put_object(Bucket="photos", Key="set/train/000000.tar", Body=DATA)
    client.close()
    yield "s3://photos/set"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_reads_from_a_bucket(bucket: str, tmp_path: Path) -> None:
    store = open_store(bucket, Cache(tmp_path / "cache", 1 << 30))
    shard = Shard(
        path="train/000000.tar", samples=1, bytes=len(DATA), sha256=hashlib.sha256(DATA).hexdigest()
    )
    assert store.path(MANIFEST).read_bytes() == b"{}"
    assert store.path(shard.path, bytes=shard.bytes, sha256=shard.sha256).read_bytes() == DATA


def test_missing_object_or_bucket_raises(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "cache", 1 << 30)
    with pytest.raises(
        UserError, match=r"^s3://photos/set/train/000001.tar does not exist: check the address$"
    ):
        open_store(bucket, cache).path("train/000001.tar")
    with pytest.raises(
        UserError, match=r"^s3://videos/set/manifest.json does not exist: check the address$"
    ):
        open_store("s3://videos/set", cache).path(MANIFEST)


def test_missing_credentials_raise(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    for name in ("SHARED_CREDENTIALS_FILE", "CONFIG_FILE"):
        monkeypatch.setenv(f"AWS_{name}", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = Remote(bucket, Cache(tmp_path / "cache", 1 << 30), RetryPolicy(tries=2, wait=0.01))
    with pytest.raises(
        UserError, match=r"^s3://photos/set/manifest.json: no credentials: set AWS_PROFILE"
    ):
        store.path(MANIFEST)
