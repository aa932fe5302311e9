"""Snapshots of the source code: a job runs the copy made when it was submitted.

A job fails at its start if the copy has been modified since then.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from shards.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("shards", "colortrain", "launch", "slurm")
_SUFFIXES = (".py", ".yaml", ".toml", ".sbatch", ".sh")


@dataclass(frozen=True)
class CodeSnapshot:
    """A folder with a copy of the project's source files, and their hash."""

    folder: Path
    digest: str

    def check(self) -> None:
        """Raise UserError unless this process runs the code in the snapshot's folder.

        Also raise it if the files there were modified after the snapshot was taken.
        """
        if self.folder != ROOT:
            raise UserError(
                f"this process runs the code in {ROOT}, but the job was submitted "
                f"with {self.folder}: check PYTHONPATH, then submit again"
            )
        if digest_of(self.folder) != self.digest:
            raise UserError(
                f"the code snapshot {self.folder} was modified after submission: "
                "submit again, which makes a new snapshot"
            )


def _source_files(root: Path) -> list[Path]:
    """Return the paths, relative to `root`, of all source files of the project."""
    paths = [
        path
        for package in _PACKAGES
        for path in (root / package).rglob("*")
        if path.suffix in _SUFFIXES
    ]
    return sorted(path.relative_to(root) for path in paths)


def digest_of(root: Path) -> str:
    """Return a hash of the names and contents of the source files below `root`.

    16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in _source_files(root):
        content = (root / path).read_bytes()
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


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
