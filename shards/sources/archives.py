"""List the files in a tar, and check that the tar is complete."""

from __future__ import annotations

import posixpath
import tarfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from shards.errors import UserError

NO_CONTENT = (
    -1
)  # offset of a link whose target is no file in the tar, and of a sparse or special file
_BLOCK = 512
_MAX_LINKS = 16


class Member(NamedTuple):
    """A file in a tar: its name, and the byte offset and size of its content."""

    name: str
    offset: int
    size: int


def members(path: Path) -> list[Member]:
    """Return all files in a tar; a link to a file in the tar has the file's content.

    Raises UserError if `path` is not an uncompressed tar, is damaged or is cut short.
    """
    entries: list[tarfile.TarInfo] = []
    try:
        with tarfile.open(path, "r:", encoding="utf-8") as archive:
            try:
                entries.extend(archive)
            except tarfile.TarError:  # `open` has read a member: a tar, but damaged
                raise _damaged(path, min(archive.offset, path.stat().st_size)) from None
            _check_end(path, archive.offset)
    except tarfile.TarError as error:
        raise UserError(
            f"{path} is not an uncompressed tar ({error}): decompress it, or exclude it from SOURCE"
        ) from None
    return _resolve(entries)


def _damaged(path: Path, offset: int) -> UserError:
    return UserError(
        f"{path} is damaged or cut short at byte {offset}: restore it, or exclude it from SOURCE"
    )


def _check_end(path: Path, end: int) -> None:
    """Raise UserError unless the tar ends correctly after its last member, at `end`."""
    # `tarfile` stops at damage without an error. A tar must end with two empty blocks
    # of 512 bytes, followed only by zeros.
    with open(path, "rb") as stream:
        stream.seek(end)
        if stream.read(2 * _BLOCK) != bytes(2 * _BLOCK):
            raise _damaged(path, end)
        _check_zeros(path, stream)


def _check_zeros(path: Path, stream: BinaryIO) -> None:
    while chunk := stream.read(1 << 20):
        if chunk.strip(b"\0"):
            raise _damaged(path, stream.tell() - len(chunk.lstrip(b"\0")))


def _resolve(entries: list[tarfile.TarInfo]) -> list[Member]:
    """Return all members of a tar except folders; links have their targets' content."""
    by_name = {posixpath.normpath(each.name): each for each in entries}
    return [_member(each, by_name) for each in entries if not each.isdir()]


def _member(info: tarfile.TarInfo, by_name: dict[str, tarfile.TarInfo]) -> Member:
    target: tarfile.TarInfo | None = info
    for _ in range(_MAX_LINKS):
        if target is None or not (target.islnk() or target.issym()):
            break
        folder = posixpath.dirname(target.name) if target.issym() else ""
        target = by_name.get(posixpath.normpath(posixpath.join(folder, target.linkname)))
    if target is None or not target.isreg() or target.issparse():
        return Member(info.name, NO_CONTENT, 0)
    return Member(info.name, target.offset_data, target.size)
