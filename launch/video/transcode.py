"""Transcode one video: decode, colorize and encode it, with its sound."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image

from colortrain.inference.colorizer import Colorizer
from colortrain.visualize import recolor
from launch.image_jobs import BATCH_PIXELS
from launch.video.flicker import Flicker
from launch.video.frames import (
    MATRICES,
    UNSPECIFIED,
    colour_matrix,
    fit_frame,
    orientation,
    to_rgb,
)
from launch.video.length import declared_length
from launch.video.remarks import (
    FrameNotes,
    missing_end,
    plural,
    stream_remarks,
    time_remarks,
)
from launch.video.sound import AacTrack, Track, make_track
from launch.video.source import Reader, best_video
from launch.video.times import FrameClock
from shards.color import rgb_to_lab
from shards.errors import UserError
from shards.progress import ProgressLine
from shards.sources.decode import fit_image

_MAX_RATE = 1000  # frames per second: the rates of some files are ticks of their clock


class Transcoder:
    """Decodes one video, colorizes it with one network, and encodes the output file.

    source, result: the video and the output file, as open PyAV containers. Raises
    UserError if the source has no video stream that can be decoded.
    """

    def __init__(self, source: Any, result: Any, network: Colorizer, dropout: bool) -> None:
        self.source, self.result, self.network, self.dropout = source, result, network, dropout
        self.video, self.reader = best_video(source), Reader(source)
        rate = _frame_rate(self.video)
        self.clock = FrameClock(self.video.time_base, rate, source.format.name != "avi")
        # The time base is that of the source, not 1 / its mean rate: with a variable
        # frame rate, some frames would then get equal time stamps.
        self.out = result.add_stream(
            "libx264", rate=rate, time_base=self.clock.time_base, options={"crf": "18"}
        )
        self.matrix = colour_matrix(self.video)
        self._set_colour_tags()
        tracks = {each.index: make_track(each, result, self.reader) for each in source.streams}
        self.tracks: dict[int, Track] = {index: each for index, each in tracks.items() if each}
        self._held: list[Any] = []  # packets of tracks until the first frame is known
        self.source_flicker, self.generated_flicker, self.num_frames = Flicker(), Flicker(), 0
        self.notes = FrameNotes()
        self.size: tuple[int, int] | None = None  # width and height of the result

    def _set_colour_tags(self) -> None:
        """Tag the output with its colour matrix, range, primaries and transfer."""
        # Players guess the colours of a video without these tags.
        tags = (self.video.color_primaries, self.video.color_trc)
        self.out.colorspace, self.out.color_range = self.matrix, 1  # limited range: 16 to 235
        self.out.color_primaries, self.out.color_trc = (
            self.matrix if tag == UNSPECIFIED else tag for tag in tags
        )

    def run(self, batch_size: int) -> None:
        """Transcode the whole video in batches of about `batch_size` frames.

        Raises UserError if no frame could be decoded.
        """
        frames: list[Any] = []
        pixels = self.video.width * self.video.height
        batch_size = max(1, min(batch_size, BATCH_PIXELS // max(1, pixels)))
        with ProgressLine("colorizing", self._expected_frames(), "frames") as progress:
            for packet in self.reader.packets():
                if packet.stream.index in self.tracks:
                    self._mux(self.tracks[packet.stream.index].convert(packet))
                elif packet.stream.index == self.video.index:
                    frames += self.reader.decode(packet)
                if len(frames) >= batch_size:
                    self._write(frames)
                    frames = []
                    progress.advance_to(self.num_frames)
            self._write(frames + self.reader.flush(self.video))
            progress.advance_to(self.num_frames)
        if self.num_frames == 0:
            raise UserError("no frame could be decoded: remove the file from the inputs")
        self._finish()

    def _expected_frames(self) -> int:
        seconds = (self.source.duration or 0) / 1e6
        return max(1, self.video.frames or round(seconds * _frame_rate(self.video)))

    def _mux(self, packets: Sequence[Any]) -> None:
        """Write packets of sound or subtitles to the output file, now or later."""
        if self.num_frames == 0:
            # The file's header comes first and contains the size of the frames.
            self._held += packets
        else:
            self.result.mux(packets)

    def _finish(self) -> None:
        for track in self.tracks.values():
            self._mux(track.finish())
        self.clock.note_end(self.reader.timeline.ends.get(self.video.index, Fraction(0)))
        self.result.mux(self.out.encode(None))

    def _write(self, frames: Sequence[Any]) -> None:
        import av

        times = [self._place(frame) for frame in frames]
        arrays = [self._upright(frame) for frame in frames]
        if not arrays:
            return
        images = [Image.fromarray(rgb) for rgb in arrays]
        self._measure(images, colours := self.network.predict_ab(images, dropout=self.dropout))
        for time, rgb, ab in zip(times, arrays, colours, strict=True):
            recolor(rgb, ab)
            colorized = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            colorized = colorized.reformat(
                format="yuv420p", dst_colorspace=MATRICES[self.matrix], dst_color_range="MPEG"
            )
            colorized.pts, colorized.time_base = time, self.clock.time_base
            self.result.mux(self.out.encode(colorized))
        self.num_frames += len(frames)
        held, self._held = self._held, []
        self._mux(held)

    def _place(self, frame: Any) -> int:
        time = self.clock.place(frame)
        self.notes.add(frame, float(time * self.clock.time_base))
        return time

    def _upright(self, frame: Any) -> np.ndarray:
        """Return a frame as upright sRGB of the first frame's size."""
        rgb = to_rgb(frame, self.matrix)
        if self.size is None:
            self.size = (rgb.shape[1], rgb.shape[0])
            self._start(orientation(frame)[0])
        return fit_frame(rgb, *self.size)

    def _start(self, transposed: bool) -> None:
        """Set the output's size in pixels, and the aspect ratio of its pixels."""
        assert self.size is not None
        self.out.width, self.out.height = self.size
        self.out.pix_fmt = "yuv420p"
        # Pixels are not square in formats such as DV and DVD.
        aspect = self.video.sample_aspect_ratio or Fraction(1)
        self.out.sample_aspect_ratio = 1 / aspect if transposed else aspect
        self.result.start_encoding()

    def _measure(self, images: Sequence[Image.Image], colours: np.ndarray) -> None:
        for image, ab in zip(images, colours, strict=True):
            lab = rgb_to_lab(np.asarray(fit_image(image, ab.shape[-1], "squash")))
            self.source_flicker.add(lab[0], lab[1:])
            self.generated_flicker.add(lab[0], ab)

    def describe(self) -> str:
        """Return one line of text for the user: number of frames, flicker, remarks."""
        flicker = (
            f"flicker {self.generated_flicker.mean:.2f} "
            f"(the video's own colours: {self.source_flicker.mean:.2f})"
        )
        return "; ".join([f"{plural(self.num_frames, 'frame')}, {flicker}", *self._remarks()])

    def _end(self) -> float:
        """Return the time in seconds at which the readable part of the source ends."""
        return float(max([self.clock.end, *self.reader.timeline.ends.values()]))

    def _remarks(self) -> list[str]:
        reader, clock = self.reader, self.clock
        damaged = plural(reader.num_damaged, "damaged packet")
        return [
            *([f"{damaged} skipped or repaired"] if reader.num_damaged else []),
            *self.notes.remarks(),
            *time_remarks(reader.timeline.joins, clock.gaps),
            *stream_remarks(
                self.source,
                self.video,
                [each.codec for each in self.tracks.values() if isinstance(each, AacTrack)],
                {self.video.index, *self.tracks},
            ),
            *missing_end(declared_length(self.source, self.video), self._end()),
        ]


def _frame_rate(video: Any) -> Fraction:
    """Return the mean frame rate of a stream, or 25 if it is not known."""
    rates = [video.guessed_rate, video.average_rate]
    return next((rate for rate in rates if rate and rate <= _MAX_RATE), Fraction(25))
