"""Many machines, one shard set: parts in any order and any folder, merged, are byte for byte a plain build."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.__main__ import main
from shards.builder.build import BuildOptions, PartResult, build_part
from shards.builder.finalize import BuildResult
from shards.builder.merge import merge
from shards.builder.parts import Part, hold_part, parse_part
from shards.builder.plan import Parameters, load_plan, make_plan, save_plan
from shards.errors import UserError, run_command
from shards.inspect.verify import verify
from shards.sources.listing import Source
from tests.support.photographs import encode, fingerprint, make_folder, pack_folder, photograph

OPTIONS: dict[str, Any] = {"size": 16, "splits": "train=.7,val=.3", "shard_size": 4}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty photographs, copies of one in several blocks, and a broken file."""
    folder = make_folder(tmp_path_factory.mktemp("photos"), 30)
    for number in range(4):
        (folder / f"copy{number}.png").write_bytes(
            (folder / "class1" / "photo 001.png").read_bytes()
        )
    (folder / "broken.jpg").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@given(st.integers(1, 300), st.integers(1, 40))
def test_every_block_is_in_one_part_and_parts_are_alike(blocks: int, count: int) -> None:
    parts = [Part(number, count).blocks(blocks) for number in range(1, count + 1)]
    assert [block for part in parts for block in part] == list(range(blocks))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    "text", ["", "2", "0/3", "4/3", "1/0", "-1/3", "1/2/3", "a/b", "1.0/2", "/"]
)
def test_what_is_no_part_gets_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"--part .*: write I/N with I from 1 to N, such as 2/8"):
        parse_part(text)


