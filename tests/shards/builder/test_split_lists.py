"""Tests of split_lists: lists as public data sets have them, and invalid ones."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shards.builder.split_lists import read_lists
from shards.builder.splits import parse_rules
from shards.errors import UserError
from shards.sources.listing import ImageSource

PLACES = (
    "data_256/a/airfield/00000001.jpg",
    "data_256/z/zen_garden/00000002.jpg",
    "val_256/Places365_val_00000001.jpg",
    "val_256/Places365_val_00000002.jpg",
)
Read = Callable[..., dict[str, str]]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """A function that writes lists (name=text) and reads them for the given names."""
    monkeypatch.chdir(tmp_path)

    def read(names: tuple[str, ...], splits: str, root: str = "photos", **lists: str | bytes):  # type: ignore[no-untyped-def]
        for name, content in lists.items():
            data = content if isinstance(content, bytes) else content.encode()
            Path(f"{name}.txt").write_bytes(data)
        sources = [ImageSource(name, f"/x/{name}", split="old") for name in sorted(names)]
        found = read_lists(parse_rules(splits).lists, sources, root)
        assert [source.path for source in found] == [f"/x/{source.name}" for source in found]
        return {source.name: source.split for source in found}

    return read


def test_places365_lists(read: Read) -> None:
    train = "/a/airfield/00000001.jpg 0\n/z/zen_garden/00000002.jpg 364\n"
    splits = "train=train.txt:data_256,val=val.txt:val_256"
    val = "Places365_val_00000002.jpg 165\n"
    assert read(PLACES, splits, train=train, val=val) == {
        PLACES[0]: "train",
        PLACES[1]: "train",
        PLACES[3]: "val",
    }


@pytest.mark.parametrize(
    "line",
    [
        "images/train2014/a b.jpg",
        "./images/train2014/a b.jpg",
        "/images/train2014/a b.jpg",
        "photos/images/train2014/a b.jpg",
        "{here}/photos/images/train2014/a b.jpg",
        "images/train2014/a b.jpg\t12",
        "  images/train2014/a b.jpg  7 ",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_forms_of_paths(read: Read, tmp_path: Path, line: str, end: str) -> None:
    name, text = "images/train2014/a b.jpg", line.replace("{here}", str(tmp_path)) + end
    assert read((name, "b.jpg"), "train=one.txt", one=text) == {name: "train"}


def test_number_at_the_end_of_a_name_is_part_of_it(read: Read) -> None:
    assert read(("a 1", "a"), "train=one.txt", one="a 1\n") == {"a 1": "train"}
    assert read(("a",), "train=one.txt", one="a 1\n") == {"a": "train"}


def test_one_list_for_all_splits(read: Read) -> None:
    text = "\ufeffa.jpg\ttrain\r\n\n/b.jpg\t val\r\nc 1.jpg\ttrain"
    found = read(("a.jpg", "b.jpg", "c 1.jpg", "d.jpg"), "one.txt", one=text)
    assert found == {"a.jpg": "train", "b.jpg": "val", "c 1.jpg": "train"}
    utf16 = "a.jpg\ttrain\n".encode("utf-16")
    assert read(("a.jpg",), "one.txt", one=utf16) == {"a.jpg": "train"}


def test_names_that_are_not_utf8(read: Read) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    assert read((name,), "train=one.txt", one=b"caf\xe9.jpg 3\n") == {name: "train"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a.jpg\nno.jpg 0\nor.jpg 1\n",
            r"one.txt: 2 of .* in photos: no.jpg 0, or.jpg 1; .*FOLDER",
        ),
        ("\n", "one.txt: there are no names"),
        (b"a\0b", "one.txt is not a text file"),
    ],
)
def test_invalid_lists_raise(read: Read, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(("a.jpg",), "train=one.txt", one=text)


def test_missing_tab_missing_file_and_two_splits_raise(read: Read) -> None:
    for line in ("a.jpg train", "a.jpg\t"):
        with pytest.raises(UserError, match=r"no split in the line 'a.jpg"):
            read(("a.jpg",), "one.txt", one=f"{line}\n")
    with pytest.raises(UserError, match=r"no list missing.txt"):
        read(("a.jpg",), "train=missing.txt")
    with pytest.raises(UserError, match=r"two.txt: 1 of its images .* another split: a.jpg 3"):
        read(("a.jpg",), "train=one.txt,val=two.txt", one="a.jpg\na.jpg\n", two="a.jpg 3\n")
