"""Tests of merge: parts from any folders, merged, equal a build without parts."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from shards.__main__ import main
from shards.builder.build import BuildOptions, PartResult, build_part
from shards.builder.finalize import BuildResult
from shards.builder.merge import merge
from shards.builder.parts import Part, lock_part, parse_part
from shards.builder.plan import Parameters
from shards.errors import UserError, run_command
from shards.inspect.verify import verify
from tests.support.photographs import encode, fingerprint, make_folder, pack_folder, photograph

OPTIONS: dict[str, Any] = {"size": 16, "splits": "train=.7,val=.3", "shard_size": 4}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty photographs, copies of one in several blocks, and a damaged file."""
    folder = make_folder(tmp_path_factory.mktemp("photos"), 30)
    for number in range(4):
        (folder / f"copy{number}.png").write_bytes(
            (folder / "class1" / "photo 001.png").read_bytes()
        )
    (folder / "broken.jpg").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shard set built without parts."""
    out = tmp_path_factory.mktemp("plain") / "out"
    assert pack_folder(photos, out, **OPTIONS).manifest.left_out == {
        "duplicate": 4,
        "unreadable": 1,
    }
    return out


def pack_part(
    photos: Path, out: Path, part: str, strict: bool = False, **options: Any
) -> PartResult:
    parameters = Parameters(**{**OPTIONS, **options})
    return build_part(
        str(photos), parameters, parse_part(part), BuildOptions(out=out, strict=strict, quiet=True)
    )


def merge_into(out: Path, *folders: Path, workers: int = 1, strict: bool = False) -> BuildResult:
    return merge(folders, BuildOptions(out=out, workers=workers, strict=strict, quiet=True))


@pytest.mark.parametrize("order", [("1/3", "2/3", "3/3"), ("3/3", "1/3", "2/3", "3/3")])
def test_parts_in_one_folder_equal_a_plain_build(
    photos: Path, plain: Path, tmp_path: Path, order: tuple[str, ...]
) -> None:
    for part in order:
        pack_part(photos, tmp_path / "out", part)
        assert not (tmp_path / "out" / "manifest.json").exists()
    merge_into(tmp_path / "out")
    assert fingerprint(tmp_path / "out") == fingerprint(plain)
    verify(tmp_path / "out", quiet=True)
    merge_into(tmp_path / "out")
    assert fingerprint(tmp_path / "out") == fingerprint(plain)


def refuse(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize(("workers", "links"), [(1, True), (2, True), (1, False)])
def test_parts_in_separate_folders_equal_a_plain_build(
    photos: Path,
    plain: Path,
    tmp_path: Path,
    workers: int,
    links: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = [tmp_path / f"part{number}" for number in (1, 2, 3)]
    for number, folder in enumerate(folders, 1):
        pack_part(photos, folder, f"{number}/3")
    before = [fingerprint(folder) for folder in folders]
    if not links:
        monkeypatch.setattr("os.link", refuse)
    merge_into(tmp_path / "out", *folders, folders[0], tmp_path / "out", workers=workers)
    assert fingerprint(tmp_path / "out") == fingerprint(plain)
    assert [fingerprint(folder) for folder in folders] == before
    tars = [path for folder in folders for path in folder.rglob("*.tar")]
    linked = [path.stat().st_nlink > 1 for path in tars]
    assert any(linked) == links


def test_plain_build_resumes_from_parts(photos: Path, plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack_part(photos, out, "1/2")
    before = {path: path.stat().st_mtime_ns for path in (out / "val").rglob("*.tar")}
    assert before
    pack_folder(photos, out, **OPTIONS)
    assert fingerprint(out) == fingerprint(plain)
    kept = [
        path for path, time in before.items() if path.exists() and path.stat().st_mtime_ns == time
    ]
    assert kept


def test_merge_lists_missing_blocks_and_writes_no_manifest(
    photos: Path, plain: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    pack_part(photos, out, "2/4")
    with pytest.raises(
        UserError,
        match=r"7 of 9 blocks are not packed yet: 0-1, 4-8 \(--part 1/4, 3/4, 4/4\): build",
    ):
        merge_into(out)
    assert not (out / "manifest.json").exists()
    for part in ("1/4", "4/4"):
        pack_part(photos, out, part)
    (out / "train" / "000008.tar").unlink()
    with pytest.raises(
        UserError, match=r"3 of 9 blocks are not packed yet: 4-5, 8 \(--part 3/4, 4/4\)"
    ):
        merge_into(out)
    for part in ("3/4", "4/4"):
        pack_part(photos, out, part)
    merge_into(out)
    assert fingerprint(out) == fingerprint(plain)


def test_parts_can_be_more_than_blocks(photos: Path, plain: Path, tmp_path: Path) -> None:
    results = [pack_part(photos, tmp_path / "out", f"{number}/12") for number in range(1, 13)]
    assert sorted(result.num_blocks for result in results) == [0] * 3 + [1] * 9
    assert [entry.source for result in results for entry in result.left_out] == ["broken.jpg"]
    merge_into(tmp_path / "out")
    assert fingerprint(tmp_path / "out") == fingerprint(plain)


def test_builds_merges_and_equal_parts_exclude_each_other(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack_part(photos, out, "1/2")
    with lock_part(out, Part(1, 2)):
        pack_part(photos, out, "2/2")
        with pytest.raises(UserError, match=r"part 1/2 is already running in .*: wait until"):
            pack_part(photos, out, "1/2")
        with pytest.raises(
            UserError, match=r"a build, or a part of one, is running in .*out: wait until"
        ):
            merge_into(out)
        with pytest.raises(UserError, match=r"is running in .*out: wait until"):
            merge_into(tmp_path / "new", out)
        with pytest.raises(UserError, match="another build is running in"):
            pack_folder(photos, out, **OPTIONS)
    assert not (out / "manifest.json").exists()
    merge_into(out)


def test_part_of_another_build_raises(photos: Path, tmp_path: Path) -> None:
    pack_part(photos, tmp_path / "one", "1/2")
    pack_part(photos, tmp_path / "two", "2/2", size=24)
    with pytest.raises(
        UserError,
        match=r"two holds another build .size was 24, is now 16.: merge only parts of the same",
    ):
        merge_into(tmp_path / "out", tmp_path / "one", tmp_path / "two")
    with pytest.raises(
        UserError, match=r"one holds another build .size was 16, is now 24.: choose a new OUT"
    ):
        pack_part(photos, tmp_path / "one", "2/2", size=24)
    with pytest.raises(UserError, match=r"nowhere has no build.json"):
        merge_into(tmp_path / "nowhere")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_error_names_a_damaged_part(photos: Path, plain: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    pack_part(photos, one, "1/2")
    pack_part(photos, two, "2/2")
    damaged = sorted((two / "train").glob("*.tar"))[1]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(
        UserError, match=rf"{damaged} is damaged: after .*: build this part again in {two}"
    ):
        merge_into(tmp_path / "out", one, two)
    assert not (tmp_path / "out" / "train" / damaged.name).exists()
    assert not list((tmp_path / "out").rglob("*.tmp"))
    pack_part(photos, two, "2/2")
    merge_into(tmp_path / "out", one, two)
    assert fingerprint(tmp_path / "out") == fingerprint(plain)


def rewrite_record(part: Path, **changes: object) -> None:
    """Change fields of the first shard in the first record that has one in "train"."""
    for path in sorted(part.glob("sources/*.jsonl")):
        first, rest = path.read_text().split("\n", 1)
        head = json.loads(first)
        if "train" in head["shards"]:
            shard = {**head["shards"].pop("train"), **changes}
            split = shard.pop("split", "train")
            head["shards"][split] = shard
            path.write_text(json.dumps(head) + "\n" + rest)
            return


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "a/../../x"},
        {"path": "../x"},
        {"path": "/tmp/x"},
        {"path": "train/000003.tar"},
        {"path": "manifest.json"},
        {"path": ["train/000000.tar"]},
        {"split": "../other/train"},
        {"split": "sources"},
        {"samples": 10**18},
        {"bytes": "1"},
        {"sha256": "../x"},
    ],
)
def test_record_of_a_part_that_no_build_wrote_is_refused_and_nothing_changes(
    photos: Path, plain: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    shutil.copytree(plain, tmp_path / "other")
    (tmp_path / "x").write_bytes(b"victim")
    part, out = tmp_path / "part", tmp_path / "out"
    pack_part(photos, part, "1/1")
    rewrite_record(part, **changes)
    (part / "a").symlink_to("train")  # "a/../../x" leads beside the part and beside OUT
    out.mkdir()
    before = fingerprint(tmp_path)
    with pytest.raises(UserError, match=r"part/sources/00000\d\.jsonl is damaged") as caught:
        merge_into(out, part)
    assert "\n" not in str(caught.value)
    after = fingerprint(tmp_path)
    assert {name: digest for name, digest in after.items() if not name.startswith("out/")} == before
    assert sorted(path.name for path in out.iterdir()) == [".lock", "build.json"]


def test_record_with_wrong_checksums_is_refused(photos: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    pack_part(photos, part, "1/1")
    path = part / "sources" / "000002.jsonl"
    path.write_text(re.sub(r'"crc32": \d+', '"crc32": 7', path.read_text()))
    with pytest.raises(UserError, match=r"do not have the recorded CRC-32: build this part again"):
        merge_into(tmp_path / "out", part)


def test_all_parts_are_checked_before_anything_is_copied(photos: Path, tmp_path: Path) -> None:
    one, two, out = tmp_path / "one", tmp_path / "two", tmp_path / "out"
    pack_part(photos, one, "1/2")
    pack_part(photos, two, "2/2")
    last = max((two / "train").glob("*.tar"))
    last.write_bytes(last.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=f"{last} is damaged"):
        merge_into(out, one, two)
    assert sorted(path.name for path in out.iterdir()) == [".lock", "build.json"]


@pytest.mark.parametrize("name", ["build.json", "sources/000000.jsonl", "train/000000.tar"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_in_a_part_are_refused(
    photos: Path, tmp_path: Path, name: str, kind: str
) -> None:
    part = tmp_path / "part"
    pack_part(photos, part, "1/1")
    (part / name).unlink()
    os.mkfifo(part / name) if kind == "pipe" else (part / name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match=str(part / name)) as caught:
        merge_into(tmp_path / "out", part)
    assert "\n" not in str(caught.value)


def test_split_folder_that_is_a_link_to_another_set_is_not_written_to(
    photos: Path, plain: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(plain, tmp_path / "other"))
    (other / "train" / "000099.tar").write_bytes(b"not in this build")
    before = fingerprint(other)
    part, out = tmp_path / "part", tmp_path / "out"
    pack_part(photos, part, "1/1")
    pack_part(photos, out, "1/9")
    shutil.rmtree(out / "train")
    (out / "train").symlink_to("../other/train")
    with pytest.raises(UserError, match=r"out/train/\S+ leads out of .*out through a link"):
        merge_into(out, part)
    with pytest.raises(UserError, match=r"out/train/\S+ leads out of .*out through a link"):
        pack_folder(photos, out, **OPTIONS)
    assert fingerprint(other) == before


def test_strict_parts_and_merges_raise_for_images_left_out(photos: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(photos, tmp_path / "photos")
    with pytest.raises(
        UserError, match=r"1 of 35 images cannot be packed, first 'broken.jpg' .*fix them or omit"
    ):
        pack_part(folder, tmp_path / "out", "1/1", strict=True)
    (folder / "broken.jpg").write_bytes(encode(photograph()))
    for part in ("1/2", "2/2"):
        pack_part(folder, tmp_path / "out", part, strict=True)
    with pytest.raises(UserError, match=r"4 of 35 images cannot be packed, first .*duplicate: of "):
        merge_into(tmp_path / "out", strict=True)
    assert merge_into(tmp_path / "out").num_packed == 31


def test_parts_run_at_the_same_time_in_one_new_folder(
    photos: Path, plain: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--size", 16, "--splits", OPTIONS["splits"], "--shard-size", 4, "--workers", 1)
    build = [*map(str, (sys.executable, "-m", "shards", "build", photos, out, *options))]
    running = [
        subprocess.Popen(
            [*build, "--part", f"{number}/3"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (1, 2, 3)
    ]
    printed = [process.communicate(timeout=60) for process in running]
    # One part contains the damaged file.
    assert sorted(process.returncode for process in running) == [0, 0, 1], printed
    for number, (text, _) in enumerate(printed, 1):
        assert text.startswith(f"{out}: part {number}/3: 3 of 9 blocks, ")
        assert text.endswith(f"; when all parts are done: colortrain shards merge {out}\n")
    assert run_command("shards", main, ["merge", str(out), "--workers", "1"]) == 1
    assert fingerprint(out) == fingerprint(plain)