@pytest.mark.parametrize("order", [("1/3", "2/3", "3/3"), ("3/3", "1/3", "2/3", "3/3")])
def test_parts_in_one_folder_are_a_plain_build(
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
def test_parts_in_folders_of_their_own_are_a_plain_build(
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
    shared = [path.stat().st_nlink > 1 for path in tars]
    assert any(shared) == links


def test_a_plain_build_goes_on_from_parts(photos: Path, plain: Path, tmp_path: Path) -> None:
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


def test_a_merge_lists_what_is_missing_and_waits(photos: Path, plain: Path, tmp_path: Path) -> None:
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


def test_more_parts_than_blocks_leave_some_without_work(
    photos: Path, plain: Path, tmp_path: Path
) -> None:
    outcomes = [pack_part(photos, tmp_path / "out", f"{number}/12") for number in range(1, 13)]
    assert sorted(outcome.num_blocks for outcome in outcomes) == [0] * 3 + [1] * 9
    assert [entry.source for outcome in outcomes for entry in outcome.left_out] == ["broken.jpg"]
    merge_into(tmp_path / "out")
    assert fingerprint(tmp_path / "out") == fingerprint(plain)


def test_who_may_work_beside_whom(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack_part(photos, out, "1/2")
    with hold_part(out, Part(1, 2)):
        pack_part(photos, out, "2/2")
        with pytest.raises(UserError, match=r"part 1/2 is at work on .* already: wait for it"):
            pack_part(photos, out, "1/2")
        with pytest.raises(
            UserError, match=r"a build, or a part of one, is at work on .*out: wait for it"
        ):
            merge_into(out)
        with pytest.raises(UserError, match=r"is at work on .*out: wait for it"):
            merge_into(tmp_path / "new", out)
        with pytest.raises(UserError, match="another build is at work on"):
            pack_folder(photos, out, **OPTIONS)
    assert not (out / "manifest.json").exists()
    merge_into(out)


def test_a_part_of_another_build_is_refused(photos: Path, tmp_path: Path) -> None:
    pack_part(photos, tmp_path / "one", "1/2")
    pack_part(photos, tmp_path / "two", "2/2", size=24)
    with pytest.raises(
        UserError, match=r"two holds another build .size was 24, is 16.: merge parts of one build"
    ):
        merge_into(tmp_path / "out", tmp_path / "one", tmp_path / "two")
    with pytest.raises(
        UserError, match=r"one holds another build .size was 16, is 24.: choose a new OUT"
    ):
        pack_part(photos, tmp_path / "one", "2/2", size=24)
    with pytest.raises(UserError, match=r"nowhere has no build.json"):
        merge_into(tmp_path / "nowhere")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_broken_part_is_named_and_not_taken(photos: Path, plain: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    pack_part(photos, one, "1/2")
    pack_part(photos, two, "2/2")
    broken = sorted((two / "train").glob("*.tar"))[1]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-1] + b"x")
    with pytest.raises(
        UserError, match=rf"{broken} is not what its record says: build that part again in {two}"
    ):
        merge_into(tmp_path / "out", one, two)
    assert not (tmp_path / "out" / "train" / broken.name).exists()
    assert not list((tmp_path / "out").rglob("*.tmp"))
    pack_part(photos, two, "2/2")
    merge_into(tmp_path / "out", one, two)
    assert fingerprint(tmp_path / "out") == fingerprint(plain)


def test_strict_parts_and_strict_merges(photos: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(photos, tmp_path / "photos")
    with pytest.raises(
        UserError, match=r"1 of 35 images cannot be packed, first 'broken.jpg' .*mend them or drop"
    ):
        pack_part(folder, tmp_path / "out", "1/1", strict=True)
    (folder / "broken.jpg").write_bytes(encode(photograph()))
    for part in ("1/2", "2/2"):
        pack_part(folder, tmp_path / "out", part, strict=True)
    with pytest.raises(UserError, match=r"4 of 35 images cannot be packed, first .*duplicate: of "):
        merge_into(tmp_path / "out", strict=True)
    assert merge_into(tmp_path / "out").num_packed == 31


def start_python(*argv: object) -> subprocess.Popen[str]:
    command, pipe = [sys.executable, *map(str, argv)], subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline()


def test_parts_at_the_same_time_in_one_new_folder(
    photos: Path, plain: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--size", 16, "--splits", OPTIONS["splits"], "--shard-size", 4, "--workers", 1)
    running = [
        start_python("-m", "shards", "build", photos, out, *options, "--part", f"{number}/3")
        for number in (1, 2, 3)
    ]
    printed = [process.communicate(timeout=60) for process in running]
    assert sorted(process.returncode for process in running) == [0, 0, 1], (
        printed
    )  # one part has the broken file
    for number, (text, _) in enumerate(printed, 1):
        assert text.startswith(f"{out}: part {number}/3: 3 of 9 blocks, ")
        assert text.endswith(f"; when all parts are done: python -m shards merge {out}\n")
    assert run_command("shards", main, ["merge", str(out), "--workers", "1"]) == 1
    assert fingerprint(out) == fingerprint(plain)


CLAIM = """
import sys, time
from pathlib import Path
from shards.errors import UserError
from shards.builder.plan import Parameters, make_plan, save_plan
from shards.sources.listing import Source
plan = make_plan(Parameters(size=int(sys.argv[2])), [Source("a.jpg", "/a.jpg")])
print("ready", flush=True)
input()
try:
    save_plan(plan, Path(sys.argv[1]))
    print("claimed")
except UserError as error:
    print(error)
"""


def test_of_many_that_claim_a_folder_at_once_one_has_it(tmp_path: Path) -> None:
    sizes = range(8, 12)
    running = [start_python("-c", CLAIM, tmp_path, size) for size in sizes]
    assert [line_of(process) for process in running] == ["ready\n"] * len(sizes)
    for process in running:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=30)[0].strip() for process in running]
    assert answers.count("claimed") == 1, answers
    winner = sizes[answers.index("claimed")]
    assert load_plan(tmp_path).parameters.size == winner
    assert all(f"size was {winner}, is" in answer for answer in answers if answer != "claimed")
    assert [path.name for path in tmp_path.iterdir()] == ["build.json"]


def test_a_folder_without_hard_links_can_be_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.link", refuse)
    plan = make_plan(Parameters(size=8), [Source("a.jpg", "/a.jpg")])
    save_plan(plan, tmp_path)
    save_plan(plan, tmp_path)
    assert json.loads((tmp_path / "build.json").read_text()) == json.loads(json.dumps(asdict(plan)))
    assert os.listdir(tmp_path) == ["build.json"]  # noqa: PTH208
