"""Where a shard set lies: a folder. Readers ask for the local path of a file, never for the folder itself."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Store(Protocol):
    """The files of one shard set, wherever they are."""

    location: str  # as the user wrote it, for messages

    def path(self, relative: str, *, bytes: int | None = None, sha256: str | None = None) -> Path:
        """Where the file lies on this machine, which it may have to be brought to first.

        What is brought is checked against `bytes` and `sha256` where given; what was here is not. A file that is
        nowhere gets a path all the same: opening it says so.
        """
        ...


class Folder:
    """A shard set on a file system of this machine, local or shared."""

    def __init__(self, location: str | Path) -> None:
        self.location = str(location)
        self.root = Path(location)

    def path(self, relative: str, *, bytes: int | None = None, sha256: str | None = None) -> Path:
        return self.root / relative


def open_store(location: str | Path) -> Store:
    """The store at a location."""
    return Folder(location)
