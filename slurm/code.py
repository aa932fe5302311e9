"""The code a job runs is the code that was submitted: a copy in the run folder, refused if it was changed since."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from shards.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("shards", "colortrain", "launch", "slurm")
_KINDS = (".py", ".yaml", ".toml", ".sbatch", ".sh")


@dataclass(frozen=True)
class Code:
    """A folder with the packages, and the hash of what was put there."""

    folder: Path
    digest: str

    def check(self) -> None:
        """Raise `UserError` unless this process runs that code, unchanged."""
        if self.folder != ROOT:
            raise UserError(
                f"this process runs the code in {ROOT}, the job was submitted with {self.folder}"
            )
        if digest_of(self.folder) != self.digest:
            raise UserError(
                f"{self.folder} was changed after the job was submitted: submit again to run other code"
            )


def _files(root: Path) -> list[Path]:
    """Relative paths of all that belongs to the packages."""
    found = [
        path
        for package in _PACKAGES
        for path in (root / package).rglob("*")
        if path.suffix in _KINDS
    ]
    return sorted(path.relative_to(root) for path in found)


def digest_of(root: Path) -> str:
    """A hash over names and contents."""
    digest = hashlib.sha256()
    for path in _files(root):
        content = (root / path).read_bytes()
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def snapshot(parent: Path) -> Code:
    """Copy the running code to `parent`/code-<hash>, once for each state of it."""
    temporary = parent / f"code.{os.uname().nodename}.{os.getpid()}.tmp"
    for path in _files(ROOT):
        (temporary / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, temporary / path)
    code = Code(parent.resolve() / f"code-{digest_of(temporary)}", digest_of(temporary))
    if code.folder.is_dir():
        shutil.rmtree(temporary)
    else:
        temporary.rename(code.folder)
    return code
