"""List the images of a source: a folder, a text file, tars, parquet files, or arrays.

Arrays are those of CIFAR-10, CIFAR-100 and MIRFLICKR-25k in CIELAB. Listing reads only
file names and headers; `read_bytes` reads one image, in any process.
"""

from __future__ import annotations

import codecs
import glob
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from shards.errors import UserError
from shards.sources import archives, cifar10, cifar100, mirflickr_lab, parquet

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
# Folders of network drives and macOS archives: thumbnails, and deleted or older files.
_SYSTEM_FOLDERS = frozenset(
    (
        "@eaDir",
        "@Recycle",
        "@Recently-Snapshot",
        "#recycle",
        "#snapshot",
        "__MACOSX",
        "$RECYCLE.BIN",
        "System Volume Information",
    )
)
FILE, MEMBER, CIFAR_BINARY, CIFAR_PYTHON = "file", "member", "cifar binary", "cifar python"
PARQUET, LAB = "parquet", "lab"
_KINDS_OF_SOURCE = (
    "give a folder, a text file, a quoted pattern of tars or parquet files, or the folder of "
    "CIFAR-10, CIFAR-100 or MIRFLICKR-25k in CIELAB"
)


class ImageSource(NamedTuple):
    """One source image: its name relative to SOURCE, and where its bytes are stored."""

    name: str
    path: str  # of the file; LAB: of the folder with the arrays
    kind: str = FILE
    offset: int = 0  # of the first byte (MEMBER, CIFAR_BINARY), or the row (other arrays, PARQUET)
    size: int = 0
    split: str = ""  # the top-level folder; CIFAR: train or test; PARQUET: by the file's name


@dataclass
class Listing:
    """The images that were found in a SOURCE, and the files that were not listed."""

    sources: list[ImageSource] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)  # files without the suffix of an image
    # Hidden files, hidden folders and folders of thumbnails; folders end with "/".
    hidden: list[str] = field(default_factory=list)

    def sort(self) -> Listing:
        """Sort each list of this listing by name, in place; return self."""
        self.sources.sort()
        self.ignored.sort()
        self.hidden.sort()
        return self

    def in_utf8(self) -> Listing:
        """Decode all names as a UTF-8 locale does, in place; return self."""
        # Otherwise, the names in a shard set would depend on the locale.
        if sys.getfilesystemencoding() != "utf-8":
            self.sources = [each._replace(name=_in_utf8(each.name)) for each in self.sources]
            self.ignored = [_in_utf8(name) for name in self.ignored]
            self.hidden = [_in_utf8(name) for name in self.hidden]
        return self


def open_sources(source: str, out: Path) -> Listing:
    """List the images of SOURCE, except those inside `out`, sorted by name.

    Raises UserError if SOURCE does not exist, is damaged or contains no images.
    """
    listing = _list_any(source, out)
    if not listing.sources:
        raise UserError(f"no images in {source}{_hint(listing)}")
    return listing.sort()


def _hint(listing: Listing) -> str:
    tars = sum(name.endswith(".tar") for name in listing.ignored)
    if tars:
        return f": it contains {tars} tars, give them as a quoted pattern such as 'FOLDER/*.tar'"
    if listing.hidden:
        return f" except hidden ones: {first_names(listing.hidden)}; rename them"
    return f": {_KINDS_OF_SOURCE}"


def first_names(names: Sequence[str], most: int = 5) -> str:
    """Return the first names as a text, for example "a, b and 7 more"."""
    shown = [name if name.isprintable() else repr(name) for name in names[:most]]
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(shown)}{more}"


def _list_any(source: str, out: Path) -> Listing:
    path = Path(source)
    if path.is_dir():
        return _list_folder_of_any_layout(path, out)
    if path.is_file():
        return _list_file(path)
    if names := _expand(source, out):
        return _list_files([Path(name) for name in names])
    raise UserError(f"no such source {source}: {_KINDS_OF_SOURCE}")


