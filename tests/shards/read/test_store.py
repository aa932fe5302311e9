"""Shards from real servers: byte for byte, each once for all processes, whatever breaks on the way."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shards.errors import UserError, describe
from shards.format.manifest import MANIFEST, Manifest, Shard, load_manifest, save_manifest
from shards.read.cache import Cache
from shards.read.remote import Patience
from shards.read.store import Folder, Remote, open_store
from tests.support.http_server import Server, serving

QUICK = Patience(tries=3, wait=0.01, silence=20)
IMPATIENT = Patience(tries=3, wait=0.01, silence=0.4)
BIG = 300_000
ORDERS = ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1])  # in which four processes ask


def content(number: int, bytes: int = BIG) -> bytes:
    return hashlib.shake_128(bytes.to_bytes(4, "big") + b"%d" % number).digest(bytes)


def make_set(root: Path, count: int = 4) -> tuple[Shard, ...]:
    """Files that a manifest names as the shards of a set; what is in them is no matter here."""
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


def bring(store: Remote, shard: Shard) -> Path:
    return store.path(shard.path, bytes=shard.bytes, sha256=shard.sha256)


BRING = """
import json, sys
from shards.read.cache import Cache
from shards.errors import describe
from shards.format.manifest import MANIFEST
from shards.read.remote import Patience
from shards.read.store import Remote
url, cache, size, *numbers = sys.argv[1:]
store = Remote(url, Cache(cache, int(size)), Patience(tries=3, wait=.01, silence=20))
shards = json.loads(store.path(MANIFEST).read_text())["splits"]["train"]
try:
    for number in map(int, numbers):
        shard = shards[number]
        path = store.path(shard["path"], bytes=shard["bytes"], sha256=shard["sha256"])
        print(path, flush=True)
except Exception as error:
    sys.exit(f"error: {describe(error)}")
"""


def run(program: str, store: Remote, *numbers: int) -> subprocess.Popen[bytes]:
    words = [store._url, str(store.cache.folder), str(store.cache.max_bytes), *map(str, numbers)]
    return subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
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
    return Remote(f"{server.url}/set", Cache(tmp_path / "cache", 10 * BIG), QUICK)


def half_a_shard(cache: Path) -> bool:
    """Whether some of a shard, not of the manifest before it, has come."""
    return any(path.stat().st_size for path in cache.glob("*/.*.tar*.part"))


def left_behind(cache: Path) -> list[str]:
    """Names in a cache that are neither whole files nor the cache's own two."""
    return [path.name for path in cache.glob("*/.*")]


def test_a_path_is_a_folder_and_nothing_is_copied(tmp_path: Path) -> None:
    for location in (tmp_path, str(tmp_path), f"file://{tmp_path}"):
        store = open_store(location)
        assert isinstance(store, Folder)
        assert store.path("train/000000.tar") == tmp_path / "train/000000.tar"
    assert not list(tmp_path.iterdir())


