"""Correct the times of a video's packets and frames, which must always increase."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

_BACK = Fraction(1, 2)  # seconds: a larger step back starts another part of a joined file
_FORWARD = 10  # seconds: as FFmpeg's -dts_delta_threshold
_REORDER = 60  # seconds: no film shows a frame so much later than it is decoded
_GAP = 1  # seconds without a frame that are reported
_COARSEST = Fraction(1, 10_000)  # seconds: half a frame is always several ticks


class Timeline:
    """Puts the times of all packets of a video on one timeline without jumps.

    start: time in seconds at which the file starts, which becomes 0; may_jump: whether
    the format's clock may jump, as in MPEG; length: length of the file in seconds, if
    known.
    """

    def __init__(self, start: Fraction, may_jump: bool, length: Fraction | None = None) -> None:
        self.may_jump = may_jump
        self._latest = None if length is None else length + _FORWARD
        self.joins: list[Fraction] = []  # times in seconds at which another part starts
        # A start above 0, as in MPEG, is subtracted.
        # (position in the file, what is added to the times from there on)
        self._offsets: list[tuple[int, Fraction]] = [(-1, -max(start, Fraction(0)))]
        self._positions: dict[int, int] = {}  # stream index -> position of its last packet
        self._decoded: dict[int, Fraction] = {}  # stream index -> end by decoding times, s
        self.ends: dict[int, Fraction] = {}  # stream index -> end by presentation times, s

    def place(self, packet: Any) -> None:
        """Replace the times of the file's next packet by its times on the timeline."""
        stream = packet.stream.index
        # A packet without a position begins where the one before it in its stream does.
        position = self._positions.get(stream, -1) if packet.pos is None else packet.pos
        self._positions[stream] = position
        # A parser may return the last packet of a part after the first of the next.
        offset = next(offset for start, offset in reversed(self._offsets) if position >= start)
        if _apart(packet) > _REORDER:  # a damaged time
            packet.pts = packet.dts
        if packet.stream.type in ("video", "audio"):
            offset += self._step(packet, offset, position)
            self._note_end(packet, offset)
        ticks = round(offset / packet.time_base)
        packet.dts = None if packet.dts is None else packet.dts + ticks
        packet.pts = None if packet.pts is None else packet.pts + ticks

    def _step(self, packet: Any, offset: Fraction, position: int) -> Fraction:
        """Return the seconds by which this packet and later ones must be shifted."""
        if packet.dts is None:
            return Fraction(0)
        start = packet.dts * packet.time_base + offset
        end = self._decoded.get(packet.stream.index, start)
        step = Fraction(0)
        # Another part of the file, with its own clock, as in VOB files that are joined.
        if start < end - _BACK or (start > end + _FORWARD and self._may_jump_to(start)):
            step = end - start
            self._offsets.append((position, offset + step))
            self._offsets.sort(key=lambda each: each[0])  # the newest of equals is last
            if not self.joins or abs(end - self.joins[-1]) > _BACK:  # once for all streams
                self.joins.append(end)
        length = (packet.duration or 0) * packet.time_base
        self._decoded[packet.stream.index] = start + step + length
        return step

    def _may_jump_to(self, time: Fraction) -> bool:
        return self.may_jump or (self._latest is not None and time > self._latest)

    def _note_end(self, packet: Any, offset: Fraction) -> None:
        known = packet.dts if packet.pts is None else packet.pts
        if known is not None:
            end = (known + (packet.duration or 0)) * packet.time_base + offset
            self.ends[packet.stream.index] = max(self.ends.get(packet.stream.index, end), end)


def _apart(packet: Any) -> Fraction:
    """Return the seconds between a packet's presentation and its decoding."""
    known = packet.pts is not None and packet.dts is not None
    return abs(packet.pts - packet.dts) * packet.time_base if known else Fraction(0)


class FrameClock:
    """Gives every frame of a video a later time than the frame before it.

    time_base: unit of the source's times, in seconds; rate: frames per second;
    stores_pts: whether the container stores presentation times.
    """

    def __init__(self, time_base: Fraction, rate: Fraction, stores_pts: bool = True) -> None:
        self._ticks = math.ceil(time_base / _COARSEST)  # per tick of the source
        self.time_base = time_base / self._ticks  # at most 0.1 ms
        self.gaps: list[tuple[Fraction, Fraction]] = []  # seconds: from, to
        self.stores_pts = stores_pts  # AVI does not
        self._frame = max(2, round(1 / rate / self.time_base))  # ticks
        self._last: int | None = None
        self._end = 0  # ticks: when the last frame ends
        self._faults = {"pts": 0, "dts": 0}
        self._latest: dict[str, int] = {}  # ticks of the source

    @property
    def end(self) -> Fraction:
        """The time in seconds at which the last frame ends."""
        return self._end * self.time_base

    def note_end(self, end: Fraction) -> None:
        """Record a gap if the video's packets end more than 1 s after its last frame.

        end: time in seconds at which the packets end.
        """
        # The frames in between could not be decoded.
        if self._last is not None and end - self.end > _GAP:
            self.gaps.append((self.end, end))

    def place(self, frame: Any) -> int:
        """Return the time of the next frame in ticks of `time_base`."""
        known = self._choose(frame)
        time = self._end if known is None else known * self._ticks
        if self._last is not None and time <= self._last:
            time = self._last + self._frame // 2
        elif self._last is not None and (time - self._end) * self.time_base > _GAP:
            self.gaps.append((self.end, time * self.time_base))
        self._last = time
        declared = (frame.duration or 0) * self._ticks if self.stores_pts else 0
        self._end = time + (declared or self._frame)
        return time

    def _choose(self, frame: Any) -> int | None:
        """Return a frame's time in ticks of the source, or None if it is not known."""
        # The presentation or the decoding time: the one that has stood still or gone
        # backwards less often, as in FFmpeg (guess_correct_pts in libavcodec/decode.c).
        times = {"pts": frame.pts, "dts": frame.dts}
        for name, time in times.items():
            if time is not None:
                self._faults[name] += time <= self._latest.get(name, time - 1)
                self._latest[name] = time
        if not self.stores_pts and "dts" in self._latest:
            return times["dts"]
        if times["dts"] is None or self._faults["pts"] <= self._faults["dts"]:
            return times["dts"] if times["pts"] is None else times["pts"]
        return times["dts"]


class RisingTimes:
    """Makes the decoding times of one track's packets increase, as MP4 requires.

    rate: how many times per second the track's clock ticks in the output file.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._last: int | None = None  # in ticks of the packets' time base
        self._length = 0

    def apply(self, packet: Any) -> Any:
        """Correct the times of the next packet in place, and return it."""
        tick = max(1, math.ceil(1 / (self.rate * packet.time_base)))
        known = packet.pts if packet.dts is None else packet.dts
        dts = known
        if self._last is not None:
            dts = self._last + self._length if known is None else max(known, self._last + tick)
            self._length = dts - self._last
        dts = dts or 0
        if packet.pts is None or dts != known:
            packet.pts = dts
        packet.dts = self._last = dts
        # Without a duration, the last packet would be missing in the MP4 file.
        self._length = packet.duration or self._length
        packet.duration = self._length
        return packet
