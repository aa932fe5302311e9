"""The pool's own failures are one line too."""

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


def answer(value: int, report: Report) -> int:
    report(1)
    return value


def test_a_worker_that_dies_while_tasks_are_handed_out_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def break_down(*_: Any) -> NoReturn:
        raise BrokenProcessPool

    monkeypatch.setattr(ProcessPoolExecutor, "submit", break_down)
    tasks: list[Task[int]] = [partial(answer, value) for value in range(3)]
    with (
        ProgressLine("testing", 3, "tasks", shown=False) as progress,
        pytest.raises(UserError, match="was killed"),
    ):
        list(run_tasks(tasks, 2, progress))


def test_a_long_tmpdir_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    photos = make_folder(tmp_path / "photos", 4)
    command = [
        sys.executable,
        "-m",
        "shards",
        "build",
        photos,
        tmp_path / "out",
        "--size",
        "32",
        "--workers",
        "2",
    ]
    done = subprocess.run(
        [*map(str, command)],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"colortrain shards: error: the path of {folder} is too long for a socket in it: set TMPDIR to a shorter one\n"
    )


SCRIPT = """
import sys
from pathlib import Path
print("once")
from shards.builder.build import BuildOptions, build
from shards.builder.plan import Parameters
build(sys.argv[1], Parameters(size=16, shard_size=4), BuildOptions(out=Path(sys.argv[2]), workers=2, quiet=True))
"""


def test_workers_do_not_run_the_script_that_builds(tmp_path: Path) -> None:
    """It may import for seconds, and one without `if __name__ == "__main__"` would build again in every worker."""
    photos = make_folder(tmp_path / "photos", 8)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, tmp_path / "script.py", photos, tmp_path / "out"]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "once\n")
    assert (tmp_path / "out" / "manifest.json").is_file()
