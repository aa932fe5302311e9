"""Tests of plan: splits, blocks, and saving the plan from many processes."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import pytest

from shards.builder.plan import (
    Parameters,
    blocks_of,
    load_plan,
    make_plan,
    save_plan,
    split_of,
)
from shards.builder.selection import select
from shards.errors import UserError
from shards.sources.listing import ImageSource

SOURCES = [ImageSource(f"{number:04d}.jpg", f"/x/{number:04d}.jpg") for number in range(100)]


def test_split_depends_only_on_the_digest() -> None:
    digests = [f"{(2 * n + 1) * 2**63 // 1000:016x}" + "0" * 48 for n in range(1000)]
    found = [
        split_of(digest, SOURCES[0], Parameters(size=8, splits="train=.9,val=.1"))
        for digest in digests
    ]
    assert found == ["train"] * 900 + ["val"] * 100
    assert split_of(digests[0], SOURCES[0], Parameters(size=8)) == "all"


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


def test_identity_is_that_of_versions_without_the_later_options() -> None:
    """Builds that such a version has begun or finished are resumed."""
    plan = make_plan(Parameters(size=8, splits="train=.9,val=.1"), SOURCES)
    assert plan.identity == "43f3c9c5981b4e75"
    other = make_plan(Parameters(size=8, splits="train=.9,val=.1", seed=1), SOURCES)
    assert other.identity != plan.identity


def test_plan_with_counts_is_read_as_it_was_saved(tmp_path: Path) -> None:
    parameters = Parameters(size=8, splits="val=20,train=10", seed=3, spare=0.2)
    plan = make_plan(parameters, SOURCES, select(parameters.rules, SOURCES, "x"))
    assert (plan.num_sources, plan.num_spare, plan.unused) == (36, 6, {"not chosen": 64})
    save_plan(plan, tmp_path)
    loaded = load_plan(tmp_path)
    assert loaded == plan
    assert loaded.identity == plan.identity
    assert list(loaded.quotas["all"].items()) == [("val", 20), ("train", 10)]


def test_fractions_depend_on_the_seed() -> None:
    digests = [f"{(2 * n + 1) * 2**63 // 1000:016x}" + "0" * 48 for n in range(1000)]
    parameters = Parameters(size=8, splits="train=.5,val=.5", seed=1)
    found = [split_of(digest, SOURCES[0], parameters) for digest in digests]
    assert 400 < found.count("train") < 600
    assert 150 < found[:500].count("train") < 350


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
