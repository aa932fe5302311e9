"""Tests of plan: splits, blocks, and saving the plan from many processes."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

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
from shards.sources.listing import ImageSource

SOURCES = [ImageSource(f"{number:04d}.jpg", f"/x/{number:04d}.jpg") for number in range(100)]


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True),
        st.integers(1, 50),
        min_size=1,
        max_size=6,
    )
)
def test_fractions_cover_the_unit_interval_in_order(weights: dict[str, int]) -> None:
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
def test_invalid_splits_raise(text: str) -> None:
    with pytest.raises(UserError, match="split"):
        parse_splits(text)


def test_split_depends_only_on_the_digest() -> None:
    digests = [f"{(2 * n + 1) * 2**63 // 1000:016x}" + "0" * 48 for n in range(1000)]
    found = [split_of(digest, SOURCES[0], "train=.9,val=.1") for digest in digests]
    assert found == ["train"] * 900 + ["val"] * 100
    assert split_of(digests[0], SOURCES[0], "") == "all"


@pytest.mark.parametrize(
    ("shard_size", "sizes"), [(0, [7] * 14 + [2]), (30, [30, 30, 30, 10]), (1000, [100])]
)
def test_blocks_contain_each_source_once_in_shuffled_order(
    shard_size: int, sizes: list[int]
) -> None:
    plan = make_plan(Parameters(size=8, shard_size=shard_size), SOURCES)
    blocks = list(blocks_of(plan, SOURCES))
    assert [len(block.sources) for block in blocks] == sizes
    listed = [source for block in blocks for source in block.sources]
    assert listed != SOURCES
    assert sorted(listed) == SOURCES
    assert [block.first_key for block in blocks] == [
        plan.keys_of(block.number).start for block in blocks
    ]


def test_folder_accepts_only_one_plan(tmp_path: Path) -> None:
    plan = make_plan(Parameters(size=8), SOURCES)
    save_plan(plan, tmp_path)
    save_plan(plan, tmp_path)
    assert load_plan(tmp_path) == plan
    with pytest.raises(UserError, match=r"holds another build .size was 8, is now 9"):
        save_plan(make_plan(Parameters(size=9), SOURCES), tmp_path)
    with pytest.raises(UserError, match="its source files are different"):
        save_plan(make_plan(Parameters(size=8), SOURCES[1:]), tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"size": 0}, {"size": 9000}, {"fit": "stretch"}, {"dtype": "int8"}, {"max_pixels": 0}],
)
def test_invalid_parameters_raise(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match="--"):
        Parameters(**{"size": 8, **options})  # type: ignore[arg-type]


def refuse(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.EPERM, "Operation not permitted")


def start_python(*argv: object) -> subprocess.Popen[str]:
    command, pipe = [sys.executable, *map(str, argv)], subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline()


SAVE_PLAN = """
import sys, time
from pathlib import Path
from shards.errors import UserError
from shards.builder.plan import Parameters, make_plan, save_plan
from shards.sources.listing import ImageSource
plan = make_plan(Parameters(size=int(sys.argv[2])), [ImageSource("a.jpg", "/a.jpg")])
print("ready", flush=True)
input()
try:
    save_plan(plan, Path(sys.argv[1]))
    print("saved")
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "changes",
    [
        {"block_size": 0},
        {"block_size": -1},
        {"block_size": "4"},
        {"num_sources": 10**15},
        {"num_sources": 1e400},
        {"num_sources": True},
        {"format": 2},
        {"parameters": []},
        {"parameters": {"size": "16"}},
        {"parameters": {"size": 16.0}},
        {"parameters": {"size": 10**9}},
        {"parameters": {"size": 16, "splits": 5}},
        {"parameters": {"size": 16, "splits": "../other/train=1"}},
        {"parameters": {"size": 16, "other": 1}},
    ],
)
def test_plan_that_no_build_wrote_raises_a_one_line_error(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    save_plan(make_plan(Parameters(size=8), SOURCES), tmp_path)
    path = tmp_path / "build.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UserError, match=r"build\.json is damaged") as caught:
        load_plan(tmp_path)
    assert "\n" not in str(caught.value)


def test_too_many_shards_for_a_manifest_raise() -> None:
    with pytest.raises(UserError, match="are more than the 300,000 allowed: give a larger --shard"):
        make_plan(Parameters(size=8, shard_size=1), SOURCES * 3001)


def test_one_of_many_concurrent_plans_is_saved(tmp_path: Path) -> None:
    sizes = range(8, 12)
    running = [start_python("-c", SAVE_PLAN, tmp_path, size) for size in sizes]
    assert [read_line(process) for process in running] == ["ready\n"] * len(sizes)
    for process in running:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=30)[0].strip() for process in running]
    assert outputs.count("saved") == 1, outputs
    winner = sizes[outputs.index("saved")]
    assert load_plan(tmp_path).parameters.size == winner
    assert all(f"size was {winner}, is" in text for text in outputs if text != "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["build.json"]


def test_plan_is_saved_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.link", refuse)
    plan = make_plan(Parameters(size=8), [ImageSource("a.jpg", "/a.jpg")])
    save_plan(plan, tmp_path)
    save_plan(plan, tmp_path)
    assert json.loads((tmp_path / "build.json").read_text()) == json.loads(json.dumps(asdict(plan)))
    assert os.listdir(tmp_path) == ["build.json"]  # noqa: PTH208
