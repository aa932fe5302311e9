"""Tests of mixture: mixed samples; damaged ones are reported, or replaced."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shards.errors import UserError
from shards.read.dataset import DamagedSampleError, Split
from shards.read.mixture import Mixture, SubstitutingReader, open_training, parse_shards
from tests.support.small_shard_set import small_set


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [small_set(tmp_path_factory.mktemp("set"), size=16, count=count) for count in (23, 12)]


def test_samples_equal_those_of_the_shard_sets(sets: list[Path]) -> None:
    mixture = open_training([f"{sets[0]}:0.7", f"{sets[1]}:0.3"])
    one, other = (Split(folder) for folder in sets)
    numbers = mixture.order(3)(0, 100)
    assert int((numbers < len(one)).sum()) == 70
    expected = [
        one.read([n])[0] if n < len(one) else other.read([n - len(one)])[0]
        for n in numbers.tolist()
    ]
    np.testing.assert_array_equal(mixture.read(numbers), np.stack(expected))
    assert len(mixture) == 35


def test_dataset_id_depends_on_shard_sets_and_weights(sets: list[Path]) -> None:
    one, other = sets
    ids = {
        open_training(shards).dataset_id
        for shards in ([f"{one}:1", f"{other}:1"], [f"{one}:2", f"{other}:1"])
    }
    assert len(ids | {Split(one).dataset_id}) == 3
    assert open_training([f"{one}:1", f"{other}:1"]).dataset_id in ids


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a", ("a", None)),
        ("a:0.7", ("a", Fraction(7, 10))),
        ("s3://bucket/a:3", ("s3://bucket/a", Fraction(3))),
        ("http://host:8080", ("http://host:8080", None)),
        ("http://host:8080/a", ("http://host:8080/a", None)),
        ("a:b", ("a:b", None)),
    ],
)
def test_parse_shards(text: str, parsed: tuple[str, Fraction | None]) -> None:
    assert parse_shards(text) == parsed


def test_folder_name_may_look_like_a_weight(tmp_path: Path) -> None:
    (tmp_path / "a:2").mkdir()
    assert parse_shards(str(tmp_path / "a:2")) == (str(tmp_path / "a:2"), None)


def test_invalid_shards_raise(sets: list[Path], tmp_path: Path) -> None:
    one, other = sets
    larger = small_set(tmp_path, size=24, count=3)
    for shards, message in (
        ([f"{one}:0", f"{other}:1"], "must be above 0"),
        ([f"{one}:1", f"{other}"], "give every shard set a weight"),
        ([f"{one}:1", f"{other}:100000"], "less than 1/4096"),
        ([f"{one}", f"{larger}"], "16 px uint8, .* 24 px uint8"),
    ):
        with pytest.raises(UserError, match=message):
            open_training(shards)


def flip_byte(path: Path, at: int) -> None:
    """Change bits of the byte at offset `at`, modulo the file size."""
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1 + at % 255
    path.write_bytes(bytes(data))


def damage(root: Path, kind: str, shard: int, at: int) -> None:
    """Damage a copied shard set in one way."""
    tar = sorted(root.rglob("*.tar"))[shard]
    if kind == "flip":
        flip_byte(tar, at)
    elif kind == "truncate":
        tar.write_bytes(tar.read_bytes()[: at % tar.stat().st_size])
    elif kind == "grow":
        tar.write_bytes(tar.read_bytes() + bytes(512))
    elif kind == "missing":
        tar.unlink()
    elif kind == "swap":
        other = sorted(root.rglob("*.tar"))[shard - 1]
        first, second = tar.read_bytes(), other.read_bytes()
        tar.write_bytes(second), other.write_bytes(first)
    elif kind == "index":
        flip_byte(root / "index.npy", 128 + at)  # behind the .npy header
    elif kind == "index header":
        flip_byte(root / "index.npy", at % 128)
    else:
        flip_byte(root / "manifest.json", at)


KINDS = ("flip", "truncate", "grow", "missing", "swap", "index", "index header", "manifest")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(KINDS), st.integers(0, 4), st.integers(0, 10**6), st.booleans())
@example("flip", 0, 1500, True)  # in the pixels: found only by the checksum
def test_damage_is_reported_or_replaced_and_counted(
    sets: list[Path], tmp_path: Path, kind: str, shard: int, at: int, substitute: bool
) -> None:
    """Pixels are right, or an error names the file, or replacements are counted."""
    root = tmp_path / "damaged"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(sets[0], root)
    damage(root, kind, shard, at)
    intact = Split(sets[0])
    truth = intact.read(range(len(intact)))
    messages: list[str] = []
    try:
        split = Split(root)
        if substitute:
            reader = SubstitutingReader(split, split.order(1), 10, messages.append)
            pixels, numbers = reader.read(0, 23), intact.order(1)(0, 23)
            wrong = [
                row for row in range(23) if not np.array_equal(pixels[row], truth[numbers[row]])
            ]
            assert all(any(np.array_equal(pixels[row], one) for one in truth) for row in wrong)
            assert len(wrong) == reader.substituted == len(messages) == len(reader.damaged)
        else:
            np.testing.assert_array_equal(split.read(range(len(split))), truth)
    except UserError as error:
        messages.append(str(error))
    assert all(str(root) in line and "\n" not in line for line in messages)


def damage_samples(root: Path, samples: list[int]) -> None:
    """Change a pixel in each of these samples of a shard set with shards of 5."""
    tars, stride = sorted(root.rglob("*.tar")), 512 + 1024
    for sample in samples:
        flip_byte(tars[sample // 5], (sample % 5) * stride + 512 + 128 + 7)


@pytest.fixture
def damaged_split(sets: list[Path], tmp_path: Path) -> Callable[[list[int]], Split]:
    def make(samples: list[int]) -> Split:
        shutil.copytree(sets[0], tmp_path / "damaged")
        damage_samples(tmp_path / "damaged", samples)
        return Split(tmp_path / "damaged")

    return make


def test_replacement_does_not_depend_on_the_ranges_read(
    damaged_split: Callable[[list[int]], Split], sets: list[Path]
) -> None:
    split, intact = damaged_split([3, 4, 17]), Split(sets[0])
    stream = split.order(9)
    numbers = stream(0, 80)
    expected = []
    for position in range(60):
        later = next(p for p in range(position, 80) if numbers[p] not in (3, 4, 17))
        expected.append(intact.read([numbers[later]])[0])
    for ranges in (
        [(0, 60)],
        [(p, p + 1) for p in range(60)],
        [(30, 60), (0, 30)],
        [(p, p + 4) for p in range(56, -1, -4)],
    ):
        reader = SubstitutingReader(split, stream, 3, lambda _: None)
        found = np.concatenate(
            [reader.read(*each) for each in sorted(ranges, key=lambda r: -r[0])][::-1]
        )
        np.testing.assert_array_equal(found, np.stack(expected))
        assert reader.substituted == int(np.isin(numbers[:60], (3, 4, 17)).sum())


def test_more_damaged_samples_than_the_limit_raise(
    damaged_split: Callable[[list[int]], Split],
) -> None:
    split = damaged_split([3, 4, 17])
    messages: list[str] = []
    with pytest.raises(
        UserError,
        match=r"more than 2 damaged samples \(--corrupt-limit\), the last: .*00000[03]\.tar",
    ):
        SubstitutingReader(split, split.order(0), 2, messages.append).read(0, 23)
    assert len(messages) == 2


def test_shard_set_without_intact_samples_raises(
    damaged_split: Callable[[list[int]], Split],
) -> None:
    split = damaged_split(list(range(23)))
    with pytest.raises(UserError, match="more than 22 damaged"):
        SubstitutingReader(split, split.order(0), 1000, lambda _: None).read(0, 23)


def test_error_names_shard_member_and_offset(damaged_split: Callable[[list[int]], Split]) -> None:
    split = damaged_split([7])
    with pytest.raises(
        DamagedSampleError,
        match=r"000001\.tar: the member at byte 3584 \(000000007\.lab\.npy\).*CRC-32",
    ) as error:
        split.read([0, 1, 7, 2])
    assert error.value.row == 2


def test_error_of_a_mixture_has_the_row(
    damaged_split: Callable[[list[int]], Split], sets: list[Path]
) -> None:
    mixture = Mixture([Split(sets[1]), damaged_split([7])], [Fraction(1), Fraction(1)])
    with pytest.raises(DamagedSampleError) as error:
        mixture.read([0, 12, 12 + 7, 3])
    assert error.value.row == 2
