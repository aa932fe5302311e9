"""Tests of store: downloads from a server with faults, by several processes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest

from shards.errors import UserError, describe
from shards.format.manifest import MANIFEST, Manifest, Shard, load_manifest, save_manifest
from shards.read.cache import Cache
from shards.read.remote import RetryPolicy
from shards.read.store import Folder, Remote, open_store
from tests.support.http_server import Server, serving

FAST = RetryPolicy(tries=3, wait=0.01, timeout=20)
SHORT_TIMEOUT = RetryPolicy(tries=3, wait=0.01, timeout=0.4)
BIG = 300_000
ORDERS = ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1])  # of requests by four processes


def content(number: int, bytes: int = BIG) -> bytes:
    return hashlib.shake_128(bytes.to_bytes(4, "big") + b"%d" % number).digest(bytes)


def make_set(root: Path, count: int = 4) -> tuple[Shard, ...]:
    """Write a manifest and the files it names; their content is arbitrary."""
    (root / "train").mkdir(parents=True, exist_ok=True)
    shards = []
    for number in range(count):
        data = content(number)
        (root / f"train/{number:06d}.tar").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        shards.append(
            Shard(path=f"train/{number:06d}.tar", samples=5, bytes=len(data), sha256=digest)
        )
    (root / "train/index.npy").write_bytes(content(99, 1000))
    save_manifest(
        Manifest(size=32, fit="crop", dtype="uint8", splits={"train": tuple(shards)}, left_out={}),
        root,
    )
    return tuple(shards)


def fetch(store: Remote, shard: Shard) -> Path:
    return store.path(shard.path, bytes=shard.bytes, sha256=shard.sha256)


FETCH = """
import sys
from shards.read.cache import Cache
from shards.errors import describe
from shards.read.remote import RetryPolicy
from shards.read.store import Remote
url, cache, size, *numbers = sys.argv[1:]
store = Remote(url, Cache(cache, int(size)), RetryPolicy(tries=3, wait=0.01, timeout=20))
shards = store.manifest().splits["train"]
try:
    for number in map(int, numbers):
        shard = shards[number]
        path = store.path(shard.path, bytes=shard.bytes, sha256=shard.sha256)
        print(path, flush=True)
except Exception as error:
    sys.exit(f"error: {describe(error)}")
