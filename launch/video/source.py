"""Read the packets and frames of a video file, and skip damaged ones."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from launch.video.times import Timeline
from shards.errors import UserError

# Nothing but the file itself is opened, not the files in an HLS playlist.
_ONE_FILE = {"protocol_whitelist": "none"}
_MAX_ERRORS = 16  # consecutive ones, after which the rest of a file is given up


@contextmanager
def open_source(path: Path) -> Iterator[Any]:
    """Open a video for reading as a PyAV container.

    Raises UserError if it cannot be read or is a list of other files.
    """
    try:
        file = _SafeFile(path)  # FFmpeg takes the name "12:30.mp4" for an address
    except OSError as error:
        raise UserError(error.strerror or str(error)) from None
    with file, _container(file) as container:
        yield container


class _SafeFile(io.FileIO):
    """A file whose `seek` returns an error code instead of raising an exception."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        # A damaged header may make FFmpeg seek to an impossible position.
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return -errno.EINVAL  # which FFmpeg handles as it does with its own files


def _container(file: io.FileIO) -> Any:
    import av

    try:
        return av.open(file, container_options=_ONE_FILE, metadata_errors="replace")
    except av.FFmpegError:
        raise UserError(
            "FFmpeg cannot read it: not a video, cut off before its index, or a list of other files"
        ) from None


def best_video(container: Any) -> Any:
    """Return the video stream to colorize: FFmpeg's choice, but not a cover image.

    Raises UserError if there is none that can be decoded.
    """
    videos = [each for each in container.streams.video if not is_cover(each)]
    if not videos:
        raise UserError("the file has no video stream: remove it from the inputs")
    decodable = [each for each in videos if each.codec_context]
    if not decodable:
        raise UserError("FFmpeg has no decoder for its video: convert it first")
    best = container.streams.best("video")
    return best if best in decodable else decodable[0]


def is_cover(stream: Any) -> bool:
    """Return whether a video stream is a cover image."""
    return stream.type == "video" and bool(stream.disposition & stream.disposition.attached_pic)


class Reader:
    """Reads the packets of an open PyAV container, decodes them, skips damaged ones."""

    def __init__(self, container: Any) -> None:
        self.container = container
        self.streams = list(container.streams)  # more may appear in the middle of a file
        self.num_damaged = 0
        start = Fraction(container.start_time or 0, 1_000_000)
        length = Fraction(container.duration, 1_000_000) if container.duration else None
        self.timeline = Timeline(start, _may_jump(container), length)

    def packets(self) -> Iterator[Any]:
        """Yield the packets of all streams in the order of the file."""
        import av

        errors = 0
        while errors < _MAX_ERRORS:
            try:
                for packet in self.container.demux(self.streams):
                    errors = 0
                    if packet.size:  # AVI has empty packets for repeated frames
                        yield self._noted(packet)
                return
            except av.FFmpegError:
                errors += 1
                self.num_damaged += 1
            except IndexError:  # PyAV's end of a file in which a stream appeared midway
                return

    def _noted(self, packet: Any) -> Any:
        self.num_damaged += packet.is_corrupt
        self.timeline.place(packet)
        return packet

    def decode(self, packet: Any) -> list[Any]:
        """Return the frames of a packet; none if it cannot be decoded."""
        import av

        try:
            return packet.decode()
        except av.FFmpegError:
            self.num_damaged += not packet.is_corrupt  # else it is counted already
            return []

    def flush(self, stream: Any) -> list[Any]:
        """Return the frames that the decoder of a stream still holds."""
        import av

        last = av.Packet()
        last.stream, last.time_base = stream, stream.time_base
        return self.decode(last)


def _may_jump(container: Any) -> bool:
    import av

    return bool(container.format.flags & av.format.Flags.ts_discont.value)