def test_every_file_comes_byte_for_byte_and_once(
    server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    for _ in range(2):
        assert store.path(MANIFEST).read_bytes() == (server.root / "set" / MANIFEST).read_bytes()
        assert store.path("train/index.npy").read_bytes() == content(99, 1000)
        for number, shard in enumerate(shards):
            assert bring(store, shard).read_bytes() == content(number)
    assert set(server.requests.values()) == {1}
    assert len(server.requests) == 6
    again = Remote(store.location + "/", store.cache, QUICK)
    bring(again, shards[0])
    assert server.requests[f"set/{MANIFEST}"] == 2  # asked for at every start
    assert sum(server.requests.values()) == 7
    assert not left_behind(store.cache.folder)


def test_a_set_that_has_changed_is_not_mixed_with_the_old_one(
    server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    old = store.path("train/index.npy")
    (server.root / "set/train/index.npy").write_bytes(b"another")
    save_manifest(
        Manifest(size=64, fit="crop", dtype="uint8", splits={}, left_out={}), server.root / "set"
    )
    new = Remote(store.location, store.cache, QUICK).path("train/index.npy")
    assert (old.read_bytes(), new.read_bytes()) == (content(99, 1000), b"another")
    assert store.path("train/index.npy") == old


@pytest.mark.parametrize("fault", ["500", "503", "429", "cut", "stall", "short", "wrong"])
def test_what_passes_is_tried_again(
    fault: str,
    server: Server,
    shards: tuple[Shard, ...],
    store: Remote,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store.patience = IMPATIENT if fault == "stall" else QUICK
    server.faults[f"set/{shards[0].path}"].extend([fault, fault])
    assert bring(store, shards[0]).read_bytes() == content(0)
    assert server.requests[f"set/{shards[0].path}"] == 3
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("; try ")[1][:6] for line in lines] == ["2 of 3", "3 of 3"]
    assert not left_behind(store.cache.folder)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            "500",
            r"http://\S+/set/train/000000.tar: .*500.* \(3 tries\): check the address and the network",
        ),
        ("cut", r"http://\S+/set/train/000000.tar: .* \(3 tries\): check"),
        ("stall", r"http://\S+/set/train/000000.tar: nothing came for 0.4 s \(3 tries\): check"),
        (
            "short",
            r"http://\S+/set/train/000000.tar: 150000 bytes came, 300000 were expected \(3 tries\): the file",
        ),
    ],
)
def test_what_stays_broken_is_one_line(
    fault: str, words: str, server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    store.patience = IMPATIENT if fault == "stall" else QUICK
    server.faults[f"set/{shards[0].path}"].extend([fault] * 3)
    with pytest.raises(UserError, match=words) as caught:
        bring(store, shards[0])
    assert "\n" not in str(caught.value)
    assert server.requests[f"set/{shards[0].path}"] == 3
    assert not left_behind(store.cache.folder)
    assert bring(store, shards[0]).read_bytes() == content(0)


def test_wrong_bytes_are_named_with_both_hashes(
    server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    store.patience = Patience(tries=9, wait=0.01)
    server.faults[f"set/{shards[1].path}"].extend(["wrong"] * 9)
    wrong = hashlib.sha256(bytes([content(1)[0] ^ 1]) + content(1)[1:]).hexdigest()
    words = rf"http://\S+/set/train/000001.tar: SHA-256 {wrong} came, {shards[1].sha256} was expected \(3 tries\)"
    with pytest.raises(UserError, match=words):
        bring(store, shards[1])
    assert server.requests[f"set/{shards[1].path}"] == 3  # not nine times a file that is another
    assert len(list(store.cache.folder.glob("*/*.tar"))) == 0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("404", r"^http://127.0.0.1:\d+/set/train/000000.tar does not exist: check the address$"),
        ("403", r"^http://\S+: access denied: check the address and your credentials$"),
        ("400", r"^http://\S+: the server answers 400: check the address$"),
    ],
)
def test_a_refusal_is_not_tried_again(
    fault: str, words: str, server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    server.faults[f"set/{shards[0].path}"].append(fault)
    with pytest.raises(UserError, match=words):
        bring(store, shards[0])
    assert server.requests[f"set/{shards[0].path}"] == 1
    assert not left_behind(store.cache.folder)


def test_no_set_there_is_one_line(server: Server, tmp_path: Path) -> None:
    store = open_store(f"{server.url}/elsewhere", Cache(tmp_path / "cache", BIG))
    with pytest.raises(
        UserError, match=r"^http://\S+/elsewhere/manifest.json does not exist: check the address$"
    ):
        store.path("train/index.npy")


def test_no_server_there_is_one_line(tmp_path: Path) -> None:
    store = Remote(
        "http://127.0.0.1:9/set", Cache(tmp_path / "cache", BIG), Patience(tries=2, wait=0.01)
    )
    with pytest.raises(
        UserError,
        match=r"^http://127.0.0.1:9/set/manifest.json: Cannot connect .* \(2 tries\): check",
    ):
        store.path(MANIFEST)


def test_a_full_disk_is_one_line_and_not_tried_again(
    server: Server, shards: tuple[Shard, ...], store: Remote, tmp_path: Path
) -> None:
    """A limit on file sizes stands for a full disk: both fail in the middle of writing."""
    program = (
        "import resource, signal, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + BRING
    )
    err = run(program, store, 0).communicate(timeout=60)[1].decode()
    assert len(err.splitlines()) == 1
    assert err.startswith(f"error: File too large at {store.cache.folder}/")
    assert "000000.tar" in err
    assert server.requests[f"set/{shards[0].path}"] == 1
    assert not left_behind(store.cache.folder)


def test_four_processes_bring_each_file_once(
    server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    running = [run(BRING, store, *order) for order in ORDERS]
    for process in running:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, b"")
        assert len(out.splitlines()) == 4
    assert [server.requests[f"set/{shard.path}"] for shard in shards] == [1, 1, 1, 1]
    assert not left_behind(store.cache.folder)
    for number, shard in enumerate(shards):
        assert bring(store, shard).read_bytes() == content(number)


def test_four_processes_share_a_cache_of_two_files(
    server: Server, shards: tuple[Shard, ...], tmp_path: Path
) -> None:
    size = 2 * BIG + 5000
    store = Remote(f"{server.url}/set", Cache(tmp_path / "cache", size), QUICK)
    running = [run(BRING, store, *order) for order in ORDERS]
    most = 0
    while any(process.poll() is None for process in running):
        most = max(most, bytes_in(tmp_path / "cache"))
        time.sleep(0.002)
    assert all(process.wait() == 0 for process in running), [
        process.communicate()[1] for process in running
    ]
    assert most <= size
    assert not left_behind(store.cache.folder)
    for process in running:
        process.communicate()


def test_a_killed_download_is_taken_over_by_who_waits(
    server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    server.faults[f"set/{shards[0].path}"].append("stall")
    first = run(BRING, store, 0)
    wait_for(lambda: half_a_shard(store.cache.folder))
    second = run(BRING, store, 0)
    wait_for(lambda: server.requests[f"set/{MANIFEST}"] == 2)
    time.sleep(0.2)  # until it waits for the lock, or it is a weaker test
    assert second.poll() is None
    assert not list(store.cache.folder.glob("*/*.tar"))
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    out, err = second.communicate(timeout=30)
    assert err == b""
    assert Path(out.decode().strip()).read_bytes() == content(0)
    assert not left_behind(store.cache.folder)
    assert server.requests[f"set/{shards[0].path}"] == 2


def test_what_a_killed_download_left_is_cleared_away(
    server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    server.faults[f"set/{shards[0].path}"].append("stall")
    first = run(BRING, store, 0)
    wait_for(lambda: half_a_shard(store.cache.folder))
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert len(left_behind(store.cache.folder)) == 2  # the part and its lock
    bring(store, shards[1])
    assert not left_behind(store.cache.folder)
    assert bring(store, shards[0]).read_bytes() == content(0)


def test_prefetch_brings_half_a_cache_in_the_background(
    server: Server, shards: tuple[Shard, ...], tmp_path: Path
) -> None:
    store = Remote(f"{server.url}/set", Cache(tmp_path / "cache", 5 * BIG), QUICK)
    store.prefetch(shards)
    wait_for(lambda: len(list(tmp_path.glob("cache/*/*.tar"))) == 2)
    wait_for(lambda: store._thread is None)
    assert [server.requests[f"set/{shard.path}"] for shard in shards] == [1, 1, 0, 0]
    assert bring(store, shards[0]).read_bytes() == content(0)
    store.prefetch(shards[2:3])
    wait_for(lambda: len(list(tmp_path.glob("cache/*/*.tar"))) == 3)
    assert server.requests[f"set/{shards[0].path}"] == 1


def test_a_prefetch_that_fails_is_left_to_the_reader(
    server: Server, shards: tuple[Shard, ...], store: Remote
) -> None:
    server.faults[f"set/{shards[0].path}"].append("404")
    store.prefetch(shards[:2])
    wait_for(lambda: store._thread is None)
    assert len(list(store.cache.folder.glob("*/*.tar"))) == 1
    assert bring(store, shards[0]).read_bytes() == content(0)


def test_names_that_lead_elsewhere_stay_in_the_cache(server: Server, store: Remote) -> None:
    (server.root / "other").write_bytes(b"other")
    found = store.path("../other")
    assert found.parent.parent == store.cache.folder
    assert sorted(path.name for path in store.cache.folder.parent.iterdir()) == ["cache", "served"]


def test_secrets_in_a_url_are_sent_but_not_shown(server: Server, tmp_path: Path) -> None:
    url = server.url.replace("http://", "http://me:secret@") + "/set?signature=secret"
    store = open_store(url, Cache(tmp_path / "cache", BIG))
    assert "secret" not in store.location
    assert store.path("train/index.npy").read_bytes() == content(99, 1000)
    with pytest.raises(UserError, match="does not exist") as caught:
        store.path("train/none.npy")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("location", ["https://example.org/set", "s3://bucket/set"])
def test_a_url_without_a_cache_is_refused(location: str) -> None:
    with pytest.raises(UserError, match=rf"^{location} is not on this machine: give --cache DIR"):
        open_store(location)


def test_an_unknown_scheme_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"^ssss://bucket/set: unusable address \(Protocol not known: ssss\): give a ",
    ):
        open_store("ssss://bucket/set", Cache(tmp_path, BIG))


@pytest.mark.parametrize(
    ("scheme", "package", "extra"),
    [("gs", "gcsfs", "gcs"), ("gcs", "gcsfs", "gcs"), ("abfs", "adlfs", "remote")],
)
def test_a_missing_package_is_one_line(
    scheme: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = rf"^{scheme}://bucket/set: a package is missing \(.*{package}.*\): pip install 'colortrain\[{extra}\]'"
    with pytest.raises(UserError, match=said):
        open_store(f"{scheme}://bucket/set", Cache(tmp_path, BIG))


def test_errors_are_the_users(server: Server, store: Remote) -> None:
    server.faults[f"set/{MANIFEST}"].append("403")
    with pytest.raises(UserError) as caught:
        store.path(MANIFEST)
    assert describe(caught.value) == str(caught.value)