def _list_folder_of_any_layout(folder: Path, out: Path) -> Listing:
    if batches := cifar10.find_batches(folder) or cifar100.find_batches(folder):
        return _list_cifar(batches)
    if mirflickr_lab.is_lab_folder(folder):
        return _list_lab_arrays(folder)
    listing = list_folder(folder, out)
    if not listing.sources:  # next to images, parquet files hold metadata
        tables = [name for name in listing.ignored if name.endswith(parquet.SUFFIX)]
        listing.ignored = [name for name in listing.ignored if not name.endswith(parquet.SUFFIX)]
        listing.sources = _parquet_sources(folder, tables)
    return listing.in_utf8()


def _list_files(paths: list[Path]) -> Listing:
    """List the images of several files of one kind: batches, parquet files or tars."""
    if all(map(_is_cifar_batch, paths)):
        return _list_cifar(paths)
    root = Path(os.path.commonpath([path.parent.absolute() for path in paths]))
    if all(path.suffix == parquet.SUFFIX for path in paths):
        names = [os.path.relpath(path.absolute(), root) for path in paths]
        return Listing(_parquet_sources(root, names)).in_utf8()
    return _list_tars(paths, root)


def _list_file(path: Path) -> Listing:
    if path.suffix in (".tar", parquet.SUFFIX) or _is_cifar_batch(path):
        return _list_files([path])
    if _is_image(path.name):
        raise UserError(f"{path} is one image: give its folder, or a text file that lists images")
    return _list_text(path)


def _is_cifar_batch(path: Path) -> bool:
    return cifar10.is_batch(path) or cifar100.is_batch(path)


def _expand(pattern: str, out: Path) -> list[str]:
    """Return the files that match a pattern, sorted, except files inside `out`."""
    import braceexpand  # a dependency of webdataset

    inside = os.path.realpath(out).rstrip("/") + "/"
    # The pattern may contain wildcards (`*`, `?`, `[]`) and braces (`{00..12}`).
    try:
        patterns = list(braceexpand.braceexpand(pattern))
    except ValueError:  # unbalanced braces: part of the name
        patterns = [pattern]
    # Not Path.glob, because the pattern may be absolute.
    names = {name for each in patterns for name in glob.glob(each, recursive=True)}  # noqa: PTH207
    files = (name for name in names if Path(name).is_file())
    return sorted(name for name in files if not os.path.realpath(name).startswith(inside))


def _in_utf8(name: str) -> str:
    """Return a file name as a UTF-8 locale decodes it, with surrogate escapes."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def _is_image(name: str) -> bool:
    return name.rpartition(".")[2].lower() in SUFFIXES  # pathlib is slow for a million names


def _is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is hidden or a system folder."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def list_folder(root: Path, out: Path) -> Listing:
    """List the images below a folder, except images inside `out`."""
    listing = Listing()
    prefix = len(str(root).rstrip("/")) + 1
    for path in _walk(root, out, listing.hidden):
        name = path[prefix:]
        # A subfolder that cannot be read ends with "/". It is listed as an image, so
        # that it is reported as unreadable later.
        if _is_image(name) or name.endswith("/"):
            split = name.partition("/")[0] if "/" in name else ""
            listing.sources.append(ImageSource(name, path, split=split))
        else:
            listing.ignored.append(name)
    listing.hidden = [path[prefix:] for path in listing.hidden]
    return listing


def _walk(root: Path, out: Path, hidden: list[str]) -> Iterator[str]:
    """Yield the files under `root` but not in `out`; append hidden ones to `hidden`."""
    inside = os.path.realpath(root)
    seen = {os.path.realpath(out)}
    folders = [str(root).rstrip("/") or "/"]
    top = folders[0]
    while folders:
        folder = folders.pop()
        try:
            entries = _entries(folder)
        except OSError:
            if folder == top:
                raise
            yield f"{folder}/"  # a folder that cannot be read
            continue
        for entry in entries:
            is_folder = _is_folder(entry)
            if _is_hidden(entry.name):
                hidden.append(f"{entry.path}/" if is_folder else entry.path)
            elif not is_folder:
                yield entry.path
            elif (real := _followed(entry, inside)) and real not in seen:
                seen.add(real)  # so that no folder is read twice
                folders.append(entry.path)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda each: each.name)


def _followed(entry: os.DirEntry[str], inside: str) -> str | None:
    """Return the real path of a folder, or None if the search must not enter it."""
    # The search does not enter a link to a folder that it finds anyway.
    real = os.path.realpath(entry.path)
    return None if entry.is_symlink() and _is_within(real, inside) else real


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


def _list_text(path: Path) -> Listing:
    lines = text_lines(
        path,
        "a folder, a .tar, a .parquet or a text file with one path per line: "
        "give one of these as SOURCE",
    )
    names = [_without_blanks(os.fsdecode(line), path.parent) for line in lines]
    return Listing([ImageSource(name, str(path.parent / name)) for name in names]).in_utf8()


def text_lines(path: Path, expected: str) -> list[bytes]:
    """Return the lines of a text file that are not blank, as UTF-8.

    Raises UserError, which ends with `expected`, if the file contains null bytes.
    """
    data = _without_byte_order_mark(path.read_bytes())
    if b"\0" in data:
        raise UserError(f"{path} is not {expected}")
    return [line for line in data.split(b"\n") if line.strip()]


def _without_byte_order_mark(data: bytes) -> bytes:
    """Return a text as UTF-8 without its byte-order mark."""
    # Editors and shells of Windows write UTF-8 with this mark, or UTF-16.
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "surrogatepass").encode("utf-8", "surrogatepass")
    return data.removeprefix(codecs.BOM_UTF8)


def _without_blanks(line: str, folder: Path) -> str:
    """Return a path without blanks at its ends, unless they belong to a file's name."""
    stripped = line.strip()
    return line if stripped != line and os.path.lexists(folder / line) else stripped


