"""A pool of single-threaded worker processes that run tasks and report progress."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import forkserver, util
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from types import ModuleType
from typing import IO, Any, TypeVar

from shards.errors import UserError
from shards.progress import ProgressLine

Result = TypeVar("Result")
Task = Callable[[Callable[[int], None]], Result]  # called with report(done)
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_FOLDER, _FOLDER_LOCK = "colortrain-", ".colortrain-pool.lock"
_PRELOAD = ["numpy", "PIL.Image", "shards.builder.pack"]


def run_tasks(
    tasks: Sequence[Task[Result]], workers: int, progress: ProgressLine, start: int = 0
) -> Iterator[tuple[int, Result]]:
    """Run `tasks` in `workers` processes; yield (task index, result) as they finish.

    A task is picklable and is called with a function `report(number of items done)`.
    `start` is the number of items already done, which `progress` shows first. If a task
    fails, its error is raised after all others have stopped. Raises UserError if a
    worker was killed.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from _run_here(tasks, progress, start)
    else:
        yield from _run_pool(tasks, workers, progress, start)


def _run_here(
    tasks: Sequence[Task[Result]], progress: ProgressLine, start: int
) -> Iterator[tuple[int, Result]]:
    for index, task in enumerate(tasks):
        last = 0

        def report(done: int) -> None:
            nonlocal last
            last = done
            progress.advance_to(start + done)  # noqa: B023  # called in this iteration only

        yield index, task(report)
        start += last


def _run_pool(
    tasks: Sequence[Task[Result]], workers: int, progress: ProgressLine, start: int
) -> Iterator[tuple[int, Result]]:
    # Number of images done per task. If the last cell is not 0, the workers stop. Each
    # cell is written by one process without a lock, so a worker that is killed cannot
    # block the others.
    done = RawArray("Q", len(tasks) + 1)
    context = multiprocessing.get_context("forkserver")
    pool = ProcessPoolExecutor(workers, context, _init_worker, (done,))
    try:
        # Inside `try`, because a worker may be killed before the last `submit`.
        with _single_threaded_forkserver(), _without_main():
            futures: dict[Future[Result], int] = {
                pool.submit(_run_task, task, index): index for index, task in enumerate(tasks)
            }
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            progress.advance_to(start + sum(done[:-1]))
            for future in finished:
                yield futures[future], future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed (out of memory?): "
            "run the same command again, with fewer --workers"
        ) from None
    finally:
        done[len(tasks)] = 1
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _single_threaded_forkserver() -> Iterator[None]:
    """Start a process that forks single-threaded workers, within a `with` block."""
    # The server imports the libraries once, before any thread exists. Workers inherit
    # the environment and ignore Ctrl-C, because the parent process handles it.
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
    os.environ.update(_ONE_THREAD)
    try:
        multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOAD)
        _start_forkserver()
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        if in_main:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _without_main() -> Iterator[None]:
    """Replace `__main__` temporarily, so that workers do not import the main module."""
    # Importing it can take seconds, and no task is defined there.
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_forkserver() -> None:
    # multiprocessing has no other way to choose the name of its temporary folder.
    getattr(multiprocessing.current_process(), "_config", {}).setdefault("tempdir", _folder())
    try:
        forkserver.ensure_running()
    except OSError as error:
        if "path too long" not in str(error):  # this error has no errno
            raise
        folder = tempfile.gettempdir()
        raise UserError(
            f"the path of {folder} is too long for a socket: set TMPDIR to a shorter path"
        ) from None


@cache
def _folder() -> str:
    """Create and lock a temporary folder, which is removed when this process exits."""
    # It holds the server's socket. A process that is killed cannot delete its folder,
    # but unlocks it. So first remove all folders that are no longer locked.
    for stale in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*/{_FOLDER_LOCK}"):
        with suppress(OSError), open(stale, "r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(stale.parent, ignore_errors=True)
    # Renamed when it is locked, so that no other process removes it before.
    unlocked = Path(tempfile.mkdtemp(prefix=f"new-{_FOLDER}"))
    held = open(unlocked / _FOLDER_LOCK, "wb")  # noqa: SIM115 - held until this process exits
    with suppress(OSError):  # a file system without locks
        fcntl.flock(held, fcntl.LOCK_EX)
    folder = unlocked.rename(unlocked.with_name(unlocked.name.removeprefix("new-")))
    util.Finalize(None, _remove, (folder, held), exitpriority=-100)
    return str(folder)


def _remove(folder: Path, held: IO[bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    held.close()


_done: Any = None


def _init_worker(done: Any) -> None:
    global _done
    _done = done
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """End this worker process when its parent dies."""
    parent = multiprocessing.parent_process()
    if parent:  # without this, the worker would wait forever
        parent.join()
        os._exit(1)


class TaskStoppedError(Exception):
    """Raised in a worker to stop its task when another task failed, or on Ctrl-C."""


def _run_task(task: Task[Result], index: int) -> Result:
    def report(count: int) -> None:
        _done[index] = count
        if _done[len(_done) - 1]:
            raise TaskStoppedError

    return task(report)
