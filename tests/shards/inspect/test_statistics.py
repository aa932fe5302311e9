"""Tests of statistics: they equal numpy's, and parts merge exactly."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shards.__main__ import main
from shards.builder.parts import Part
from shards.color import unpack
from shards.errors import UserError, run_command
from shards.format.tar_layout import read_pixels
from shards.inspect.statistics import (
    CENTRES,
    EDGES,
    EMPTY,
    Sums,
    color_sums,
    compute_statistics,
    merge_statistics,
    save_statistics,
    statistics_of_part,
)
from tests.support.photographs import make_folder, pack_folder


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_statistics_equal_numpys(tmp_path: Path, dtype: str) -> None:
    result = pack_folder(
        make_folder(tmp_path / "photos", 20),
        tmp_path / "out",
        dtype=dtype,
        splits="train=.6,val=.4",
    )
    document = compute_statistics(tmp_path / "out", workers=1, quiet=True)
    for split, shards in result.manifest.splits.items():
        views = [
            pixels
            for shard in shards
            for pixels in read_pixels(tmp_path / "out" / shard.path, shard.samples, 32, dtype)
        ]
        lab = unpack(np.concatenate(views)).transpose(1, 0, 2, 3).reshape(3, -1).astype(np.float64)
        each = document["splits"][split]
        np.testing.assert_allclose([each["mean"][name] for name in "Lab"], lab.mean(1), rtol=1e-6)
        np.testing.assert_allclose([each["std"][name] for name in "Lab"], lab.std(1), rtol=1e-6)
        expected, _, _ = np.histogram2d(lab[1], lab[2], bins=[np.array(EDGES)] * 2)
        assert np.array_equal(each["ab_histogram"], expected)
        assert each["pixels"] == expected.sum() == result.manifest.samples(split) * 32 * 32


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, st.tuples(st.just(3), st.integers(1, 6), st.integers(1, 6))))
def test_every_pixel_is_counted(stored: np.ndarray) -> None:
    assert color_sums(stored).counts.sum() == stored[0].size


def test_bins_are_centred_on_multiples_of_ten() -> None:
    stored = np.array([[[0]], [[128 + 34]], [[128 - 56]]], np.uint8)
    a, b = np.argwhere(color_sums(stored).counts)[0]
    assert (CENTRES[a], CENTRES[b]) == (30, -60)
    assert EDGES[a] <= 34 < EDGES[a + 1]


@pytest.fixture(scope="module", params=["uint8", "float16"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    photos = make_folder(tmp_path_factory.mktemp("photos"), 24)
    out = tmp_path_factory.mktemp("built") / "out"
    pack_folder(photos, out, size=8, dtype=request.param, splits="train=.6,val=.4", shard_size=3)
    return out


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 20), st.randoms(use_true_random=False))
def test_merged_parts_equal_the_document_of_one_run(
    built: Path, tmp_path: Path, count: int, random: Random
) -> None:
    paths = []
    for number in range(1, count + 1):
        paths.append(tmp_path / f"{number}.json")
        save_statistics(statistics_of_part(built, Part(number, count), quiet=True), paths[-1])
    random.shuffle(paths)
    merged = merge_statistics(built, paths)
    assert json.dumps(merged) == json.dumps(compute_statistics(built, quiet=True))


SAMPLES = {
    "uint8": arrays(np.uint8, (12, 3, 2, 2)),
    "float16": arrays(np.float16, (12, 3, 2, 2), elements=st.floats(-128, 128, width=16)),
}


@pytest.mark.parametrize("dtype", list(SAMPLES))
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_sums_are_exact_for_any_partition_and_order(dtype: str, data: st.DataObject) -> None:
    stored = data.draw(SAMPLES[dtype])
    order = data.draw(st.permutations(range(12)))
    cuts = sorted(data.draw(st.lists(st.integers(0, 12), max_size=4)))
    subsets = [order[start:end] for start, end in zip([0, *cuts], [*cuts, 12], strict=True)]
    added = sum((color_sums(stored[subset]) for subset in subsets), EMPTY)
    assert same(added, color_sums(stored))
    unit = Fraction(1, 1 << 24) if dtype == "float16" else Fraction(1)
    values = [Fraction(float(value)) / unit for value in stored[:, 1].ravel()]
    values = [value - 128 * (dtype == "uint8") for value in values]
    assert (added.total[1], added.squares[1]) == (sum(values), sum(value**2 for value in values))


def same(one: Sums, other: Sums) -> bool:
    figures = [
        (sums.counts.tolist(), sums.total, sums.squares, sums.pixels) for sums in (one, other)
    ]
    return figures[0] == figures[1]


def run(*argv: object) -> int:
    return run_command("shards", main, [str(each) for each in argv])


def test_parts_and_merge_on_the_command_line(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("statistics", built, "--workers", 1, "--json", tmp_path / "one.json") == 0
    for part in ("2/3", "1/3", "3/3"):
        assert run("statistics", built, "--workers", 1, "--part", part) == 0
    assert f"colortrain shards statistics {built} --merge" in capsys.readouterr().out
    assert run("statistics", built, "--merge", "--json", tmp_path / "merged.json") == 0
    assert (tmp_path / "merged.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    for path in built.glob("statistics-*"):
        path.unlink()


def test_invalid_sets_of_parts_raise(built: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no statistics-I-of-N.json: run "):
        merge_statistics(built)
    document = statistics_of_part(built, Part(1, 2), quiet=True)
    names = ("one", "again", "third", "other", "damaged")
    one, again, third, other, damaged = (tmp_path / name for name in names)
    save_statistics(document, one)
    save_statistics(document, again)
    save_statistics(statistics_of_part(built, Part(3, 3), quiet=True), third)
    save_statistics({**document, "dataset_id": "0" * 16}, other)
    damaged.write_text("{}")
    for paths, message in (
        ([one], r"part 2/2 of the statistics is missing: run it with --part 2/2"),
        ([one, again], r"again conflicts with .*one: give each part once"),
        ([one, third], r"third conflicts with .*one: give each part once"),
        ([other], r"other belongs to dataset 0{16}, not .*: write it again with --part 1/2"),
        ([damaged], r"damaged is not a part of the statistics .*: write it again with --part"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            merge_statistics(built, paths)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"pixels": 1},
        {"pixels": "1"},
        {"total": [0]},
        {"total": [10**20, 0, 0]},
        {"squares": [-1, 0, 0]},
        {"counts": [[10**30] * 23] * 23},
    ],
)
def test_part_with_impossible_sums_raises(
    built: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    document = statistics_of_part(built, Part(1, 1), quiet=True)
    document["sums"]["train"].update(changes)
    save_statistics(document, tmp_path / "part")
    with pytest.raises(UserError, match="part is not a part of the statistics"):
        merge_statistics(built, [tmp_path / "part"])


def test_number_of_parts_that_would_fill_memory_raises(built: Path, tmp_path: Path) -> None:
    document = statistics_of_part(built, Part(1, 1), quiet=True)
    save_statistics({**document, "parts": 10**12}, tmp_path / "part")
    with pytest.raises(UserError, match=r"part 2/1000000000000 of the statistics is missing"):
        merge_statistics(built, [tmp_path / "part"])


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Yield a temporary folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def listeners(folder: Path) -> list[str]:
    """Return the sockets of worker pools below a folder.

    `Path.rglob` fails if a process removes a folder meanwhile; `os.walk` does not.
    """
    return [name for _, _, files in os.walk(folder) for name in files if name[:9] == "listener-"]


def test_files_of_killed_runs_are_removed_by_the_next_run(
    built: Path, tmp_path: Path, short_folder: Path
) -> None:
    """One run is killed while it has workers, another while it writes its result."""
    command = [sys.executable, "-m", "shards", "statistics", str(built), "--workers", "2"]
    command += ["--json", str(tmp_path / "colours.json")]
    environment = {**os.environ, "TMPDIR": str(short_folder)}
    killed = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while killed.poll() is None and not listeners(short_folder):
        time.sleep(0.002)
    killed.kill()
    killed.wait()
    assert listeners(short_folder)
    temporary = tmp_path / f".colours.json.{os.uname().nodename}.{killed.pid}.tmp"
    temporary.write_bytes(b"{")
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert [path.name for path in tmp_path.iterdir()] == ["colours.json"]
    assert not list(short_folder.iterdir())
