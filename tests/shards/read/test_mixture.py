"""Mixtures keep their weights, and damage ends in a named error or a counted substitution, never in silence."""

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
from shards.read.order import MAX_BLOCK, MixedOrder, Order, apportion
from tests.support.small_shard_set import small_set

weights_of = st.lists(
    st.fractions(min_value=Fraction(1, 12), max_value=5, max_denominator=12), min_size=1, max_size=4
)
counts_of = st.lists(st.integers(1, 30), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [small_set(tmp_path_factory.mktemp("set"), size=16, count=count) for count in (23, 12)]


@settings(deadline=None)
@given(weights_of, st.data(), st.integers(0, 2**63))
def test_every_block_holds_the_exact_shares(
    weights: list[Fraction], data: st.DataObject, seed: int
) -> None:
    parts = [Order(data.draw(counts_of), seed) for _ in weights]
    counts = apportion(weights)
    order, length = MixedOrder(parts, weights, seed), sum(counts)
    for share, weight in zip(counts, weights, strict=True):
        assert abs(share - weight / sum(weights) * length) < 1
        assert length == MAX_BLOCK or share == weight / sum(weights) * length
    block = data.draw(st.integers(0, 5))
    numbers = order(block * length, (block + 1) * length)
    which = np.searchsorted(order.first, numbers, side="right") - 1
    assert np.bincount(which, minlength=len(parts)).tolist() == list(counts)


@settings(deadline=None)
@given(weights_of, st.data(), st.integers(0, 2**63))
def test_each_part_runs_through_its_own_order(
    weights: list[Fraction], data: st.DataObject, seed: int
) -> None:
    parts = [Order(data.draw(counts_of), seed) for _ in weights]
    order, total = MixedOrder(parts, weights, seed), 3 * sum(apportion(weights))
    stop = data.draw(st.integers(0, total))
    numbers = order(0, stop)
    for place, part in enumerate(parts):
        mine = (
            numbers[(numbers >= order.first[place]) & (numbers < order.first[place + 1])]
            - order.first[place]
        )
        np.testing.assert_array_equal(mine, part(0, len(mine)))
    start = data.draw(st.integers(0, stop))
    np.testing.assert_array_equal(MixedOrder(parts, weights, seed)(start, stop), numbers[start:])


def test_parts_do_not_stand_in_runs() -> None:
    order = MixedOrder([Order([1000], 0), Order([1000], 0)], [Fraction(1), Fraction(1023)], 1)
    gaps = np.diff(np.flatnonzero(order(0, 1024 * 50) < 1000))
    assert len(gaps) == 49
    assert gaps.std() > 200  # one in each block of 1,024, not always at the same place


def test_the_samples_are_those_of_the_sets(sets: list[Path]) -> None:
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


def test_an_id_names_sets_and_weights(sets: list[Path]) -> None:
    one, other = sets
    ids = {
        open_training(asked).dataset_id
        for asked in ([f"{one}:1", f"{other}:1"], [f"{one}:2", f"{other}:1"])
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
def test_words_for_weights(text: str, parsed: tuple[str, Fraction | None]) -> None:
    assert parse_shards(text) == parsed


def test_a_folder_may_be_named_like_a_weight(tmp_path: Path) -> None:
    (tmp_path / "a:2").mkdir()
    assert parse_shards(str(tmp_path / "a:2")) == (str(tmp_path / "a:2"), None)


def test_mistakes_are_one_line(sets: list[Path], tmp_path: Path) -> None:
    one, other = sets
    larger = small_set(tmp_path, size=24, count=3)
    for asked, said in (
        ([f"{one}:0", f"{other}:1"], "must be above 0"),
        ([f"{one}:1", f"{other}"], "give every set a weight"),
        ([f"{one}:1", f"{other}:100000"], "less than a 4096th"),
        ([f"{one}", f"{larger}"], "16 px uint8, .* 24 px uint8"),
    ):
        with pytest.raises(UserError, match=said):
            open_training(asked)


def flip_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1 + at % 255
    path.write_bytes(bytes(data))


def damage(root: Path, kind: str, shard: int, at: int) -> None:
    """Break one thing of a copied set."""
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
@example("flip", 0, 1500, True)  # pixels: only a checksum sees it
def test_damage_is_named_or_counted(
    sets: list[Path], tmp_path: Path, kind: str, shard: int, at: int, substitute: bool
) -> None:
    """Whatever is broken: the pixels are right, or an error names the file, or whole samples stand in, counted."""
    root = tmp_path / "broken"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(sets[0], root)
    damage(root, kind, shard, at)
    whole = Split(sets[0])
    truth = whole.read(range(len(whole)))
    told: list[str] = []
    try:
        split = Split(root)
        if substitute:
            reader = SubstitutingReader(split, split.order(1), 10, told.append)
            pixels, numbers = reader.read(0, 23), whole.order(1)(0, 23)
            wrong = [
                row for row in range(23) if not np.array_equal(pixels[row], truth[numbers[row]])
            ]
            assert all(any(np.array_equal(pixels[row], one) for one in truth) for row in wrong)
            assert len(wrong) == reader.substituted == len(told) == len(reader.damaged)
        else:
            np.testing.assert_array_equal(split.read(range(len(split))), truth)
    except UserError as error:
        told.append(str(error))
    assert all(str(root) in line and "\n" not in line for line in told)


def break_samples(root: Path, samples: list[int]) -> None:
    """Flip a pixel of each of these samples of a set with shards of 5."""
    tars, stride = sorted(root.rglob("*.tar")), 512 + 1024
    for sample in samples:
        flip_byte(tars[sample // 5], (sample % 5) * stride + 512 + 128 + 7)


@pytest.fixture
def broken(sets: list[Path], tmp_path: Path) -> Callable[[list[int]], Split]:
    def make(samples: list[int]) -> Split:
        shutil.copytree(sets[0], tmp_path / "broken")
        break_samples(tmp_path / "broken", samples)
        return Split(tmp_path / "broken")

    return make


def test_the_next_position_stands_in_whoever_reads(
    broken: Callable[[list[int]], Split], sets: list[Path]
) -> None:
    split, whole = broken([3, 4, 17]), Split(sets[0])
    stream = split.order(9)
    numbers = stream(0, 80)
    expected = []
    for position in range(60):
        place = next(p for p in range(position, 80) if numbers[p] not in (3, 4, 17))
        expected.append(whole.read([numbers[place]])[0])
    for pieces in (
        [(0, 60)],
        [(p, p + 1) for p in range(60)],
        [(30, 60), (0, 30)],
        [(p, p + 4) for p in range(56, -1, -4)],
    ):
        reader = SubstitutingReader(split, stream, 3, lambda _: None)
        found = np.concatenate(
            [reader.read(*piece) for piece in sorted(pieces, key=lambda p: -p[0])][::-1]
        )
        np.testing.assert_array_equal(found, np.stack(expected))
        assert reader.substituted == int(np.isin(numbers[:60], (3, 4, 17)).sum())


def test_past_the_limit_it_ends(broken: Callable[[list[int]], Split]) -> None:
    split = broken([3, 4, 17])
    told: list[str] = []
    with pytest.raises(
        UserError,
        match=r"more than 2 damaged samples, the limit; the last: .*000000\.tar|000003\.tar",
    ):
        SubstitutingReader(split, split.order(0), 2, told.append).read(0, 23)
    assert len(told) == 2


def test_a_set_of_nothing_whole_ends(broken: Callable[[list[int]], Split]) -> None:
    split = broken(list(range(23)))
    with pytest.raises(UserError, match="more than 22 damaged"):
        SubstitutingReader(split, split.order(0), 1000, lambda _: None).read(0, 23)


def test_damage_names_shard_member_and_offset(broken: Callable[[list[int]], Split]) -> None:
    split = broken([7])
    with pytest.raises(
        DamagedSampleError,
        match=r"000001\.tar: the member at byte 3584 \(000000007\.lab\.npy\).*CRC-32",
    ) as error:
        split.read([0, 1, 7, 2])
    assert error.value.row == 2


def test_mixtures_say_which_row(broken: Callable[[list[int]], Split], sets: list[Path]) -> None:
    mixture = Mixture([Split(sets[1]), broken([7])], [Fraction(1), Fraction(1)])
    with pytest.raises(DamagedSampleError) as error:
        mixture.read([0, 12, 12 + 7, 3])
    assert error.value.row == 2
