"""Splits, blocks and the claim on OUT."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.builder.plan import (
    Parameters,
    blocks_of,
    load_plan,
    make_plan,
    parse_splits,
    save_plan,
    split_of,
)
from shards.errors import UserError
from shards.sources.listing import Source

SOURCES = [Source(f"{number:04d}.jpg", f"/x/{number:04d}.jpg") for number in range(100)]


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True),
        st.integers(1, 50),
        min_size=1,
        max_size=6,
    )
)
def test_shares_cover_the_unit_interval_in_order(weights: dict[str, int]) -> None:
    weights = {
        name: weight for name, weight in weights.items() if name not in ("all", "sources")
    } or {"train": 1}
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
    ],
)
def test_wrong_splits_get_one_line(text: str) -> None:
    with pytest.raises(UserError, match="split"):
        parse_splits(text)


def test_split_is_decided_by_the_digest_alone() -> None:
    digests = [f"{(2 * place + 1) * 2**63 // 1000:016x}" + "0" * 48 for place in range(1000)]
    found = [split_of(digest, SOURCES[0], "train=.9,val=.1") for digest in digests]
    assert found == ["train"] * 900 + ["val"] * 100
    assert split_of(digests[0], SOURCES[0], "") == "all"


@pytest.mark.parametrize(
    ("shard_size", "sizes"), [(0, [7] * 14 + [2]), (30, [30, 30, 30, 10]), (1000, [100])]
)
def test_blocks_hold_each_source_once_shuffled(shard_size: int, sizes: list[int]) -> None:
    plan = make_plan(Parameters(size=8, shard_size=shard_size), SOURCES)
    blocks = list(blocks_of(plan, SOURCES))
    assert [len(block.sources) for block in blocks] == sizes
    listed = [source for block in blocks for source in block.sources]
    assert listed != SOURCES
    assert sorted(listed) == SOURCES
    assert [block.first_key for block in blocks] == [
        plan.keys_of(block.number).start for block in blocks
    ]


def test_out_goes_to_one_build_alone(tmp_path: Path) -> None:
    plan = make_plan(Parameters(size=8), SOURCES)
    save_plan(plan, tmp_path)
    save_plan(plan, tmp_path)
    assert load_plan(tmp_path) == plan
    with pytest.raises(UserError, match=r"holds another build .size was 8, is 9"):
        save_plan(make_plan(Parameters(size=9), SOURCES), tmp_path)
    with pytest.raises(UserError, match="its source files are not the same"):
        save_plan(make_plan(Parameters(size=8), SOURCES[1:]), tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"size": 0}, {"size": 9000}, {"fit": "stretch"}, {"dtype": "int8"}, {"max_pixels": 0}],
)
def test_impossible_parameters_get_one_line(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match="--"):
        Parameters(**{"size": 8, **options})  # type: ignore[arg-type]
