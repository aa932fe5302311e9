"""Tests of boxes: sizes of 32 and 64 bits, nested boxes, and damaged sizes."""

import struct

import pytest

from shards.sources.boxes import find_boxes, iterate_boxes


def box(name: bytes, *contents: bytes) -> bytes:
    body = b"".join(contents)
    return struct.pack(">I4s", 8 + len(body), name) + body


def test_boxes_are_found_by_their_path() -> None:
    colours = box(b"ipco", box(b"ispe", b"12"), box(b"colr", b"first"), box(b"colr", b"second"))
    data = box(b"ftyp", b"avif") + box(b"meta", bytes(4), box(b"iprp", colours)) + box(b"mdat")
    assert list(find_boxes(data, (b"meta", b"iprp", b"ipco", b"colr"))) == [b"first", b"second"]
    assert list(find_boxes(data, (b"iprp",))) == []


def test_large_sizes_and_boxes_to_the_end_of_the_file() -> None:
    large = struct.pack(">I4sQ", 1, b"wide", 16 + 3) + b"abc"
    last = struct.pack(">I4s", 0, b"last") + b"to the end"
    found = [(name, (large + last)[a:b]) for name, a, b in iterate_boxes(large + last)]
    assert found == [(b"wide", b"abc"), (b"last", b"to the end")]


@pytest.mark.parametrize("size", [2, 7, 1 << 31])
def test_impossible_sizes_end_the_walk(size: int) -> None:
    data = box(b"good", b"x") + struct.pack(">I4s", size, b"evil") + b"y" + box(b"next")
    names = [name for name, *_ in iterate_boxes(data)]
    assert names == ([b"good", b"evil"] if size > len(data) else [b"good"])
    assert [name for name, *_ in iterate_boxes(struct.pack(">I4sQ", 1, b"evil", 3))] == []
