"""Tests of splits: the values of the options for splits, and what is invalid."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.builder.splits import REST, Carve, SplitList, parse_rules, parse_splits, without_folders
from shards.errors import UserError

NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("all", "sources")
)


@given(st.dictionaries(NAMES, st.integers(1, 50), min_size=1, max_size=6))
def test_fractions_cover_the_unit_interval_in_order(weights: dict[str, int]) -> None:
    total = sum(weights.values())
    text = ",".join(f"{name}={weight}/{total}" for name, weight in weights.items())
    parsed = parse_splits(text)
    assert [name for name, _ in parsed] == list(weights)
    ends = [end for _, end in parsed]
    widths = [end - start for start, end in zip([Fraction(0), *ends], ends, strict=False)]
    assert widths == [Fraction(weight, total) for weight in weights.values()]


@pytest.mark.parametrize(
    "text",
    [
        "train",
        "train=",
        "train=x",
        "train=.5",
        "train=.9,val=.2",
        "train=1,train=0",
        "train=.5,train=.5",
        "=1",
        "a/b=1",
        "train=1,val=0",
        "all=1",
        "sources=1",
        "train=2,val=-1",
        "train=1/0",
        "train=nan",
        "a.b=1",
        ",",
        " ",
        "train=5,val=0",
        "train=5,val=0.5",
        "train=rest",
        "train=rest,val=rest",
        "train=5,val=1.5",
        "train=./a.txt,val=5",
        "all=5",
        "train=5,,val=5",
    ],
)
def test_invalid_splits_raise(text: str) -> None:
    with pytest.raises(UserError, match="split"):
        parse_splits(text)


def test_numbers_lists_and_fractions_are_told_apart() -> None:
    assert parse_rules("train=8000,val=2000").counts == {"train": 8000, "val": 2000}
    assert parse_rules("train=1,val=1").counts == {"train": 1, "val": 1}
    assert parse_rules("train=1").fractions == (("train", Fraction(1)),)
    rest = parse_rules("train=rest,val=5").counts
    assert list(rest.items()) == [("val", 5), ("train", REST)]
    assert parse_rules("/data/list.tsv").lists == (SplitList("", "/data/list.tsv"),)
    assert parse_rules("train=a b.txt:data_256,val=./v").lists == (
        SplitList("train", "a b.txt", "data_256"),
        SplitList("val", "./v"),
    )
    assert parse_rules("source").by_source


@pytest.mark.parametrize("text", ["train=./a.txt:data_256,val=./v", "./list.tsv", "train=1.0", ""])
def test_value_without_folders_is_a_value_with_the_same_names(text: str) -> None:
    moved = text.replace("./", "/mnt/data/")
    assert without_folders(moved) == text
    assert without_folders(text) == text
    assert bool(parse_rules(without_folders(moved)).lists) == ("./" in text)


def test_rename_carve_and_take_are_parsed() -> None:
    rules = parse_rules(
        "source", "train2014=train, val 2=val", "val=train:5000,b=c:1/10", "train=10,test=0", 3
    )
    assert rules.rename == {"train2014": "train", "val 2": "val"}
    assert rules.carve == (Carve("val", "train", Fraction(5000)), Carve("b", "c", Fraction(1, 10)))
    assert rules.take == {"train": 10, "test": 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rename": "a=b"}, "--rename requires --splits source"),
        ({"splits": "train=.5,val=.5", "take": "train=5"}, "--take requires --splits source"),
        ({"splits": "train=5,val=5", "carve": "val=train:5"}, "--carve requires"),
        ({"splits": "source", "seed": 1}, "--seed 1 has no effect"),
        ({"splits": "source", "rename": "a=b", "seed": 1}, "--seed 1 has no effect"),
        ({"splits": "train=5,val=5", "seed": -1}, "at least 0"),
        ({"splits": "train=5,val=5", "spare": float("nan")}, "at least 0"),
        ({"splits": "source", "rename": "a"}, "--rename 'a'"),
        ({"splits": "source", "rename": "a=all"}, "invalid split name 'all'"),
        ({"splits": "source", "carve": "val=5"}, "--carve 'val=5'"),
        ({"splits": "source", "carve": "val=train:0"}, "--carve"),
        ({"splits": "source", "carve": "val=train:1.5"}, "--carve"),
        ({"splits": "source", "carve": "v l=train:5"}, "invalid split name"),
        ({"splits": "source", "take": "train=0.5"}, "give numbers of images"),
        ({"splits": "source", "take": f"train={'9' * 5000}"}, "give numbers of images"),
        ({"splits": "source", "take": "train=-5"}, "give numbers of images"),
        ({"splits": "source", "carve": "val=train:5", "take": "val=3"}, "--take val: give the"),
    ],
)
def test_invalid_combinations_raise(options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_rules(**{"splits": "", **options})
