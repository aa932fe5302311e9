"""The `colortrain` program: help, version, errors, and what it imports."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from launch import __main__ as program
from launch.__main__ import main
from launch.cli import COMMAND_GROUPS, COMMANDS

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command_in_its_group(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 0
    out = capsys.readouterr().out
    for group, commands in COMMAND_GROUPS.items():
        section = out.split(f"\n{group}:\n")[1].split("\n\n")[0]
        assert [line.split(maxsplit=1) for line in section.splitlines()] == [
            [name, phrase] for name, (_, phrase) in commands.items()
        ]


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "colortrain 0.1.0\n"

    def not_installed(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(program, "version", not_installed)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "colortrain (not installed, version unknown)\n"


@pytest.mark.parametrize("module", [module for module, _ in COMMANDS.values()])
def test_every_command_has_a_module_with_a_main_function(module: str) -> None:
    assert importlib.util.find_spec(module) is not None
    assert callable(importlib.import_module(module).main)


def test_an_unknown_command_lists_the_valid_ones_nearest_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["colourise", "x"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("colortrain: error: unknown command 'colourise'")
    assert "valid, nearest first: colorize," in captured.err
    assert all(name in captured.err for name in COMMANDS)


@pytest.mark.parametrize("name", ["evaluate", "shards"])
def test_an_error_of_a_command_is_one_line_with_its_name(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = {
        "evaluate": ["--run", str(tmp_path / "no"), "--shards", str(tmp_path)],
        "shards": ["info", str(tmp_path / "no")],
    }
    assert main([name, *argv[name]]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"colortrain {name}: error: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("module", ["launch", "slurm.status", "shards"])
def test_python_dash_m_prints_the_same_name(module: str) -> None:
    line = [sys.executable, "-m", module, "--surely-unknown"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    name = {"launch": "colortrain", "slurm.status": "colortrain status"}
    assert done.returncode == 2
    assert done.stderr.startswith(f"{name.get(module, 'colortrain shards')}: error: ")


@pytest.mark.parametrize("argv", [[], ["--help"], ["--version"], ["nonsense"]])
def test_help_and_version_do_not_import_torch(argv: list[str]) -> None:
    code = (
        "import sys; from launch.__main__ import main; "
        f"main({argv}); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "shards"])
def test_help_of_every_command_ends_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    if name != "benchmark":  # which prints its own list of benchmarks
        assert out.startswith(f"usage: colortrain {name} ")
    assert "example" in out
    example = out.split("\nexample", 1)[-1]
    package = COMMANDS[name][0].partition(".")[0]
    assert f"colortrain {name}" in example or f"-m {package}.{name}" in example


def test_no_command_imports_matplotlib_before_it_draws() -> None:
    modules = ", ".join(module for module, _ in COMMANDS.values())
    code = f"import sys, {modules}; sys.exit('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_matplotlib_without_a_writable_folder_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Import matplotlib where neither the home nor a temporary folder is writable."""
    (tmp_path / "file").touch()
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / "file"))
    code = (
        "import sys, tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc/nothing'];"
        "from shards.errors import run_command;"
        "from colortrain.visualize import loss_curves;"
        "from pathlib import Path;"
        "sys.exit(run_command('demo', lambda _: loss_curves([], Path('curves.png'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    errors = [
        line for line in done.stderr.splitlines() if line.startswith("colortrain demo: error")
    ]
    assert len(errors) == 1
    assert "set the MPLCONFIGDIR environment variable to a writable directory" in errors[0]
    assert "Traceback" not in done.stderr
