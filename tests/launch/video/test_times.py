"""Times: joined files, frames whose times do not rise, packets of tracks."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from launch.video.times import FrameClock, RisingTimes, Timeline
from tests.launch.video.films import B_FRAMES, av, read_levels, tone_start, transcoded, write_film

MS = Fraction(1, 1000)


def packet(dts: int | None, pts: int | None = None, pos: int | None = None, stream: int = 0) -> Any:
    """Return what the code reads of a packet of 40 ms, times in ms."""
    kind = SimpleNamespace(index=stream, type="video")
    return SimpleNamespace(dts=dts, pts=pts, pos=pos, duration=40, time_base=MS, stream=kind)


def placed(timeline: Timeline, packets: Sequence[Any]) -> list[int | None]:
    for each in packets:
        timeline.place(each)
    return [each.dts for each in packets]


def test_a_file_that_starts_late_starts_at_0() -> None:
    packets = [packet(1400, 1480), packet(1440, 1520)]
    assert placed(Timeline(Fraction(7, 5), may_jump=True), packets) == [0, 40]
    assert [each.pts for each in packets] == [80, 120]


def test_the_parts_of_a_joined_file_follow_each_other() -> None:
    timeline = Timeline(Fraction(0), may_jump=False)
    assert placed(timeline, [packet(time) for time in (0, 40, 960, 0, 40, 960, 0)]) == [
        *(0, 40, 960, 1000, 1040, 1960, 2000)
    ]
    assert timeline.joins == [Fraction(1), Fraction(2)]


def test_a_packet_belongs_to_the_part_in_which_it_lies() -> None:
    """The parser returns the sound at 100 after the first frame of the next part."""
    sound = packet(960, pos=100, stream=1)
    packets = [packet(960, pos=90), packet(0, pos=200), sound, packet(0, pos=210, stream=1)]
    assert placed(Timeline(Fraction(0), may_jump=True), packets) == [960, 1000, 960, 1000]


@pytest.mark.parametrize(("may_jump", "expected"), [(True, 40), (False, 60_000)])
def test_a_clock_that_jumps_forward(may_jump: bool, expected: int) -> None:
    """MPEG has another clock after a cut; in Matroska it is a pause."""
    timeline = Timeline(Fraction(0), may_jump)
    assert placed(timeline, [packet(0), packet(60_000)]) == [0, expected]


@pytest.mark.parametrize(("length", "expected"), [(5, 40), (None, 60_000), (120, 60_000)])
def test_a_time_after_the_end_of_the_file(length: int | None, expected: int) -> None:
    """A damaged time must not make a film of days."""
    known = None if length is None else Fraction(length)
    timeline = Timeline(Fraction(0), may_jump=False, length=known)
    assert placed(timeline, [packet(0), packet(60_000)]) == [0, expected]


def test_a_presentation_time_far_from_its_decoding_time_is_damaged() -> None:
    packets = [packet(0, 80), packet(40, 90_000), packet(80, 59_000)]
    assert placed(Timeline(Fraction(0), may_jump=True), packets) == [0, 40, 80]
    assert [each.pts for each in packets] == [80, 40, 59_000]


def test_reordered_frames_and_small_errors_are_no_new_part() -> None:
    timeline = Timeline(Fraction(0), may_jump=True)
    times = [packet(0, 80), packet(None, 3000), packet(40, 40), packet(None), packet(20, 1000)]
    assert placed(timeline, times) == [0, None, 40, None, 20]
    assert timeline.joins == []


def frames(*times: tuple[int | None, int | None]) -> list[Any]:
    """Return frames of 40 ms with these presentation and decoding times."""
    return [SimpleNamespace(pts=pts, dts=dts, duration=40) for pts, dts in times]


def clocked(clock: FrameClock, given: Sequence[Any]) -> list[float]:
    return [float(clock.place(frame) * clock.time_base * 1000) for frame in given]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([(0, 0), (40, 40), (117, 80)], [0, 40, 117]),
        ([(0, None), (40, None), (40, None), (80, None)], [0, 40, 60, 80]),
        ([(0, None), (40, None), (0, None), (40, None), (80, None), (160, None)], None),
        ([(0, 0), (120, 40), (40, 80), (80, 120), (240, 160)], [0, 120, 140, 160, 180]),
        ([(None, None), (None, None)], [0, 40]),
        ([(7, 7), (None, None), (None, 90)], [7, 47, 90]),
    ],
    ids=["rising", "repeated", "a step back", "out of order", "none", "some missing"],
)
def test_frame_times_rise(given: list[tuple[int | None, int | None]], expected: Any) -> None:
    times = clocked(FrameClock(MS, Fraction(25)), frames(*given))
    assert (np.diff(times) >= 10).all(), times
    assert max(times) <= 240
    if expected is not None:
        assert times == expected


def test_avi_has_decoding_times_only() -> None:
    given = frames((2, 4), (6, 5), (4, 6), (None, None))
    clock = FrameClock(Fraction(1, 25), Fraction(25), stores_pts=False)
    assert clocked(clock, given) == [160, 200, 240, 280]


def test_a_gap_is_noted() -> None:
    clock = FrameClock(MS, Fraction(25))
    clocked(clock, frames((0, 0), (1039, 1039), (2080, 2080)))
    assert clock.gaps == [(Fraction(1079, 1000), Fraction(2080, 1000))]
    clock.note_end(Fraction(4))
    assert clock.gaps[1:] == [(Fraction(2120, 1000), Fraction(4))]


def test_packets_of_a_track_rise_in_the_clock_of_the_result() -> None:
    times = RisingTimes(rate=250)  # whose ticks are 4 ms
    packets = [packet(0, 0), packet(2, 2), packet(40, 40), packet(40, 40), packet(None)]
    given = [times.apply(each) for each in packets]
    assert [each.dts for each in given] == [0, 4, 40, 44, 84]
    assert [each.pts for each in given] == [0, 4, 40, 44, 84]


def test_packets_of_a_track_get_durations() -> None:
    """Matroska has none, and MP4 would leave out a last packet of no duration."""
    times = RisingTimes(rate=48000)
    packets = [packet(0, 0), packet(30, 30), packet(60, 60), packet(None)]
    for each in packets[1:]:
        each.duration = 0
    assert [times.apply(each).duration for each in packets] == [40, 30, 30, 30]
    assert packets[-1].dts == 90


def test_h264_in_avi_gets_the_times_of_ffmpeg(tmp_path: Path) -> None:
    """FFmpeg's program shows its frames evenly from the delay of the decoder on."""
    source = write_film(tmp_path / "film.avi", "libx264", options=B_FRAMES)
    with av.open(str(source)) as film:
        assert any(np.diff([frame.pts for frame in film.decode(video=0)]) < 0), "out of order"
    outcome = transcoded(source, tmp_path / "out.mp4")
    times, levels = read_levels(tmp_path / "out.mp4")
    assert outcome.failures == []
    np.testing.assert_allclose(np.diff(times), 0.1, atol=1e-4)
    assert levels == sorted(levels)
    assert len(levels) == 40


