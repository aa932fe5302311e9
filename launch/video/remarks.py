"""Describe how a colorized video differs from its source, and what was damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from fractions import Fraction
from typing import Any

from launch.video.source import is_cover

_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics by their numbers in H.273
_KINDS = {
    "audio": "unreadable sound track",
    "subtitle": "subtitle track",
    "video": "other video track",
}


class FrameNotes:
    """Counts a video's damaged and interlaced frames, and records frame sizes."""

    def __init__(self) -> None:
        self.num_corrupt = self.num_interlaced = 0
        self.sizes: dict[tuple[int, int], float] = {}  # (width, height) -> first time, s

    def add(self, frame: Any, time: float) -> None:
        """Note the next decoded frame, shown at `time` seconds."""
        self.num_corrupt += frame.is_corrupt
        self.num_interlaced += frame.interlaced_frame
        self.sizes.setdefault((frame.width, frame.height), time)

    def remarks(self) -> list[str]:
        """Return lines of text about damaged frames, size changes and interlacing."""
        remarks = [f"{plural(self.num_corrupt, 'damaged frame')} shown"] if self.num_corrupt else []
        if len(self.sizes) > 1:
            (width, height), time = list(self.sizes.items())[1]
            remarks.append(
                f"its size changes to {width}x{height} at {time:.1f} s: scaled to the first size"
            )
        if self.num_interlaced:
            remarks.append("interlaced: both fields are colorized and written as one frame")
        return remarks


def time_remarks(joins: Sequence[Fraction], gaps: Sequence[tuple[Fraction, Fraction]]) -> list[str]:
    """Return lines of text about jumps of a video's clock and about missing frames.

    joins: times of the jumps in seconds; gaps: start and end, in seconds, of each gap
    without frames.
    """
    remarks = []
    if joins:
        more = f" and {plural(len(joins) - 1, 'more time')}" if joins[1:] else ""
        remarks.append(f"its clock jumps at {float(joins[0]):.1f} s{more}: shown without a pause")
    if gaps:
        more = f" and in {plural(len(gaps) - 1, 'more place')}" if gaps[1:] else ""
        start, end = map(float, gaps[0])
        remarks.append(f"no frames from {start:.1f} s to {end:.1f} s{more}")
    return remarks


def stream_remarks(
    source: Any, video: Any, converted: Sequence[str], kept: Collection[int]
) -> list[str]:
    """Return lines of text about sound conversion, HDR, and tracks that are not kept.

    video: the stream that was colorized; converted: codecs of the sound tracks that
    were not copied; kept: indices of the source's streams that are in the output file.
    """
    remarks = []
    if converted:
        remarks.append(f"sound converted from {' and '.join(dict.fromkeys(converted))} to AAC")
    if video.color_trc in _HDR:
        remarks.append(f"HDR ({_HDR[video.color_trc]}) is colorized as if it were SDR, in 8 bits")
    dropped = Counter(_name(each) for each in source.streams if each.index not in kept)
    if dropped:
        tracks = ", ".join(plural(number, name) for name, number in dropped.items())
        remarks.append(f"not kept: {tracks}")
    return remarks


def _name(stream: Any) -> str:
    if is_cover(stream):
        return "cover image"
    return _KINDS.get(stream.type, "data track")


def missing_end(length: float, end: float) -> list[str]:
    """Return a line of text if more than 1 s at the end of a video is not readable.

    length: the video's length in seconds; end: where its readable part ends, in
    seconds.
    """
    if length - end < 1:
        return []
    return [f"the readable part ends at {end:.1f} s of {length:.1f} s"]


def plural(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 frame" or "2 frames"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
