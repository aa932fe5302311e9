"""Read datasets of Hugging Face: parquet files with a column of encoded images.

https://huggingface.co/docs/datasets/image_dataset

An image is a struct of `bytes` (the content of an image file) and `path` (its name), or
the bytes alone. Files are named after their splits: data/train-00000-of-00002.parquet,
or train/0000.parquet.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shards.errors import UserError, first_line

SUFFIX = ".parquet"
_USUAL_NAMES = ("image", "img")  # of the column, if a table has several with images
_PART = re.compile(r"-\d+-of-\d+(-[0-9a-f]+)?$")  # in the name of one of several files
_SPLIT = re.compile(r"[A-Za-z][\w-]*", re.ASCII)
# Reading one image reads its row group, of which `datasets` writes 100 images into one.
_MAX_GROUP_BYTES = 1 << 30
_MAX_CACHE_BYTES = 1 << 28  # of row groups, in each process


class _Table(NamedTuple):
    """An open parquet file: its image column, and the first row of each row group."""

    file: Any  # a pyarrow.parquet.ParquetFile
    column: str
    leaf: str  # the path of the bytes in the column
    starts: np.ndarray
    largest_group: int  # in bytes of images after decompression


def split_of(name: str) -> str:
    """Return the split of a parquet file's relative name, "" if it does not say one."""
    path = Path(name)
    stem = _PART.sub("", path.stem)
    split = path.parent.name if stem.isdigit() else stem
    return split if _SPLIT.fullmatch(split) else ""


def count(path: Path) -> int:
    """Return the number of rows of a parquet file, each of which has an image.

    Raises UserError if pyarrow is missing, the file is damaged or has no image column,
    or its row groups are too large to be read for one image.
    """
    table = _open(str(path))
    if table.largest_group > _MAX_GROUP_BYTES:
        raise UserError(
            f"{path} has row groups of {table.largest_group:,} bytes, and each image takes "
            "reading its row group: write the file again with row_group_size=100"
        )
    return int(table.starts[-1])


@lru_cache(maxsize=256)  # each has an open file
def _open(path: str) -> _Table:
    try:
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"{path}: parquet files require pyarrow: pip install 'colortrain[parquet]'"
        ) from None
    try:
        return _read_metadata(path, parquet.ParquetFile(path))
    except (MemoryError, UserError):
        raise
    except Exception as error:  # pyarrow raises many types on damaged files
        raise UserError(f"{path} is damaged ({first_line(error)}): download it again") from None


def _read_metadata(path: str, file: Any) -> _Table:
    column, leaf = _image_column(path, file.schema_arrow)
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    largest = max((_image_bytes(group, leaf) for group in groups), default=0)
    return _Table(file, column, leaf, np.cumsum([0, *(each.num_rows for each in groups)]), largest)


def _image_bytes(group: Any, leaf: str) -> int:
    """Return the number of bytes of a row group's images after decompression."""
    columns = (group.column(number) for number in range(group.num_columns))
    return sum(each.total_uncompressed_size for each in columns if each.path_in_schema == leaf)


def _image_column(path: str, schema: Any) -> tuple[str, str]:
    """Return the name of the column with images, and the path of their bytes in it.

    Raises UserError if there is no such column, or several.
    """
    found = {field.name: leaf for field in schema if (leaf := _bytes_of(field))}
    usual = [name for name in _USUAL_NAMES if name in found]
    names = list(found) if len(found) == 1 else usual[:1]
    if not names:
        problem = (
            f"several columns with images ({', '.join(found)})" if found else "no image column"
        )
        raise UserError(
            f"{path} has {problem}; its columns are {', '.join(schema.names)}: name the column "
            "of the images `image`, of bytes or of a struct with `bytes`"
        )
    return names[0], found[names[0]]


def _bytes_of(field: Any) -> str:
    """Return the path of an image column's bytes, "" for any other column."""
    from pyarrow import types

    def has_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    if types.is_struct(field.type):
        inner = [each for each in field.type if each.name == "bytes" and has_bytes(each.type)]
        return f"{field.name}.bytes" if inner else ""
    return field.name if has_bytes(field.type) else ""


def read_row(path: str, row: int, limit: int) -> bytes:
    """Return the encoded bytes of the image in a row of a parquet file.

    Raises OSError if they cannot be read, are missing, or are more than `limit`.
    """
    table = _open(path)
    group = int(np.searchsorted(table.starts, row, side="right")) - 1
    values, index = _read_group(path, group), row - int(table.starts[group])
    if index >= len(values):
        raise OSError("its row group has fewer rows than the file says")
    value = values[index]
    buffer = value.as_buffer() if value.is_valid else None
    if buffer is None:
        raise OSError("the row has no bytes of an image")
    if buffer.size > limit:
        raise OSError(f"{buffer.size} bytes, which is too large")
    return bytes(buffer)


_cache: OrderedDict[tuple[str, int], Any] = OrderedDict()  # row groups, the latest last


def _read_group(path: str, group: int) -> Any:
    """Return the images' bytes of a row group, as a pyarrow array."""
    key = (path, group)
    if key not in _cache:
        _cache[key] = _load_group(_open(path), group)
    _cache.move_to_end(key)
    while len(_cache) > 1 and sum(each.nbytes for each in _cache.values()) > _MAX_CACHE_BYTES:
        _cache.popitem(last=False)
    return _cache[key]


def _load_group(table: _Table, group: int) -> Any:
    from pyarrow import compute

    try:
        content = table.file.read_row_group(group, columns=[table.leaf], use_threads=False)
        column = content.column(table.column)
        return column if table.leaf == table.column else compute.struct_field(column, "bytes")
    except MemoryError:
        raise
    except Exception as error:  # pyarrow raises many types on damaged files
        raise OSError(first_line(error)) from None