def _list_tars(paths: list[Path], root: Path) -> Listing:
    listing = Listing()
    for path in paths:
        tar_name = _in_utf8(os.path.relpath(path.absolute(), root))
        for member in archives.members(path):
            name = f"{tar_name}!{member.name}"
            if any(_is_hidden(part) for part in member.name.split("/") if part not in (".", "..")):
                listing.hidden.append(name)
            elif _is_image(member.name):
                source = ImageSource(name, str(path), MEMBER, member.offset, member.size)
                listing.sources.append(source)
            else:
                listing.ignored.append(name)
    return listing


def _list_cifar(batches: list[Path]) -> Listing:
    listing = Listing()
    for path in batches:
        split = "test" if path.name.startswith("test") else "train"
        kind = CIFAR_BINARY if path.suffix == ".bin" else CIFAR_PYTHON
        label_bytes = 1 if cifar10.is_batch(path) else cifar100.LABEL_BYTES
        for row in range(cifar10.count(path, label_bytes)):
            offset = row
            if kind == CIFAR_BINARY:
                offset = row * (label_bytes + cifar10.PIXELS) + label_bytes
            name = f"{path.name}#{row:05d}"
            listing.sources.append(
                ImageSource(name, str(path), kind, offset, cifar10.PIXELS, split)
            )
    return listing


def _list_lab_arrays(folder: Path) -> Listing:
    num_images = mirflickr_lab.find_arrays(str(folder)).lightness.num_rows
    names = (f"{mirflickr_lab.LIGHTNESS}#{row:05d}" for row in range(num_images))
    return Listing([ImageSource(name, str(folder), LAB, row) for row, name in enumerate(names)])


def _parquet_sources(root: Path, names: Sequence[str]) -> list[ImageSource]:
    return [
        ImageSource(
            f"{name}#{row:07d}", str(root / name), PARQUET, row, split=parquet.split_of(name)
        )
        for name in names
        for row in range(parquet.count(root / name))
    ]


def read_bytes(source: ImageSource, limit: int) -> bytes:
    """Return the encoded bytes of an image, or the bytes of its pixels in an array.

    Raises OSError if the bytes cannot be read, are not in a regular file, or are more
    than `limit`.
    """
    if source.kind == CIFAR_PYTHON:
        return cifar10.load_python(source.path)[source.offset].tobytes()
    if source.kind == PARQUET:
        return parquet.read_row(source.path, source.offset, limit)
    if source.kind == LAB:
        return mirflickr_lab.read_row(source.path, source.offset)
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
