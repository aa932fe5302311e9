"""One name for all doors: the list, the nearest valid name, and no import but the chosen one's."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from launch.__main__ import main
from launch.cli import COMMANDS, CommandParser, add_cache_arguments, at_least_one, make_cache
from shards.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent


def test_help_lists_every_door_with_its_phrase(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, (_, phrase) in COMMANDS.items():
        assert any(line.split(maxsplit=1) == [name, phrase] for line in out.splitlines())


@pytest.mark.parametrize("module", [module for module, _ in COMMANDS.values()])
def test_every_door_leads_somewhere(module: str) -> None:
    assert importlib.util.find_spec(module) is not None
    assert callable(importlib.import_module(module).main)


def test_an_unknown_door_lists_the_valid_ones_nearest_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["colourise", "x"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "unknown command 'colourise'; valid, nearest first: colorize," in captured.err
    assert all(name in captured.err for name in COMMANDS)


def test_no_door_is_a_mistake_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "evaluate" in capsys.readouterr().err


def test_a_mistake_behind_a_door_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["evaluate", "--run", str(tmp_path / "no"), "--shards", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("colortrain evaluate: error: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("size", ["nan", "inf", "1e300", "0", "-1", "much"])
def test_a_cache_of_no_size_is_one_line(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["evaluate", "--run", "r", "--shards", "s", "--cache", "c", "--cache-size", size]) == 2
    )
    assert (
        f"--cache-size: needs a number of gigabytes above 0, got '{size}'"
        in capsys.readouterr().err
    )


def test_a_cache_has_the_gigabytes_that_are_asked_for() -> None:
    words = CommandParser("some.door", "words", "example")
    add_cache_arguments(words)
    cache = make_cache(words.parse_args(["--cache", "c", "--cache-size", "1.5"]))
    assert cache is not None
    assert cache.max_bytes == 1_500_000_000


@pytest.mark.parametrize("words", [["--help"], ["nonsense"]])
def test_nothing_heavy_is_imported_for_the_list(words: list[str]) -> None:
    code = f"import sys; from launch.__main__ import main; main({words}); sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False
        ).returncode
        == 0
    )


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "shards"])
def test_every_door_helps_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: python -m {COMMANDS[name][0].removesuffix('.__main__')}")
    assert "example" in out
    example = out.split("\nexample", 1)[-1]
    assert "python -m" in example or "launch.train" in example


def test_parsers_complain_in_one_line() -> None:
    words = CommandParser("launch.nothing", "Nothing.", "example: none")
    words.add_argument("--count", type=at_least_one)
    assert words.parse_args(["--count", "3"]).count == 3
    for wrong in (
        ["--count", "0"],
        ["--count", "-1"],
        ["--count", "1.5"],
        ["--coun", "3"],
        ["more"],
    ):
        with pytest.raises(UserError) as raised:
            words.parse_args(wrong)
        assert "\n" not in str(raised.value)
