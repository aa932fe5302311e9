"""The command line of the benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.__main__ import main as colortrain
from launch.benchmark import BENCHMARKS, main
from shards.errors import UserError


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no benchmark given; valid: loader"),
        (["lodaer"], "unknown benchmark 'lodaer'; valid, nearest first: loader"),
        (["loader"], "--shards is missing"),
        (["loader", "--shards", "nowhere"], "no folder nowhere"),
        (
            ["loader", "--sections", "reeding"],
            "unknown section 'reeding'; valid, nearest first: reading",
        ),
        (["loader", "--shards", "nowhere", "--seconds", "0"], "--seconds 0.0: must be above 0"),
        (["loader", "--shards", "nowhere", "--workers", "-1"], "--workers -1: must be at least 0"),
        (["build", "--source", "nowhere"], "no such source nowhere"),
    ],
)
def test_errors_are_one_line_before_any_work(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        main([*argv, "--json", "out.json"] if argv[1:] else argv)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_ends_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--shards", str(tmp_path / "no"), "--json", str(tmp_path / "out.json")]
    assert colortrain(["benchmark", "loader", *options]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_ends_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert f"colortrain benchmark {name}" in capsys.readouterr().out.split("example:")[-1]


def test_help_lists_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    for name, (_, description) in BENCHMARKS.items():
        assert any(line.split(maxsplit=1) == [name, description] for line in lines)