"""


def run(program: str, store: Remote, *numbers: int) -> subprocess.Popen[bytes]:
    args = [store._url, str(store.cache.folder), str(store.cache.max_bytes), *map(str, numbers)]
    return subprocess.Popen(
        [sys.executable, "-c", program, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition was not met in time"
        time.sleep(0.01)


def bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.glob("*/*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    make_set(tmp_path / "served/set")
    with serving(tmp_path / "served") as server:
        yield server


@pytest.fixture
def shards(server: Server) -> tuple[Shard, ...]:
    return tuple(load_manifest(server.root / "set").splits["train"])


@pytest.fixture
def store(server: Server, tmp_path: Path) -> Remote:
    return Remote(f"{server.url}/set", Cache(tmp_path / "cache", 10 * BIG), FAST)


def has_partial_shard(cache: Path) -> bool:
    """Return whether a part of a shard (not of the manifest) was received."""
    return any(path.stat().st_size for path in cache.glob("*/.*.tar*.part"))


def temporary_files(cache: Path) -> list[str]:
    """Return the names of lock files and partial downloads in a cache."""
    return [path.name for path in cache.glob("*/.*")]


def test_path_opens_a_folder_without_copies(tmp_path: Path) -> None:
    for location in (tmp_path, str(tmp_path), f"file://{tmp_path}"):
        store = open_store(location)
        assert isinstance(store, Folder)
        assert store.path("train/000000.tar") == tmp_path / "train/000000.tar"
    assert not list(tmp_path.iterdir())


def test_every_file_is_downloaded_once_and_unchanged(
    server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    for _ in range(2):
        assert store.manifest() == load_manifest(server.root / "set")
        assert store.path("train/index.npy").read_bytes() == content(99, 1000)
        for number, shard in enumerate(shards):
            assert fetch(store, shard).read_bytes() == content(number)
    assert set(server.requests.values()) == {1}
    assert len(server.requests) == 6
    again = Remote(store.location + "/", store.cache, FAST)
    fetch(again, shards[0])
    assert server.requests[f"set/{MANIFEST}"] == 2  # downloaded by every Remote
    assert sum(server.requests.values()) == 7
    assert not temporary_files(store.cache.folder)


def test_changed_shard_set_is_not_mixed_with_the_old_one(
    server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    old = store.path("train/index.npy")
    (server.root / "set/train/index.npy").write_bytes(b"another")
    save_manifest(
        Manifest(size=64, fit="crop", dtype="uint8", splits={}, left_out={}), server.root / "set"
    )
    new = Remote(store.location, store.cache, FAST).path("train/index.npy")
    assert (old.read_bytes(), new.read_bytes()) == (content(99, 1000), b"another")
    assert store.path("train/index.npy") == old


@pytest.mark.parametrize("fault", ["500", "503", "429", "cut", "stall", "short", "wrong"])
def test_temporary_faults_are_retried(
    fault: str,
    server: Server,
    shards: tuple[Shard, ...],
    store: Remote,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store.policy = SHORT_TIMEOUT if fault == "stall" else FAST
    server.faults[f"set/{shards[0].path}"].extend([fault, fault])
    assert fetch(store, shards[0]).read_bytes() == content(0)
    assert server.requests[f"set/{shards[0].path}"] == 3
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("; try ")[1][:6] for line in lines] == ["2 of 3", "3 of 3"]
    assert not temporary_files(store.cache.folder)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "500",
            r"000000.tar: .*500.* \(3 tries\): check the address and the network",
        ),
        ("cut", r"http://\S+/set/train/000000.tar: .* \(3 tries\): check"),
        ("stall", r"http://\S+/set/train/000000.tar: no data for 0.4 s \(3 tries\): check"),
        (
            "short",
            r"000000.tar: received 150000 bytes, expected 300000 \(3 tries\): the file",
        ),
    ],
)
def test_persistent_faults_raise_a_one_line_error(
    fault: str, message: str, server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    store.policy = SHORT_TIMEOUT if fault == "stall" else FAST
    server.faults[f"set/{shards[0].path}"].extend([fault] * 3)
    with pytest.raises(UserError, match=message) as caught:
        fetch(store, shards[0])
    assert str(caught.value).startswith(f"{server.url}/set/train/000000.tar: ")
    assert "\n" not in str(caught.value)
    assert server.requests[f"set/{shards[0].path}"] == 3
    assert not temporary_files(store.cache.folder)
    assert fetch(store, shards[0]).read_bytes() == content(0)


def test_error_for_wrong_bytes_has_both_hashes(
    server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    store.policy = RetryPolicy(tries=9, wait=0.01)
    server.faults[f"set/{shards[1].path}"].extend(["wrong"] * 9)
    wrong = hashlib.sha256(bytes([content(1)[0] ^ 1]) + content(1)[1:]).hexdigest()
    expected = shards[1].sha256
    message = rf"000001.tar: received SHA-256 {wrong}, expected {expected} \(3 tries\)"
    with pytest.raises(UserError, match=message):
        fetch(store, shards[1])
    assert server.requests[f"set/{shards[1].path}"] == 3  # a mismatch is not tried nine times
    assert len(list(store.cache.folder.glob("*/*.tar"))) == 0


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("404", r"^http://127.0.0.1:\d+/set/train/000000.tar does not exist: check the address$"),
        ("403", r"^http://\S+: access denied: check the address and your credentials$"),
        ("400", r"^http://\S+: the server returned 400: check the address$"),
    ],
)
def test_permanent_errors_are_not_retried(
    fault: str, message: str, server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    server.faults[f"set/{shards[0].path}"].append(fault)
    with pytest.raises(UserError, match=message):
        fetch(store, shards[0])
    assert server.requests[f"set/{shards[0].path}"] == 1
    assert not temporary_files(store.cache.folder)


def test_missing_shard_set_raises(server: Server, tmp_path: Path) -> None:
    store = open_store(f"{server.url}/elsewhere", Cache(tmp_path / "cache", BIG))
    with pytest.raises(
        UserError, match=r"^http://\S+/elsewhere/manifest.json does not exist: check the address$"
    ):
        store.path("train/index.npy")


def test_unreachable_server_raises(tmp_path: Path) -> None:
    store = Remote(
        "http://127.0.0.1:9/set", Cache(tmp_path / "cache", BIG), RetryPolicy(tries=2, wait=0.01)
    )
    with pytest.raises(
        UserError,
        match=r"^http://127.0.0.1:9/set/manifest.json: Cannot connect .* \(2 tries\): check",
    ):
        store.manifest()


def test_full_disk_raises_and_is_not_retried(
    server: Server, shards: tuple[Shard, ...], store: Remote, tmp_path: Path
) -> None:
    """A limit on the file size simulates a full disk: both fail while writing."""
    program = (
        "import resource, signal, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + FETCH
    )
    err = run(program, store, 0).communicate(timeout=60)[1].decode()
    assert len(err.splitlines()) == 1
    assert err.startswith(f"error: File too large at {store.cache.folder}/")
    assert "000000.tar" in err
    assert server.requests[f"set/{shards[0].path}"] == 1
    assert not temporary_files(store.cache.folder)


def test_four_processes_download_each_file_once(
    server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    running = [run(FETCH, store, *order) for order in ORDERS]
    for process in running:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, b"")
        assert len(out.splitlines()) == 4
    assert [server.requests[f"set/{shard.path}"] for shard in shards] == [1, 1, 1, 1]
    assert not temporary_files(store.cache.folder)
    for number, shard in enumerate(shards):
        assert fetch(store, shard).read_bytes() == content(number)


def test_four_processes_use_a_cache_for_two_files(
    server: Server, shards: tuple[Shard, ...], tmp_path: Path
) -> None:
    size = 2 * BIG + 5000
    store = Remote(f"{server.url}/set", Cache(tmp_path / "cache", size), FAST)
    running = [run(FETCH, store, *order) for order in ORDERS]
    maximum = 0
    while any(process.poll() is None for process in running):
        maximum = max(maximum, bytes_in(tmp_path / "cache"))
        time.sleep(0.002)
    assert all(process.wait() == 0 for process in running), [
        process.communicate()[1] for process in running
    ]
    assert maximum <= size
    assert not temporary_files(store.cache.folder)
    for process in running:
        process.communicate()


def test_waiting_process_takes_over_a_killed_download(
    server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    server.faults[f"set/{shards[0].path}"].append("stall")
    first = run(FETCH, store, 0)
    wait_for(lambda: has_partial_shard(store.cache.folder))
    second = run(FETCH, store, 0)
    wait_for(lambda: server.requests[f"set/{MANIFEST}"] == 2)
    time.sleep(0.2)  # time to reach the lock; without it the test is weaker
    assert second.poll() is None
    assert not list(store.cache.folder.glob("*/*.tar"))
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    out, err = second.communicate(timeout=30)
    assert err == b""
    assert Path(out.decode().strip()).read_bytes() == content(0)
    assert not temporary_files(store.cache.folder)
    assert server.requests[f"set/{shards[0].path}"] == 2


def test_files_of_a_killed_download_are_removed(
    server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    server.faults[f"set/{shards[0].path}"].append("stall")
    first = run(FETCH, store, 0)
    wait_for(lambda: has_partial_shard(store.cache.folder))
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert len(temporary_files(store.cache.folder)) == 2  # the partial download and its lock
    fetch(store, shards[1])
    assert not temporary_files(store.cache.folder)
    assert fetch(store, shards[0]).read_bytes() == content(0)


def test_prefetch_downloads_half_a_cache_in_the_background(
    server: Server, shards: tuple[Shard, ...], tmp_path: Path
) -> None:
    store = Remote(f"{server.url}/set", Cache(tmp_path / "cache", 5 * BIG), FAST)
    store.prefetch(shards)
    wait_for(lambda: len(list(tmp_path.glob("cache/*/*.tar"))) == 2)
    wait_for(lambda: store._thread is None)
    assert [server.requests[f"set/{shard.path}"] for shard in shards] == [1, 1, 0, 0]
    assert fetch(store, shards[0]).read_bytes() == content(0)
    store.prefetch(shards[2:3])
    wait_for(lambda: len(list(tmp_path.glob("cache/*/*.tar"))) == 3)
    assert server.requests[f"set/{shards[0].path}"] == 1


def test_failed_prefetch_is_repeated_by_the_reader(
    server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    server.faults[f"set/{shards[0].path}"].append("404")
    store.prefetch(shards[:2])
    wait_for(lambda: store._thread is None)
    assert len(list(store.cache.folder.glob("*/*.tar"))) == 1
    assert fetch(store, shards[0]).read_bytes() == content(0)


def test_names_with_parent_folders_stay_in_the_cache(server: Server, store: Remote) -> None:
    (server.root / "other").write_bytes(b"other")
    found = store.path("../other")
    assert found.parent.parent == store.cache.folder
    assert sorted(path.name for path in store.cache.folder.parent.iterdir()) == ["cache", "served"]


def test_secrets_in_a_url_are_sent_but_redacted_in_messages(server: Server, tmp_path: Path) -> None:
    url = server.url.replace("http://", "http://me:secret@") + "/set?signature=secret"
    store = open_store(url, Cache(tmp_path / "cache", BIG))
    assert "secret" not in store.location
    assert store.path("train/index.npy").read_bytes() == content(99, 1000)
    with pytest.raises(UserError, match="does not exist") as caught:
        store.path("train/none.npy")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("location", ["https://example.org/set", "s3://bucket/set"])
def test_url_without_a_cache_raises(location: str) -> None:
    with pytest.raises(UserError, match=rf"^{location} is not on this machine: give --cache DIR"):
        open_store(location)


def test_unknown_scheme_raises(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"^ssss://bucket/set: unsupported URL \(Protocol not known: ssss\): give a ",
    ):
        open_store("ssss://bucket/set", Cache(tmp_path, BIG))


@pytest.mark.parametrize(
    ("scheme", "package", "extra"),
    [("gs", "gcsfs", "gcs"), ("gcs", "gcsfs", "gcs"), ("abfs", "adlfs", "remote")],
)
def test_missing_package_raises(
    scheme: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    hint = rf"pip install 'colortrain\[{extra}\]'"
    message = rf"^{scheme}://bucket/set: a package is missing \(.*{package}.*\): {hint}"
    with pytest.raises(UserError, match=message):
        open_store(f"{scheme}://bucket/set", Cache(tmp_path, BIG))


def test_errors_have_a_one_line_description(server: Server, store: Remote) -> None:
    server.faults[f"set/{MANIFEST}"].append("403")
    with pytest.raises(UserError) as caught:
        store.manifest()
    assert describe(caught.value) == str(caught.value)


def largest_file(folder: Path, stop: threading.Event) -> int:
    """Return the size of the largest file in a folder until `stop` is set."""
    largest = 0
    while not stop.wait(0.002):
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):
                largest = max(largest, path.stat().st_size)
    return largest


@pytest.mark.parametrize("fault", ["endless", "stated", "gzip"])
def test_download_stops_when_it_exceeds_the_size_in_the_manifest(
    fault: str, server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    server.faults[f"set/{shards[0].path}"].extend([fault] * 3)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        largest = pool.submit(largest_file, store.cache.folder, stop)
        try:
            with pytest.raises(
                UserError,
                match=r"000000.tar: received more than 300000 bytes, expected 300000 \(3 tries\): ",
            ):
                fetch(store, shards[0])
        finally:
            stop.set()
    assert largest.result() < 10_000_000
    assert not temporary_files(store.cache.folder)
    assert fetch(store, shards[0]).read_bytes() == content(0)


@pytest.mark.parametrize("fault", ["endless", "stated", "gzip"])
def test_manifest_that_is_too_large_is_refused_at_once(
    fault: str, server: Server, store: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.read.store.MAX_MANIFEST_BYTES", 5_000_000)
    server.faults[f"set/{MANIFEST}"].append(fault)
    with pytest.raises(
        UserError, match=r"set/manifest.json has more than the 5,000,000 bytes allowed: check"
    ):
        store.manifest()
    assert server.requests[f"set/{MANIFEST}"] == 1
    assert not temporary_files(store.cache.folder)


def test_file_of_unknown_size_is_limited_by_the_cache(server: Server, tmp_path: Path) -> None:
    store = Remote(f"{server.url}/set", Cache(tmp_path / "cache", 2_000_000), FAST)
    server.faults["set/train/index.npy"].append("endless")
    with pytest.raises(UserError, match=r"index.npy has more than the 2,000,000 bytes allowed"):
        store.path("train/index.npy")


def test_download_that_is_too_slow_ends_with_one_line(
    server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    store.policy = RetryPolicy(tries=2, wait=0.01, timeout=0.6, least_speed=100)
    server.faults[f"set/{shards[0].path}"].extend(["trickle"] * 2)
    with pytest.raises(
        UserError, match=r"000000.tar: only \d bytes in 0.6 s \(2 tries\): check the address and"
    ):
        fetch(store, shards[0])
    assert not temporary_files(store.cache.folder)


def test_stores_without_asynchronous_downloads_have_the_same_limits(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    data = content(1)
    system.pipe({"/set/a.tar": data, "/set/long.tar": data + b"x", f"/set/{MANIFEST}": b"{}"})
    store = Remote("memory://set", Cache(tmp_path / "cache", 2 * BIG), FAST)
    assert store.path("a.tar", bytes=BIG).read_bytes() == data
    with pytest.raises(UserError, match=r"long.tar: received more than 300000 bytes"):
        store.path("long.tar", bytes=BIG)
    system.rm("/set", recursive=True)


def test_damaged_manifest_is_named_by_its_url(server: Server, store: Remote) -> None:
    (server.root / "set" / MANIFEST).write_bytes(b"[" * 200_000)
    url = f"{server.url}/set/manifest.json"
    with pytest.raises(UserError, match=rf"^{url} is damaged \(values are nested too deeply"):
        store.manifest()
