"""Tests of the command line: output, exit status, and one-line errors."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.__main__ import main
from shards.errors import run_command
from tests.support.photographs import encode, make_folder, photograph


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("photos"), 12)


def run(*argv: object) -> int:
    return run_command("shards", main, [str(each) for each in argv])


def test_build_verify_info_statistics(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    build = ("build", photos, out, "--size", 32, "--workers", 1, "--splits", "train=.5,val=.5")
    assert run(*build) == 0
    assert "12 of 12 images" in capsys.readouterr().out
    assert run("verify", out, "--workers", 1) == 0
    assert "all 12 samples are intact" in capsys.readouterr().out
    assert run("info", out, "--sheet", tmp_path / "sheet.png", "--count", 10) == 0
    table = capsys.readouterr().out
    assert [line.split()[0] for line in table.splitlines()[-2:]] == ["train", "val"]
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (8 * 36 - 4, 2 * 36 - 4)
    assert np.asarray(sheet).std() > 20
    assert run("statistics", out, "--workers", 1) == 0
    document = json.loads((out / "statistics.json").read_text())
    assert set(document["splits"]) == {"train", "val"}
    assert run(*build) == 0  # also with statistics.json in it


def test_exit_status_is_1_if_images_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "photos", 3)
    (folder / "bad.jpg").write_bytes(b"x")
    assert run("build", folder, tmp_path / "out", "--size", 32, "--workers", 1) == 1
    assert (
        f"left out: 1 unreadable; each is listed in {tmp_path / 'out' / 'left_out.tsv'}"
        in capsys.readouterr().out
    )
    assert run("build", folder, tmp_path / "strict", "--size", 32, "--workers", 1, "--strict") == 2


USER_ERRORS = [
    (["build", "{missing}", "{out}", "--size", "32"], "no such source"),
    (["build", "{missing}/*.tar", "{out}", "--size", "32"], "no such source"),
    (["build", "{empty}", "{out}", "--size", "32"], "no images in"),
    (["build", "{photos}", "{photos}", "--size", "32"], "is not empty and holds no shard set"),
    (["build", "{photos}", "{file}", "--size", "32"], "is a file"),
    (["build", "{photos}", "{file}/out", "--size", "32"], "Not a directory at"),
    (["build", "{photos}", "/proc/out", "--size", "32"], "No such file or directory at /proc/out"),
    (["build", "{photos}", "{out}"], "the following arguments are required: --size"),
    (
        ["build", "{photos}", "{out}", "--size", "32", "--fit", "stretch"],
        "invalid choice: 'stretch'",
    ),
    (["pack", "{photos}"], "invalid choice: 'pack'"),
    (["build", "{photos}", "{out}", "--size", "0"], "--size 0: give a number of pixels"),
    (["build", "{photos}", "{out}", "--size", "32", "--splits", "train=.9"], "add up to 0.9"),
    (
        ["build", "{photos}/class0", "{out}", "--size", "32", "--splits", "source"],
        "is not in a subfolder: move it",
    ),
    (["build", "{photos}", "{out}", "--size", "32", "--workers", "0"], "--workers 0"),
    (
        ["build", "{photos}", "{out}", "--size", "32", "--part", "3/2"],
        "--part 3/2: give I/N with I from 1 to N",
    ),
    (["build", "{photos}", "{out}", "--size", "32", "--part", ""], "--part : give I/N"),
    (["merge", "{missing}"], "has no build.json"),
    (["merge", "{out}", "{photos}"], "has no build.json"),
    (["verify", "{missing}"], "no folder"),
    (["verify", "{empty}"], "has no manifest.json"),
    (["info", "{photos}"], "has no manifest.json"),
    (["statistics", "{file}"], "no folder"),
]


@pytest.mark.parametrize(("argv", "message"), USER_ERRORS)
def test_user_errors_print_one_line_and_leave_no_files(
    photos: Path, tmp_path: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    paths = {name: tmp_path / name for name in ("missing", "empty", "file", "out")}
    before = sorted(tmp_path.rglob("*")), sorted(photos.rglob("*"))
    assert run(*(each.format(photos=photos, **paths) for each in argv)) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("colortrain shards: error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert (sorted(tmp_path.rglob("*")), sorted(photos.rglob("*"))) == before


@pytest.mark.parametrize("length", [0, 512, 10_239])
def test_truncated_shard_gives_a_one_line_error_in_every_command(
    photos: Path, tmp_path: Path, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("build", photos, out, "--size", 32, "--workers", 1) == 0
    os.truncate(out / "000003.tar", length)
    for argv in (
        ["statistics", out, "--workers", 1],
        ["info", out, "--sheet", tmp_path / "sheet.png"],
    ):
        capsys.readouterr()
        assert run(*argv) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith(
            f"colortrain shards: error: {out}/000003.tar has {length} bytes "
            "instead of 10240: restore it"
        )


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_unwritable_out_gives_a_one_line_error(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o500)
    assert run("build", photos, tmp_path / "out", "--size", 32) == 2
    assert "Permission denied at" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["build", "merge", "verify", "info", "statistics"])
def test_help_ends_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert last.strip().startswith(f"colortrain shards {command}")


def test_out_inside_source_builds_and_resumes(photos: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", 6)
    (folder / "one.png").write_bytes(_png())
    for _ in range(2):
        argv = ("build", folder, folder / "out", "--size", 32, "--workers", 1)
        assert run(*argv) == 0
        (folder / "out" / "sheet.png").write_bytes(_png())


def _png() -> bytes:
    return encode(photograph()[:64, :64])
