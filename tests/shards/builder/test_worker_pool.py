"""Tests of worker_pool: one-line errors, and workers that skip `__main__`."""

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from shards.builder.pack import Report
from shards.builder.worker_pool import Task, run_tasks
from shards.errors import UserError
from shards.progress import ProgressLine
from tests.support.photographs import make_folder


def return_value(value: int, report: Report) -> int:
    report(1)
    return value


def test_worker_that_dies_during_submit_raises_a_user_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> NoReturn:
        raise BrokenProcessPool

    monkeypatch.setattr(ProcessPoolExecutor, "submit", fail)
    tasks: list[Task[int]] = [partial(return_value, value) for value in range(3)]
    with (
        ProgressLine("testing", 3, "tasks", shown=False) as progress,
        pytest.raises(UserError, match="was killed"),
    ):
        list(run_tasks(tasks, 2, progress))


def test_long_tmpdir_gives_a_one_line_error(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    photos = make_folder(tmp_path / "photos", 4)
    command = [sys.executable, "-m", "shards", "build", str(photos), str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--size", "32", "--workers", "2"],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"colortrain shards: error: the path of {folder} is too long for a socket: "
        "set TMPDIR to a shorter path\n"
    )


SCRIPT = """
import sys
from pathlib import Path
print("once")
from shards.builder.build import BuildOptions, build
from shards.builder.plan import Parameters
options = BuildOptions(out=Path(sys.argv[2]), workers=2, quiet=True)
build(sys.argv[1], Parameters(size=16, shard_size=4), options)
"""


def test_workers_do_not_execute_the_main_script(tmp_path: Path) -> None:
    """Its imports can be slow, and it might start the build again."""
    photos = make_folder(tmp_path / "photos", 8)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, tmp_path / "script.py", photos, tmp_path / "out"]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "once\n")
    assert (tmp_path / "out" / "manifest.json").is_file()
