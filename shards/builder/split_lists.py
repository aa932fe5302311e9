"""Read the lists of images that --splits names: which image belongs to which split.

one list for all splits   `path<TAB>split` on each line
a list for each split     `path` on each line, perhaps followed by a blank or a tab and
                          the number of a class, which is ignored

Paths are the names of images as in `ImageSource.name`, relative to SOURCE or to a
folder in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from shards.builder.splits import SplitList
from shards.errors import UserError
from shards.sources.listing import ImageSource, first_names, text_lines

_CLASS = re.compile(r"[ \t]+-?[0-9]+$")


class _Line(NamedTuple):
    text: str
    path: str
    split: str


def read_lists(
    lists: Sequence[SplitList], sources: Sequence[ImageSource], root: str
) -> list[ImageSource]:
    """Return the images of `sources` that are in the lists, with the splits from there.

    `root` is SOURCE. Raises UserError if a list cannot be read, or names an image that
    is not in `sources` or is also listed for another split.
    """
    names = {source.name for source in sources}
    starts = (f"{root.rstrip('/')}/", f"{Path(root).absolute()}/")
    splits: dict[str, str] = {}
    for each in lists:
        missing, repeated = [], []
        for line in _lines(each):
            name = next((name for name in _names(line.path, each, starts) if name in names), None)
            if name is None:
                missing.append(line.text)
            elif splits.setdefault(name, line.split) != line.split:
                repeated.append(line.text)
        _check(each, missing, repeated, root)
    if not splits:
        raise UserError(f"{', '.join(each.path for each in lists)}: there are no names of images")
    return [
        source._replace(split=splits[source.name]) for source in sources if source.name in splits
    ]


def _check(each: SplitList, missing: Sequence[str], repeated: Sequence[str], root: str) -> None:
    if missing:
        raise UserError(
            f"{each.path}: {len(missing):,} of its lines name no image in {root}: "
            f"{first_names(missing)}; give paths relative to SOURCE, or to a folder in it "
            "(--splits train=FILE:FOLDER)"
        )
    if repeated:
        raise UserError(
            f"{each.path}: {len(repeated):,} of its images are also listed for another split: "
            f"{first_names(repeated)}"
        )


def _lines(each: SplitList) -> Iterator[_Line]:
    path = Path(each.path)
    if not path.is_file():
        raise UserError(f"--splits: no list {each.path}: give the path of a text file")
    for line in text_lines(path, "a text file with the path of an image on each line"):
        text = line.decode("utf-8", "surrogateescape").rstrip("\r")
        if each.split:
            yield _Line(text, text, each.split)
            continue
        name, tab, split = text.rpartition("\t")
        if not tab or not split.strip():
            raise UserError(
                f"{each.path}: no split in the line {text!r}: give `path<TAB>split` on each line, "
                "or a list for each split (--splits train=FILE,val=FILE)"
            )
        yield _Line(text, name, split.strip())


def _names(path: str, each: SplitList, starts: Sequence[str]) -> Iterator[str]:
    """Yield the names that an image with this path in a list may have.

    `starts` are the forms of SOURCE that are removed from the start of a path.
    """
    paths = [path, path.strip()]
    if each.split:
        paths.append(_CLASS.sub("", path.strip()))
    for text in paths:
        for name in (text, *_without_start(text, starts)):
            yield f"{each.folder}/{name}" if each.folder else name


def _without_start(path: str, starts: Sequence[str]) -> Iterator[str]:
    """Yield a path without SOURCE, `./` or `/` at its start."""
    yield from (path.removeprefix(start) for start in starts if path.startswith(start))
    yield path.removeprefix("./").lstrip("/")
