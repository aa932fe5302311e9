"""When the GPU stand-in is available, and that each source is compiled once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.gpu_stand_in import build


def test_another_torch_is_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "version", lambda package: "2.4.0+cpu")
    assert build.why_unavailable() == "the GPU stand-in is made for torch 2.13.0, not 2.4.0+cpu"


def test_a_missing_compiler_is_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "version", lambda package: build.TORCH_VERSION)
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert "needs the C++ compiler g++" in str(build.why_unavailable())


def test_each_source_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Path] = []

    def compile_empty(path: Path) -> None:
        compiled.append(path)
        path.touch()

    source = tmp_path / "source.cpp"
    source.write_text("one")
    monkeypatch.setattr(build, "SOURCE", source)
    monkeypatch.setattr(build, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(build, "_compile", compile_empty)
    paths = [build.library(), build.library()]
    source.write_text("two")
    paths.append(build.library())
    assert compiled == [paths[0], paths[2]]
    assert paths[0] == paths[1] != paths[2]
