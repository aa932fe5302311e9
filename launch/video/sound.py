"""Sound and subtitles of a video: copied if MP4 can contain them, else converted."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Protocol

from launch.video.source import Reader
from launch.video.times import RisingTimes

# What common players read from MP4; FFmpeg would also write Vorbis and DTS.
COPIED = ("aac", "mp2", "mp3", "ac3", "eac3", "alac", "opus", "flac")
_LOWEST_MP3 = 16_000  # Hz: MP4 has no identifier for the MP3 of lower sampling rates
_JITTER = 0.05  # seconds: containers round times to ms; larger gaps in sound are kept
_AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000)
_AAC_LAYOUTS = {1: "mono", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}


class Track(Protocol):
    """A track of the output file, made from the packets of one stream of the source."""

    def convert(self, packet: Any) -> list[Any]:
        """Take the source's next packet; return packets to write to the output file."""
        ...

    def finish(self) -> list[Any]:
        """Return the packets that are still to be written when the source has ended."""
        ...


def make_track(stream: Any, result: Any, reader: Reader) -> Track | None:
    """Return the track of the output file for a stream; None if it cannot be kept.

    stream: a stream of the source; result: the output file, an open PyAV container.
    """
    codec = codec_name(stream)
    if stream.type == "subtitle":
        return CopiedTrack(stream, result, reader) if codec == "mov_text" else None
    if stream.type != "audio" or not (stream.codec_context and stream.codec_context.sample_rate):
        return None  # no decoder, or no packet from which to learn its parameters
    if codec in COPIED and (codec != "mp3" or stream.codec_context.sample_rate >= _LOWEST_MP3):
        return CopiedTrack(stream, result, reader)
    return AacTrack(stream, result, reader)


def codec_name(stream: Any) -> str:
    """Return the name of a stream's codec, such as "mp3"."""
    # The name of the decoder may differ: mp3float.
    return stream.codec_context.codec.canonical_name if stream.codec_context else "unknown codec"


class CopiedTrack:
    """Copies the packets of a stream into the output file, with corrected times.

    Packets that MP4 does not accept are left out.
    """

    def __init__(self, stream: Any, result: Any, reader: Reader) -> None:
        self.reader, self.stream = reader, result.add_stream_from_template(stream)
        _describe(self.stream, stream)
        rate = stream.codec_context.sample_rate if stream.type == "audio" else 1000
        self.times, self._rehearsal = RisingTimes(rate), _Rehearsal(stream)

    def convert(self, packet: Any) -> list[Any]:
        """Return the packet, ready to be written; nothing if MP4 does not accept it."""
        if not self._rehearsal.accepts(self.times.apply(packet)):
            self.reader.num_damaged += 1  # its header is damaged
            return []
        packet.stream = self.stream
        return [packet]

    def finish(self) -> list[Any]:
        """Return no packets, because `convert` keeps none back."""
        self._rehearsal.close()
        return []


class _Rehearsal:
    """Writes a stream's packets to a trial MP4 file, to find those that MP4 refuses."""

    def __init__(self, stream: Any) -> None:
        import av

        # In the output file itself, FFmpeg keeps packets back to interleave streams, so
        # an error would not show which packet caused it.
        self._result = av.open(_Nowhere(), "w", "mp4")
        self._stream = self._result.add_stream_from_template(stream)

    def accepts(self, packet: Any) -> bool:
        """Write the next packet to the trial file; return whether that succeeded."""
        import av

        packet.stream = self._stream
        try:
            self._result.mux(packet)
        except av.FFmpegError:
            return False
        return True

    def close(self) -> None:
        """Close the trial file and ignore its errors."""
        import av

        # `accepts` has already reported the packets that cause errors.
        with contextlib.suppress(av.FFmpegError):
            self._result.close()


class _Nowhere(io.RawIOBase):
    """A file that forgets what is written to it."""

    def __init__(self) -> None:
        self._at = self._size = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._at += len(data)
        self._size = max(self._size, self._at)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at


class AacTrack:
    """Decodes an audio stream and encodes it as AAC, at 69 kbit/s per channel."""

    def __init__(self, stream: Any, result: Any, reader: Reader) -> None:
        self.source, self.reader, self.codec = stream, reader, codec_name(stream)
        self.rate = _aac_rate(stream.codec_context.sample_rate)
        self.layout = _AAC_LAYOUTS.get(stream.codec_context.channels, "stereo")
        self.stream = result.add_stream("aac", rate=self.rate, layout=self.layout)
        _describe(self.stream, stream)
        self.times = RisingTimes(self.rate)
        self._end: int | None = None  # of the samples so far, in samples
        self._resampler: Any = None
        self._form: tuple[str, str, int] | None = None  # of the frames it takes

    def convert(self, packet: Any) -> list[Any]:
        """Encode the sound of the source's next packet; return finished AAC packets."""
        return self._encode(self.reader.decode(packet))

    def finish(self) -> list[Any]:
        """Return the remaining AAC packets, when the source has ended."""
        packets = self._encode(self.reader.flush(self.source))
        return packets + self._send([*self._resampled_rest(), None])

    def _encode(self, frames: Sequence[Any]) -> list[Any]:
        parts = []
        for frame in frames:
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            if form != self._form:  # it may change within a stream
                parts += self._resampled_rest()
                self._start_resampler(form)
            parts += self._resampler.resample(frame)
        return self._send(parts)

    def _start_resampler(self, form: tuple[str, str, int]) -> None:
        import av

        self._resampler = av.AudioResampler("fltp", self.layout, self.rate)
        self._form = form

    def _resampled_rest(self) -> list[Any]:
        rest = self._resampler.resample(None) if self._resampler else []
        return [frame for frame in rest if frame is not None]

    def _send(self, parts: Sequence[Any]) -> list[Any]:
        packets = [packet for part in parts for packet in self.stream.encode(self._timed(part))]
        for packet in packets:
            self.times.apply(packet).stream = self.stream
        return packets

    def _timed(self, part: Any) -> Any:
        """Return a frame of samples with its time corrected, to avoid small gaps."""
        if part is not None:
            time = self._end if part.pts is None else round(part.time * self.rate)
            if self._end is None or time is None or abs(time - self._end) > _JITTER * self.rate:
                self._end = time or 0
            part.pts, part.time_base = self._end, Fraction(1, self.rate)
            self._end += part.samples
        return part


def _aac_rate(rate: int) -> int:
    """Return the AAC sampling rate, in Hz, for sound that is sampled at `rate` Hz."""
    return min((each for each in _AAC_RATES if each >= rate), default=_AAC_RATES[0])


def _describe(track: Any, stream: Any) -> None:
    """Copy the language, title and use of a stream to a track."""
    track.disposition = stream.disposition.value  # a number in PyAV 17
    for key in ("language", "title"):
        if key in stream.metadata:
            track.metadata[key] = stream.metadata[key]
