"""Snapshots of the source code: a job runs the copy made when it was submitted.

A job fails at its start if the copy has been modified since then: its batch script
hashes the copy once, before any process starts.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from shards.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("shards", "colortrain", "launch", "slurm")
_SUFFIXES = (".py", ".yaml", ".toml", ".sbatch", ".sh")
_DIGITS = 16  # hexadecimal, of a digest


@dataclass(frozen=True)
class CodeSnapshot:
    """A folder with a copy of the project's source files, and their hash."""

    folder: Path
    digest: str

    def check(self) -> None:
        """Raise UserError unless this process runs the code in `folder`."""
        if self.folder != ROOT:
            raise UserError(
                f"this process runs the code in {ROOT}, but the job was submitted "
                f"with {self.folder}: check PYTHONPATH, then submit again"
            )

    def check_lines(self) -> list[str]:
        """Return shell lines that exit with status 2 if the snapshot was modified.

        They compute `digest_of` with find and sha256sum, because a batch script may run
        where there is no Python, outside of the job's container.
        """
        names = " -o ".join(f"-name '*{suffix}'" for suffix in _SUFFIXES)
        find = f"find {' '.join(_PACKAGES)} -type f \\( {names} \\)"
        hashes = f"{find} | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum"
        message = (
            f"slurm: error: the code snapshot {self.folder} was modified after submission: "
            "submit again, which makes a new snapshot"
        )
        return [
            f"digest=$(cd {shlex.quote(str(self.folder))} && {hashes} | cut -c -{_DIGITS})",
            f'[ "$digest" = {self.digest} ] || {{ echo {shlex.quote(message)} >&2; exit 2; }}',
        ]


def _source_files(root: Path) -> list[Path]:
    """Return the paths, relative to `root`, of all source files of the project.

    They are sorted as strings, as by `LC_ALL=C sort`.
    """
    paths = [
        path
        for package in _PACKAGES
        for path in (root / package).rglob("*")
        if path.suffix in _SUFFIXES
    ]
    return sorted((path.relative_to(root) for path in paths), key=str)


def digest_of(root: Path) -> str:
    """Return a hash of the names and contents of the source files below `root`.

    16 hexadecimal digits: the beginning of the SHA-256 of what sha256sum prints for
    them.
    """
    lines = [
        f"{hashlib.sha256((root / path).read_bytes()).hexdigest()}  {path}\n"
        for path in _source_files(root)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:_DIGITS]


def planned_snapshot(parent: Path) -> CodeSnapshot:
    """Return the snapshot that `take_snapshot` would return now, but copy nothing."""
    digest = digest_of(ROOT)
    return CodeSnapshot(parent / f"code-{digest}", digest)


def take_snapshot(parent: Path) -> CodeSnapshot:
    """Copy the running code to `parent`/code-<hash>, unless that folder exists.

    Returns the snapshot in that folder.
    """
    temporary = parent / f"code.{os.uname().nodename}.{os.getpid()}.tmp"
    for path in _source_files(ROOT):
        (temporary / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, temporary / path)
    digest = digest_of(temporary)
    snapshot = CodeSnapshot(parent.resolve() / f"code-{digest}", digest)
    if snapshot.folder.is_dir():
        shutil.rmtree(temporary)
    else:
        temporary.rename(snapshot.folder)
    return snapshot
