"""Commands in locales without Unicode, and with file names that are not UTF-8."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.photographs import encode
from tests.support.processes import environment
from tests.support.small_run import small_run
from tests.support.small_shard_set import cut_outs, small_set

LOCALES = {
    "utf-8": {"LC_ALL": "C.UTF-8"},
    # encodings of files, file names and output are all ASCII
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
IMAGES = [b"caf\xe9.png", "größe.png".encode(), "🐱→.png".encode(), b"sub/\xff\xfe.png"]
BROKEN = [b"bad\xe9.png", "kaputt→🐱.png".encode()]
RUN = "größe→🐱"
# Runs all commands in one process and prints their exit statuses as JSON to a file.
SCRIPT = """
import json, os, sys
from launch.__main__ import main
calls = [[os.fsdecode(arg.encode()) for arg in argv] for argv in json.load(sys.stdin.buffer)]
statuses = [main(argv) for argv in calls]
from pathlib import Path
import colortrain
from launch.serve.app import Limits, make_app
make_app({"run": colortrain.load(calls[-1][-1])}, Limits(), ["*"])
Path("statuses.json").write_bytes(json.dumps(statuses).encode())
"""
CALLS = {
    "build": ["shards", "build", "photos", "set", "--size", "16", "--workers", "1"],
    "build from a list": ["shards", "build", "list.txt", "set2", "--size", "16", "--workers", "1"],
    "verify": ["shards", "verify", "set", "--workers", "1"],
    "info": ["shards", "info", "set"],
    "statistics": ["shards", "statistics", "set", "--workers", "1"],
    "recipes": ["recipes"],
    "colorize": ["colorize", "--run", RUN, "--out", "out", "photos", "--sheet", "sheet.png"],
    "evaluate": ["evaluate", "--run", RUN, "--shards", "shards"],
    "export": ["export", "--run", RUN, "--out", "exported→"],
    "report": ["report", "--out", "report", RUN],
    "status": ["status", RUN],
}
LEFT_OUT = {"build", "build from a list", "colorize"}  # some images cannot be read


def write_inputs(folder: Path) -> None:
    small_run(folder / RUN)
    shutil.copy(next((folder / RUN).rglob("recipe.json")), folder / RUN)
    small_set(folder / "shards", splits=("train", "val"))
    (folder / "photos" / "sub").mkdir(parents=True)
    for name, image in zip(IMAGES, cut_outs(32, len(IMAGES)), strict=True):
        (folder / "photos" / os.fsdecode(name)).write_bytes(encode(image))
    for name in BROKEN:
        (folder / "photos" / os.fsdecode(name)).write_bytes(b"\x89PNG and no more")
    lines = [b"photos/" + name for name in (*IMAGES, *BROKEN)]
    (folder / "list.txt").write_bytes(b"\n".join(lines) + b"\n")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders in which all CALLS were made, for each of LOCALES."""
    pytest.importorskip("starlette", reason="needs colortrain[serve]")
    folders = {name: tmp_path_factory.mktemp(name) for name in LOCALES}
    with ThreadPoolExecutor() as pool:
        list(pool.map(run_calls, folders.values(), LOCALES.values()))
    return folders


def run_calls(folder: Path, variables: dict[str, str]) -> None:
    """Run SCRIPT in a folder and write what it prints to files there."""
    write_inputs(folder)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(list(CALLS.values())).encode(),
        env={**environment(), **variables},
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=280,
    )
    (folder / "stdout").write_bytes(done.stdout)
    (folder / "stderr").write_bytes(done.stderr)


@pytest.mark.parametrize("locale", LOCALES)
def test_every_command_succeeds(folders: dict[str, Path], locale: str) -> None:
    errors = (folders[locale] / "stderr").read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in errors
    statuses = json.loads((folders[locale] / "statuses.json").read_bytes())
    assert dict(zip(CALLS, statuses, strict=True)) == {name: name in LEFT_OUT for name in CALLS}


@pytest.mark.parametrize("locale", LOCALES)
def test_every_readable_image_is_colorized_under_its_own_name(
    folders: dict[str, Path], locale: str
) -> None:
    assert all((folders[locale] / "out" / os.fsdecode(name)).is_file() for name in IMAGES)


def test_shards_do_not_depend_on_the_locale(folders: dict[str, Path]) -> None:
    for shards in ("set", "set2"):
        files = {
            locale: {
                str(path.relative_to(folder)): path.read_bytes()
                for path in (folder / shards).rglob("*")
                if path.is_file()
            }
            for locale, folder in folders.items()
        }
        assert len(files["utf-8"]) > 10
        assert files["ascii"] == files["utf-8"]
        listed = files["utf-8"][f"{shards}/left_out.tsv"]
        assert all(name + b"\tunreadable\t" in listed for name in BROKEN)


def test_characters_that_cannot_be_printed_are_escaped(folders: dict[str, Path]) -> None:
    printed = {locale: (folder / "stderr").read_bytes() for locale, folder in folders.items()}
    assert rb"not colorized: photos/bad\udce9.png: unreadable" in printed["utf-8"]
    assert "not colorized: photos/kaputt→🐱.png: unreadable".encode() in printed["utf-8"]
    assert rb"photos/bad\udce9.png: unreadable" in printed["ascii"]


@pytest.mark.parametrize("locale", LOCALES)
def test_a_report_is_in_utf_8(folders: dict[str, Path], locale: str) -> None:
    text = (folders[locale] / "report" / "report.html").read_text(encoding="utf-8")
    assert '<meta charset="utf-8">' in text
    if locale != "ascii":
        assert RUN in text
