"""Tests of parts: the blocks of each part, and the locks on OUT."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.builder.parts import Part, lock_part, parse_part, part_counts, remove_part_locks
from shards.builder.plan import LOCK
from shards.errors import UserError
from shards.locks import lock


@given(st.integers(1, 300), st.integers(1, 40))
def test_every_block_is_in_one_part_and_parts_have_similar_sizes(blocks: int, count: int) -> None:
    parts = [Part(number, count).blocks(blocks) for number in range(1, count + 1)]
    assert [block for part in parts for block in part] == list(range(blocks))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    "text", ["", "2", "0/3", "4/3", "1/0", "-1/3", "1/2/3", "a/b", "1.0/2", "/"]
)
def test_invalid_part_raises(text: str) -> None:
    with pytest.raises(UserError, match=r"--part .*: give I/N with I from 1 to N, such as 2/8"):
        parse_part(text)


def test_parts_share_the_folder_with_each_other_only(tmp_path: Path) -> None:
    with lock_part(tmp_path, Part(1, 2)):
        with (
            pytest.raises(UserError, match="part 1/2 is already running"),
            lock_part(tmp_path, Part(1, 2)),
        ):
            pass
        with pytest.raises(UserError, match="build is running"):
            lock(tmp_path / LOCK, "build is running")
        with lock_part(tmp_path, Part(2, 2)):
            pass
    with (
        lock(tmp_path / LOCK, ""),
        pytest.raises(UserError, match="another build is running"),
        lock_part(tmp_path, Part(1, 2)),
    ):
        pass


def test_part_counts_are_those_of_the_lock_files(tmp_path: Path) -> None:
    for part in (Part(1, 2), Part(3, 8), Part(4, 8)):
        with lock_part(tmp_path, part):
            pass
    (tmp_path / f"{LOCK}-other").touch()
    assert part_counts([tmp_path, tmp_path / "none"]) == {2, 8}
    remove_part_locks(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, f"{LOCK}-other"]
