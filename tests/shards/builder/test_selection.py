"""Tests of selection: which images are packed, and into which split."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.builder.selection import NOT_CHOSEN, Selection, select
from shards.builder.splits import parse_rules
from shards.errors import UserError
from shards.sources.listing import ImageSource


def images(**counts: int) -> list[ImageSource]:
    """Return sources in top-level folders, for example images(train=5, val=2)."""
    return sorted(
        ImageSource(f"{folder}/{number:03d}.jpg", "", split=folder)
        for folder, count in counts.items()
        for number in range(count)
    )


def choose(sources: Sequence[ImageSource], *rules: str, seed: int = 0) -> Selection:
    return select(parse_rules(*rules, seed=seed), sources, "photos")


def chosen(selection: Selection) -> list[ImageSource]:
    return list(selection.sources[: len(selection.sources) - selection.num_spare])


def sizes(selection: Selection) -> dict[str, int]:
    return dict(Counter(source.split for source in chosen(selection)))


def ranked(sources: Sequence[ImageSource], seed: int) -> list[str]:
    """Return the names of `sources` in the documented order of choice."""
    names = [source.name for source in sources]
    return sorted(names, key=lambda n: hashlib.sha256(f"{seed}\0{n}".encode()).digest()[:8])


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(0, 40), st.integers(0, 5))
def test_numbers_are_exact_and_chosen_by_the_hash(
    counts: list[int], others: int, seed: int
) -> None:
    sources = images(x=sum(counts) + others)
    text = ",".join(f"s{index}={count}" for index, count in enumerate(counts))
    if sum(counts) == 1:
        return  # s0=1 is a fraction
    selection = choose(sources, text, seed=seed)
    order = iter(ranked(sources, seed))
    for index, count in enumerate(counts):
        expected = {next(order) for _ in range(count)}
        assert {s.name for s in chosen(selection) if s.split == f"s{index}"} == expected
    num_spare = min(others, -(-sum(counts) // 10))
    spare = {source.name for source in selection.sources[sum(counts) :]}
    assert spare == {next(order) for _ in range(num_spare)}
    assert selection.unused.get(NOT_CHOSEN, 0) == others - num_spare


def test_choice_depends_on_the_seed_and_not_on_other_splits() -> None:
    small, large = images(train=40, val=30), images(train=40, val=30, test=50)
    options = ("source", "", "", "train=10,val=3")
    assert set(chosen(choose(small, *options))) <= set(chosen(choose(large, *options)))
    first = {source.name for source in chosen(choose(small, *options))}
    second = {source.name for source in chosen(choose(small, *options, seed=1))}
    assert len(first) == len(second) == 13
    assert first != second


def test_take_within_splits_keeps_the_other_splits() -> None:
    selection = choose(images(train=40, val=30, test=5), "source", "", "", "train=10,val=3")
    assert sizes(selection) == {"train": 10, "val": 3, "test": 5}
    assert sizes(choose(images(train=40, val=30), "source", "", "", "val=0")) == {"train": 40}


def test_carved_split_comes_from_one_split_only() -> None:
    sources = images(train=50, test=10)
    for amount, count in (("5", 5), ("0.1", 5), ("1/25", 2), ("0.001", 1)):
        selection = choose(sources, "source", "", f"val=train:{amount}")
        assert sizes(selection) == {"train": 50 - count, "val": count, "test": 10}
        assert all(s.name.startswith("train/") for s in chosen(selection) if s.split == "val")
        assert selection.num_spare == 0
    both = choose(sources, "source", "", "val=train:5", "train=20")
    assert sizes(both) == {"train": 20, "val": 5, "test": 10}


def test_carving_a_fraction_of_many_images_is_a_disjoint_cover() -> None:
    sources = images(train=60)
    selection = choose(sources, "source", "", "a=train:0.5,b=train:0.25")
    assert sizes(selection) == {"a": 30, "b": 15, "train": 15}
    assert sorted(s.name for s in selection.sources) == [s.name for s in sources]


def test_splits_are_renamed_before_all_else() -> None:
    sources = images(train2014=40, val2014=30)
    options = ("source", "train2014=train,val2014=val", "", "train=8,val=2")
    assert sizes(choose(sources, *options)) == {"train": 8, "val": 2}
    assert sizes(choose(sources, "source", "train2014=a,val2014=a")) == {"a": 70}
    swapped = choose(images(train=3, val=2), "source", "train=val,val=train")
    assert sizes(swapped) == {"val": 3, "train": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("train=70,val=2",), "SOURCE has 70 images, but the splits train, val need at least 72"),
        (("val=70,train=rest",), "need at least 71"),
        (("source", "x=train"), "--rename x=train: unknown split 'x'; .* train2014, val2014"),
        (("source", "train2014=val2014"), "there is a split 'val2014' already"),
        (("source", "", "val=train:5"), "--carve: unknown split 'train'; .* train2014"),
        (("source", "", "val2014=train2014:5"), "--carve val2014: there is a split"),
        (("source", "", "a=train2014:40"), "split 'train2014' of SOURCE has 40 images"),
        (("source", "", "", "train=5"), "--take: unknown split 'train'; .* train2014"),
        (("source", "", "", "train2014=0,val2014=0"), "--take leaves no image"),
        (("source", "", "", "train2014=41"), "need at least 41: give smaller counts"),
    ],
)
def test_rules_that_do_not_fit_raise(options: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose(images(train2014=40, val2014=30), *options)


def test_images_outside_of_folders_and_invalid_names_raise() -> None:
    with pytest.raises(UserError, match=r"x\.jpg is not in a subfolder"):
        choose([ImageSource("x.jpg", "")], "source")
    odd = images(**{"2014 train": 3})
    with pytest.raises(UserError, match="invalid split name '2014 train'"):
        choose(odd, "source")
    assert sizes(choose(odd, "source", "2014 train=train")) == {"train": 3}
