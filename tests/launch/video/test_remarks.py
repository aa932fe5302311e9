"""What is said about films: damage, differences, missing parts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest

from launch.video.remarks import FrameNotes, missing_end, plural, time_remarks
from tests.launch.video.films import transcoded, write_green


def test_numbers_and_nouns() -> None:
    assert [plural(number, "frame") for number in (1, 2, 1234)] == [
        *("1 frame", "2 frames", "1,234 frames")
    ]


def test_frames_of_one_kind_need_no_remark() -> None:
    notes = FrameNotes()
    frame = SimpleNamespace(width=4, height=2, is_corrupt=False, interlaced_frame=False)
    notes.add(frame, 0.0)
    notes.add(frame, 1.0)
    assert notes.remarks() == []
    notes.add(SimpleNamespace(width=2, height=4, is_corrupt=True, interlaced_frame=True), 2.0)
    assert notes.remarks() == [
        "1 damaged frame shown",
        "its size changes to 2x4 at 2.0 s: scaled to the first size",
        "interlaced: both fields are colorized and written as one frame",
    ]


def test_the_first_gap_and_the_number_of_others() -> None:
    gap = (Fraction(1), Fraction(7, 2))
    assert time_remarks([], []) == []
    assert time_remarks([], [gap]) == ["no frames from 1.0 s to 3.5 s"]
    assert time_remarks([Fraction(9)] * 3, [gap] * 3) == [
        "its clock jumps at 9.0 s and 2 more times: shown without a pause",
        "no frames from 1.0 s to 3.5 s and in 2 more places",
    ]


def test_an_end_is_missing_from_a_second_on() -> None:
    assert missing_end(10.0, 9.1) == []
    assert missing_end(0.0, 9.0) == []
    assert missing_end(10.0, 9.0) == ["the readable part ends at 9.0 s of 10.0 s"]


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG"), (1, "")])
def test_hdr_is_reported(tmp_path: Path, transfer: int, name: str) -> None:
    video = write_green(tmp_path / "phone.mkv", tags=(9, 9, transfer))
    line = transcoded(video, tmp_path / "out.mp4").video_lines[0]
    assert (f"; HDR ({name}) is colorized as if it were SDR, in 8 bits" in line) == bool(name)