def change_times(path: Path, change: dict[int, int]) -> None:
    """Replace time stamps of an FLV file, in ms (its specification, E.4.1)."""
    data = bytearray(path.read_bytes())
    at = 13
    while at < len(data):
        size, time = (int.from_bytes(data[at + start : at + start + 3], "big") for start in (1, 4))
        if data[at] == 9:  # video
            data[at + 4 : at + 7] = change.get(time, time).to_bytes(3, "big")
        at += 15 + size
    path.write_bytes(data)


@pytest.mark.parametrize(
    "change", [{500: 400}, {500: 400, 600: 400, 700: 400}, {500: 300}], ids=["one", "three", "back"]
)
def test_repeated_times_are_spread(tmp_path: Path, change: dict[int, int]) -> None:
    source = write_film(tmp_path / "film.flv", "flv", options={"g": "5"})
    change_times(source, change)
    outcome = transcoded(source, tmp_path / "out.mp4")
    assert outcome.failures == []
    times, levels = read_levels(tmp_path / "out.mp4")
    assert len(levels) == 40
    assert levels == sorted(levels)
    assert (np.diff(times) >= 0.04).all()
    assert times[-1] == pytest.approx(read_levels(source)[0][-1], abs=0.001)


def test_a_wild_time_does_not_make_a_film_of_days(tmp_path: Path) -> None:
    source = write_film(tmp_path / "film.flv", "flv", ["libmp3lame"], options={"g": "5"})
    change_times(source, {1025: 0xFFFF00})  # the sound starts 25 ms earlier
    outcome = transcoded(source, tmp_path / "out.mp4")
    assert outcome.failures == []
    times, levels = read_levels(tmp_path / "out.mp4")
    assert (len(levels), levels) == (40, sorted(levels))
    assert times[-1] == pytest.approx(4, abs=0.2)


def test_joined_vobs_are_one_film(tmp_path: Path) -> None:
    first, second = (
        write_film(tmp_path / f"{name}.vob", "mpeg2video", ["ac3"], options={"g": "5"})
        for name in ("first", "second")
    )
    joined = tmp_path / "joined.vob"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    outcome = transcoded(joined, result := tmp_path / "out.mp4")
    assert outcome.failures == []
    assert "its clock jumps at 3.9 s: shown without a pause" in outcome.video_lines[0]
    times, levels = read_levels(result)
    assert len(levels) == 80
    np.testing.assert_allclose(np.diff(times), 0.1, atol=0.06)
    assert times[-1] == pytest.approx(7.9, abs=0.1)
    assert tone_start(result, after=2) - tone_start(result) == pytest.approx(4, abs=0.04)
