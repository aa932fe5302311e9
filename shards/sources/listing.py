"""List the images of a source: a folder tree, a text file, tars of images, or CIFAR-10.

Listing reads only file names and tar headers; `read_bytes` reads one image, in any
process.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from shards.errors import UserError
from shards.sources import archives, cifar10

# Camera raw files are included, so that they are reported as unreadable and not
# silently ignored. What can be decoded is in `image_formats.FORMATS`.
SUFFIXES = (
    "jpg",
    "jpeg",
    "jpe",
    "jfif",
    "mpo",
    "png",
    "webp",
    "tif",
    "tiff",
    "bmp",
    "gif",
    "ppm",
    "pgm",
    "pnm",
    "jp2",
    "avif",
    "heic",
    "heif",
    "hif",
    "jxl",
    "dng",
    "cr2",
    "nef",
    "arw",
)
FILE, MEMBER, CIFAR_BINARY, CIFAR_PYTHON = "file", "member", "cifar binary", "cifar python"


class ImageSource(NamedTuple):
    """One source image: its name relative to SOURCE, and where its bytes are stored."""

    name: str
    path: str
    kind: str = FILE
    offset: int = 0  # of the first byte (tar member, CIFAR binary), or the row (CIFAR Python)
    size: int = 0
    split: str = ""  # CIFAR-10: train or test; otherwise the top-level folder


@dataclass(frozen=True)
class Listing:
    """All images of a SOURCE, sorted by name, and the files without an image suffix."""

    sources: list[ImageSource]
    ignored: list[str]


def open_sources(source: str, out: Path) -> Listing:
    """List the images of SOURCE, except those inside the output folder `out`.

    Raises UserError if SOURCE does not exist, is damaged or contains no images.
    """
    sources, ignored = _list_any(source, out)
    if not sources:
        hint = _hint(ignored)
        raise UserError(f"no images in {source}{hint}")
    return Listing(sorted(sources), sorted(ignored))


def _hint(ignored: list[str]) -> str:
    tars = sum(name.endswith(".tar") for name in ignored)
    if tars:
        return f": it contains {tars} tars, give them as a quoted pattern such as 'FOLDER/*.tar'"
    return ": give a folder, a text file, a quoted pattern of tars, or the CIFAR-10 folder"


def _list_any(source: str, out: Path) -> tuple[list[ImageSource], list[str]]:
    path = Path(source)
    if path.is_dir():
        batches = cifar10.find_batches(path)
        return (_list_cifar(batches), []) if batches else _list_folder(path, out)
    if path.is_file():
        return _list_file(path)
    if names := _expand(source, out):
        paths = [Path(name) for name in names]
        if all(map(cifar10.is_batch, paths)):
            return _list_cifar(paths), []
        return _list_tars(paths)
    raise UserError(
        f"no such source {source}: "
        "give a folder, a text file, a quoted pattern of tars, or the CIFAR-10 folder"
    )


def _list_file(path: Path) -> tuple[list[ImageSource], list[str]]:
    if cifar10.is_batch(path):
        return _list_cifar([path]), []
    if path.suffix == ".tar":
        return _list_tars([path])
    if _is_image(path.name):
        raise UserError(f"{path} is one image: give its folder, or a text file that lists images")
    return _list_text(path)


def _expand(pattern: str, out: Path) -> list[str]:
    """Return the files that match a pattern, sorted, except those inside `out`.

    The pattern may contain wildcards (`*`, `?`, `[]`) and braces (`{00..12}`).
    """
    import braceexpand  # a dependency of webdataset

    inside = os.path.realpath(out).rstrip("/") + "/"
    try:
        patterns = list(braceexpand.braceexpand(pattern))
    except ValueError:  # unbalanced braces: part of the name
        patterns = [pattern]
    # Not Path.glob, because the pattern may be absolute.
    names = {name for each in patterns for name in glob.glob(each, recursive=True)}  # noqa: PTH207
    files = (name for name in names if Path(name).is_file())
    return sorted(name for name in files if not os.path.realpath(name).startswith(inside))


def _is_image(name: str) -> bool:
    return name.rpartition(".")[2].lower() in SUFFIXES  # pathlib is slow for a million names


def _list_folder(root: Path, out: Path) -> tuple[list[ImageSource], list[str]]:
    sources, ignored = [], []
    for path in _walk(root, out):
        name = path[len(str(root).rstrip("/")) + 1 :]
        if _is_image(name):
            sources.append(
                ImageSource(name, path, split=name.partition("/")[0] if "/" in name else "")
            )
        else:
            ignored.append(name)
    return sources, ignored


def _walk(root: Path, out: Path) -> Iterator[str]:
    """Yield every path under `root` that is not a folder, except those inside `out`.

    A symbolic link to a folder is followed once, and only if its target is outside
    `root`.
    """
    inside = os.path.realpath(root)
    seen = {os.path.realpath(out)}
    folders = [str(root).rstrip("/") or "/"]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                if not _is_folder(entry):
                    yield entry.path
                    continue
                real = os.path.realpath(entry.path)
                if real in seen or (entry.is_symlink() and _is_within(real, inside)):
                    continue
                seen.add(real)
                folders.append(entry.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself is listed as a file and later reported as unreadable
        return False


def _is_within(path: str, folder: str) -> bool:
    return (
        path == folder
        or path.startswith(folder.rstrip("/") + "/")
        or folder.startswith(path.rstrip("/") + "/")
    )


def _list_text(path: Path) -> tuple[list[ImageSource], list[str]]:
    data = path.read_bytes()
    if b"\0" in data:
        raise UserError(
            f"{path} is not a folder, a .tar or a text file with one path per line: "
            "give one of these as SOURCE"
        )
    lines = [line.rstrip(b"\r") for line in data.split(b"\n")]
    names = [os.fsdecode(line) for line in lines if line.strip()]
    return [ImageSource(name, str(path.parent / name)) for name in names], []


def _list_tars(paths: list[Path]) -> tuple[list[ImageSource], list[str]]:
    root = os.path.commonpath([path.parent.absolute() for path in paths])
    sources, ignored = [], []
    for path in paths:
        tar_name = os.path.relpath(path.absolute(), root)
        for member in archives.members(path):
            name = f"{tar_name}!{member.name}"
            if _is_image(member.name):
                sources.append(ImageSource(name, str(path), MEMBER, member.offset, member.size))
            else:
                ignored.append(name)
    return sources, ignored


def _list_cifar(batches: list[Path]) -> list[ImageSource]:
    sources = []
    for path in batches:
        split = "test" if path.name.startswith("test") else "train"
        kind = CIFAR_BINARY if path.suffix == ".bin" else CIFAR_PYTHON
        for row in range(cifar10.count(path)):
            offset = row * cifar10.RECORD + 1 if kind == CIFAR_BINARY else row
            sources.append(
                ImageSource(
                    f"{path.name}#{row:05d}", str(path), kind, offset, cifar10.PIXELS, split
                )
            )
    return sources


def read_bytes(source: ImageSource, limit: int) -> bytes:
    """Return the encoded bytes of an image (CIFAR-10: its 3072 raw bytes).

    Raises OSError if the bytes cannot be read, are not in a regular file, or are more
    than `limit`.
    """
    if source.kind == CIFAR_PYTHON:
        return cifar10.load_python(source.path)[source.offset].tobytes()
    if source.offset == archives.NO_CONTENT:
        raise OSError("a link whose target is not a file in its tar, or a sparse or special file")
    with open(source.path, "rb", opener=_open_nonblocking) as stream:
        status = os.fstat(stream.fileno())
        size = source.size if source.kind != FILE else status.st_size
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        if size > limit:
            raise OSError(f"{size} bytes, which is too large")
        stream.seek(source.offset)
        data = stream.read(size)
    if len(data) < size:
        raise OSError(f"{source.path} ends before the end of the image")
    return data


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # opening a named pipe must not block the build
