"""The members of a tar of images, and proof that the tar is whole: `tarfile` ends without a word at damage."""

from __future__ import annotations

import posixpath
import tarfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from shards.errors import UserError

NOWHERE = -1  # the offset of a link that leads to no file of its tar
_BLOCK = 512
_MAX_LINKS = 16


class Member(NamedTuple):
    """A file in a tar: where its content lies."""

    name: str
    offset: int
    size: int


def members(path: Path) -> list[Member]:
    """The files of a tar, links resolved; raises `UserError` for no tar, and for one that is damaged or cut short."""
    found: list[tarfile.TarInfo] = []
    try:
        with tarfile.open(path, "r:") as archive:
            try:
                found.extend(
                    archive
                )  # the members before the damage are kept: one was there, so it is a tar
            except tarfile.TarError:
                raise _damaged(path, min(archive.offset, path.stat().st_size)) from None
            _check_end(path, archive.offset)
    except tarfile.TarError as error:
        raise UserError(
            f"{path} is no plain tar ({error}): unpack it, or leave it out of the pattern"
        ) from None
    return _resolve(found)


def _damaged(path: Path, place: int) -> UserError:
    return UserError(
        f"{path} is damaged or cut short at byte {place}: restore it, or leave it out of the pattern"
    )


def _check_end(path: Path, end: int) -> None:
    """A tar ends with two empty blocks, and with nothing but zeros after them."""
    with open(path, "rb") as stream:
        stream.seek(end)
        if stream.read(2 * _BLOCK) != bytes(2 * _BLOCK):
            raise _damaged(path, end)
        _check_zeros(path, stream)


def _check_zeros(path: Path, stream: BinaryIO) -> None:
    while piece := stream.read(1 << 20):
        if piece.strip(b"\0"):
            raise _damaged(path, stream.tell() - len(piece.lstrip(b"\0")))


def _resolve(found: list[tarfile.TarInfo]) -> list[Member]:
    """Files as they are, links as what they lead to; folders are nothing, and what else there is lies nowhere."""
    by_name = {posixpath.normpath(each.name): each for each in found}
    return [_member(each, by_name) for each in found if not each.isdir()]


def _member(info: tarfile.TarInfo, by_name: dict[str, tarfile.TarInfo]) -> Member:
    target: tarfile.TarInfo | None = info
    for _ in range(_MAX_LINKS):
        if target is None or not (target.islnk() or target.issym()):
            break
        folder = posixpath.dirname(target.name) if target.issym() else ""
        target = by_name.get(posixpath.normpath(posixpath.join(folder, target.linkname)))
    if target is None or not target.isreg() or target.issparse():
        return Member(info.name, NOWHERE, 0)
    return Member(info.name, target.offset_data, target.size)
