"""Tests of commands: output, failures, silence and absence of SLURM's programs."""

from pathlib import Path

import pytest

from shards.errors import UserError
from slurm import commands
from slurm.commands import run_slurm, try_slurm


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty executable that is the only sinfo on the PATH."""
    path = tmp_path / "sinfo"
    path.touch(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return path


def test_standard_output_is_returned(program: Path) -> None:
    program.write_text('#!/bin/sh\necho "nodes $1"\necho ignored >&2\n')
    assert run_slurm("sinfo", "4") == try_slurm("sinfo", "4") == "nodes 4\n"


def test_the_last_line_of_an_error_is_the_message(program: Path) -> None:
    program.write_text("#!/bin/sh\necho first >&2\necho no such partition >&2\nexit 3\n")
    with pytest.raises(UserError, match=r"^no such partition$"):
        run_slurm("sinfo")
    assert try_slurm("sinfo") is None
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(UserError, match=r"^sinfo failed with status 3$"):
        run_slurm("sinfo")


def test_a_command_that_does_not_respond(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program.write_text("#!/bin/sh\nexec sleep 30\n")
    monkeypatch.setattr(commands, "_TIMEOUT", 0.2)
    with pytest.raises(UserError, match=r"sinfo timed out after 0\.2 s\): try again later$"):
        run_slurm("sinfo")
    assert try_slurm("sinfo") is None


def test_a_command_that_is_not_installed(program: Path) -> None:
    for call in (run_slurm, try_slurm):
        with pytest.raises(UserError, match="sinfo_of_another_site not found"):
            call("sinfo_of_another_site")
