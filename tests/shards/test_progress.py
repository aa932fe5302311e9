"""Tests of progress: lines printed where standard error is not a terminal."""

import pytest

from shards import progress
from shards.progress import ProgressLine


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock whose time is the only item."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_have_count_rate_and_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressLine("packing", total=1000, unit="images", start=200) as line:
        clock[0] += 9
        line.advance_to(300)
        assert capsys.readouterr().err == ""  # at most one line every 10 seconds
        clock[0] += 2
        line.advance_to(420, {"left out": "1"})
        assert capsys.readouterr().err == (
            "packing 420/1,000 images  20.0 images/s  29 s left  left out 1\n"
        )
        line.advance_to(1000)
    assert capsys.readouterr().err.startswith("packing 1,000/1,000 images  72.7 images/s  0 s left")


def test_time_left_is_unknown_without_progress(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressLine("packing", total=5, unit="images"):
        clock[0] += 1
    assert capsys.readouterr().err == "packing 0/5 images  0.0 images/s  time left unknown\n"


def test_hidden_and_failed_progress_prints_nothing(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressLine("packing", total=5, unit="images", shown=False) as line:
        clock[0] += 60
        line.advance_to(5)
    with pytest.raises(ValueError, match="x"), ProgressLine("packing", total=5, unit="images"):
        raise ValueError("x")
    assert capsys.readouterr().err == ""
