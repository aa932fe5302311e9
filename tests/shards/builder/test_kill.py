"""Tests of builds interrupted by SIGKILL, Ctrl-C or a killed worker.

The same command must then finish with the same bytes.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.photographs import fingerprint, make_folder, pack_folder

OPTIONS = ["--size", "64", "--splits", "train=.8,val=.2", "--shard-size", "8"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_folder(tmp_path_factory.mktemp("photos"), 250, 120)
    (folder / "broken.jpg").write_bytes(b"broken")
    for number in range(5):
        (folder / f"copy{number}.jpg").write_bytes(
            (folder / "class0" / f"photo {6 * number:03d}.jpg").read_bytes()
        )
    return folder


@pytest.fixture(scope="module")
def uninterrupted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    result = pack_folder(photos, out, size=64, splits="train=.8,val=.2", shard_size=8)
    assert result.manifest.left_out == {"duplicate": 5, "unreadable": 1}
    return fingerprint(out)


def start(photos: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "shards", "build", str(photos), str(out), *OPTIONS]
    return subprocess.Popen(
        [*command, "--workers", str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_restore_sigint,
    )


def _restore_sigint() -> None:
    """Restore SIGINT's handler: background processes inherit SIG_IGN."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_for_blocks(out: Path, records: int, process: subprocess.Popen[str]) -> None:
    """Wait until `records` blocks are done."""
    while process.poll() is None and len(list(out.glob("sources/*.jsonl"))) < records:
        time.sleep(0.002)


def wait_for_group_exit(group: int) -> None:
    """Wait until no process of the group is left: orphans must exit by themselves."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("orphans are still running")


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_builds_finish_with_the_same_bytes(
    photos: Path, uninterrupted: dict[str, str], tmp_path: Path, workers: int
) -> None:
    random.seed(workers)
    out = tmp_path / "out"
    kills = 0
    for records in (1, 20):
        process = start(photos, out, workers)
        wait_for_blocks(out, records, process)
        time.sleep(random.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        wait_for_group_exit(process.pid)
    assert kills >= 1
    last = start(photos, out, workers)
    text, error = last.communicate(timeout=60)
    assert last.returncode == 1, error  # some images were left out
    assert "250 of 256 images" in text
    assert fingerprint(out) == uninterrupted


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_stops_cleanly_and_the_build_resumes(
    photos: Path, uninterrupted: dict[str, str], tmp_path: Path, workers: int
) -> None:
    out = tmp_path / "out"
    process = start(photos, out, workers)
    wait_for_blocks(out, 3, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert error.endswith("shards: interrupted\n")
    wait_for_group_exit(process.pid)
    assert not list(out.rglob("*.tmp"))
    assert not (out / "manifest.json").exists()
    pack_folder(photos, out, size=64, splits="train=.8,val=.2", shard_size=8)
    assert fingerprint(out) == uninterrupted


def test_killed_worker_stops_the_build_with_a_one_line_error(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(photos, out, 2)
    wait_for_blocks(out, 3, process)
    os.kill(newest_process_of_session(process.pid), signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in error
    assert "colortrain shards: error: a worker process was killed (out of memory?)" in error


def newest_process_of_session(session: int) -> int:
    """Return a session's newest process: a worker, since the forkserver is older."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            found.append((int(fields[19]), int(path.parent.name)))
    return max(found)[1]


@pytest.mark.parametrize(("mode", "points"), [("plain", 30), ("parts", 30), ("counts", 15)])
def test_build_killed_before_any_change_on_disk_is_resumed(
    tmp_path: Path, mode: str, points: int
) -> None:
    """Kills a build twice at each of several points.

    The source has duplicates and a damaged file, and there are two splits.
    """
    folder = make_folder(tmp_path / "photos", 10)
    (folder / "broken.jpg").write_bytes(b"broken")
    for number in range(3):
        (folder / f"copy{number}.png").write_bytes(
            (folder / "class1" / "photo 001.png").read_bytes()
        )
    command = [sys.executable, "-m", "tests.support.killed_builds"]
    command += [str(folder), str(tmp_path), str(points), mode]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # because it forks
    done = subprocess.run(
        command, env={**os.environ, **one_thread}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    tested, _, total, _ = done.stdout.split()
    assert int(tested) == points < int(total)
