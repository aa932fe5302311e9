"""Walk the boxes of AVIF, HEIC and JPEG XL files (ISO base media, ISO 14496-12).

A box is a piece of such a file with a type of 4 letters, and can contain other boxes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence


def iterate_boxes(
    data: bytes, start: int = 0, end: int | None = None
) -> Iterator[tuple[bytes, int, int]]:
    """Yield the boxes of an ISO media file in the bytes [start, end) of `data`.

    Each box is (type, start of its content, end of its content).
    """
    stop = len(data) if end is None else min(end, len(data))
    while start + 8 <= stop:
        size, name = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1:
            size, content = int.from_bytes(data[content : content + 8], "big"), content + 8
        after = start + size if size else stop
        if after < content:
            return  # the size is impossible
        yield name, content, min(after, stop)
        start = after


def find_boxes(data: bytes, path: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the contents of the boxes that are reached by a chain of nested types.

    For example, the chain (meta, iprp) yields each iprp box in a meta box.
    """
    yield from _find(data, path, 0, len(data))


def _find(data: bytes, path: Sequence[bytes], start: int, end: int) -> Iterator[bytes]:
    for name, content, after in iterate_boxes(data, start, end):
        if name != path[0]:
            continue
        if len(path) == 1:
            yield data[content:after]
        else:  # a `meta` box begins with its version
            yield from _find(data, path[1:], content + 4 * (name == b"meta"), after)
