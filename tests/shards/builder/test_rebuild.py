"""The same build once more: what was repaired is taken, what has changed is packed anew, a passing failure ends it."""

import errno
import os
from pathlib import Path

import pytest

from shards.builder.plan import load_plan
from shards.builder.records import DUPLICATE, Entry, load_record
from shards.errors import run_command
from shards.inspect.verify import verify
from shards.sources.listing import Source, read_bytes
from tests.support.photographs import (
    encode,
    fingerprint,
    make_folder,
    pack_folder,
    photograph,
    random_crops,
)


def test_an_unreadable_image_that_is_mended_is_taken(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", 12)
    bad = folder / "bad.jpg"
    bad.write_bytes(b"broken")
    assert pack_folder(folder, tmp_path / "out").manifest.left_out == {"unreadable": 1}
    before = fingerprint(tmp_path / "out")
    pack_folder(folder, tmp_path / "out")
    assert fingerprint(tmp_path / "out") == before
    bad.write_bytes(encode(photograph()))
    assert pack_folder(folder, tmp_path / "out").manifest.left_out == {}
    pack_folder(folder, tmp_path / "anew")
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "anew")


@pytest.mark.parametrize(
    "code", ["EIO", "ESTALE", "EMFILE", "ENFILE", "ENOMEM", "ETIMEDOUT", "ENOTCONN"]
)
def test_a_passing_failure_ends_the_build_and_leaves_no_image_out(
    tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "photos", 4)
    number = getattr(errno, code)

    def fail(source: Source, limit: int) -> bytes:
        if source.name.endswith("001.png"):
            raise OSError(number, os.strerror(number))
        return read_bytes(source, limit)

    monkeypatch.setattr("shards.builder.pack.read_bytes", fail)
    assert (
        run_command(
            "shards", lambda _: pack_folder(folder, tmp_path / "out", shard_size=2).num_packed
        )
        == 2
    )
    message = capsys.readouterr().err
    assert message.startswith(
        f"colortrain shards: error: {os.strerror(number)} at {folder}/class1/photo 001.png: "
    )
    assert message.count("\n") == 1
    assert not (tmp_path / "out" / "manifest.json").exists()
    monkeypatch.undo()
    assert pack_folder(folder, tmp_path / "out", shard_size=2).manifest.left_out == {}


def packed_and_dropped(root: Path) -> tuple[Entry, Entry]:
    plan = load_plan(root)
    entries = [
        entry
        for block in range(plan.num_blocks)
        for entry in load_record(root, plan, block).entries
    ]
    (dropped,) = (entry for entry in entries if entry.reason == DUPLICATE)
    (packed,) = (entry for entry in entries if not entry.reason and entry.packed == dropped.packed)
    return packed, dropped


@pytest.mark.parametrize("content", [b"broken", encode(photograph("coffee"))])
def test_a_duplicate_whose_first_copy_is_gone_is_packed(tmp_path: Path, content: bytes) -> None:
    folder = make_folder(tmp_path / "photos", 12)
    (folder / "copy.png").write_bytes((folder / "class1" / "photo 001.png").read_bytes())
    pack_folder(folder, tmp_path / "out", shard_size=2)
    packed, dropped = packed_and_dropped(tmp_path / "out")
    assert packed.key // 2 != dropped.key // 2
    (folder / packed.source).write_bytes(content)
    (
        tmp_path / "out" / "sources" / f"{packed.key // 2:06d}.jsonl"
    ).unlink()  # its block must be packed anew
    outcome = pack_folder(folder, tmp_path / "out", shard_size=2)
    assert DUPLICATE not in outcome.manifest.left_out
    verify(tmp_path / "out", quiet=True)
    pack_folder(folder, tmp_path / "anew", shard_size=2)
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "anew")


def test_three_copies_of_which_the_first_goes_leave_one(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", 10)
    (piece,) = random_crops(1, 40)
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(encode(piece))
    pack_folder(folder, tmp_path / "out", shard_size=1)
    listed = (tmp_path / "out" / "left_out.tsv").read_text()
    (first,) = (name for name in ("a.png", "b.png", "c.png") if f"{name}\tduplicate" not in listed)
    (folder / first).write_bytes(b"broken")
    for path in (tmp_path / "out" / "sources").iterdir():
        if f'"{first}"' in path.read_text().replace(f"of {first}", ""):
            path.unlink()
    assert pack_folder(folder, tmp_path / "out", shard_size=1).manifest.left_out == {
        "duplicate": 1,
        "unreadable": 1,
    }
    verify(tmp_path / "out", quiet=True)
    pack_folder(folder, tmp_path / "anew", shard_size=1)
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "anew")
