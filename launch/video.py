"""Colorize videos frame by frame with PyAV, and measure their flicker."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image

from colortrain.inference.colorizer import Colorizer
from colortrain.visualize import recolor
from launch.image_jobs import Job, Outcome
from shards.color import rgb_to_lab
from shards.errors import UserError
from shards.files import open_atomic
from shards.progress import ProgressLine
from shards.sources.decode import fit_image

_AUDIO_CODECS = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")  # those MP4 can contain
# BT.709 and BT.601 by their numbers in ITU-T H.273, which are the same for matrix
# coefficients, colour primaries and transfer characteristics.
_MATRICES = {1: "ITU709", 6: "ITU601"}
_UNSPECIFIED = 2  # the code of H.273 for values that the video does not specify
STILL = 1.0  # pixels whose L changes by less between two frames count as still


class Flicker:
    """The flicker of a video: how much the colours of still pixels change.

    It is the mean distance of ab between consecutive frames, in CIELAB units, over the
    pixels whose L changes by less than `STILL`. The frames have the input size of the
    network.
    """

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0
        self._previous: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, L: np.ndarray, ab: np.ndarray) -> None:
        """Add the next frame: L (h, w) in [0, 100] and ab (2, h, w) in CIELAB units."""
        if self._previous is not None:
            still = np.abs(L - self._previous[0]) < STILL
            distance = np.sqrt(np.square(ab - self._previous[1]).sum(0))
            self.total += float(distance[still].sum())
            self.count += int(still.sum())
        self._previous = (L, ab)

    @property
    def mean(self) -> float:
        """The mean distance in CIELAB units; NaN if no pixel was still."""
        return self.total / self.count if self.count else float("nan")


def check_video(jobs: Sequence[Job]) -> None:
    """Raise UserError if there is a video among the jobs but PyAV is not installed."""
    videos = [job.source for job in jobs if job.is_video]
    if videos and importlib.util.find_spec("av") is None:
        raise UserError(f"{videos[0]}: videos require PyAV: pip install 'colortrain[video]'")


def colorize_video(
    job: Job, networks: Mapping[str, Colorizer], batch_size: int, dropout: bool, outcome: Outcome
) -> None:
    """Colorize one video with every network, and write MP4 files (H.264) with sound.

    The sound is that of the video. Adds to `outcome` either one line of text per
    network (`video_lines`) or, if the video cannot be read, one line with the reason
    (`failures`).
    """
    import av

    try:
        for (name, network), target in zip(networks.items(), job.targets, strict=True):
            with (
                av.open(str(job.source)) as source,
                open_atomic(target) as stream,
                av.open(stream, "w", "mp4") as result,
            ):
                transcoder = Transcoder(source, result, network, dropout)
                transcoder.run(batch_size)
                description = transcoder.describe()
            outcome.video_lines.append(f"{job.source.name} by {name}: {description}")
    except (av.FFmpegError, UserError) as error:
        outcome.failures.append(f"{job.source}: {str(error).splitlines()[0]}")
    else:
        outcome.num_written += 1


class Transcoder:
    """Decodes one video, colorizes it with one network, and encodes the result.

    Frames are processed in batches. `source` and `result` are open PyAV containers. Of
    the source's audio streams, the first that MP4 can contain is copied. Raises
    UserError if the source has no video stream.
    """

    def __init__(self, source: Any, result: Any, network: Colorizer, dropout: bool) -> None:
        if not source.streams.video:
            raise UserError("the file has no video stream: remove it from the inputs")
        self.source, self.result, self.network, self.dropout = source, result, network, dropout
        self.video = source.streams.video[0]
        # The time base is that of the source, not 1 / its mean rate: with a variable
        # frame rate, some frames would then get equal time stamps.
        rate, time_base = self.video.average_rate or 25, self.video.time_base
        options = {"crf": "18"}
        self.out = result.add_stream("libx264", rate=rate, time_base=time_base, options=options)
        self.matrix = _colour_matrix(self.video)
        self._set_colour_tags()
        audio = [s for s in source.streams.audio if s.codec_context.name in _AUDIO_CODECS][:1]
        self.audio = {each.index: result.add_stream_from_template(each) for each in audio}
        self.source_flicker, self.generated_flicker, self.num_frames = Flicker(), Flicker(), 0
        self.end = 0.0  # time in seconds at which the readable packets end

    def _set_colour_tags(self) -> None:
        """Tag the output with its colour matrix, range, primaries and transfer.

        Players guess the colours of a video without these tags. The colour primaries
        and the transfer characteristics are those of the source.
        """
        tags = (self.video.color_primaries, self.video.color_trc)
        self.out.colorspace, self.out.color_range = self.matrix, 1  # limited range: 16 to 235
        self.out.color_primaries, self.out.color_trc = (
            self.matrix if tag == _UNSPECIFIED else tag for tag in tags
        )

    def run(self, batch_size: int) -> None:
        """Transcode the whole video in batches of about `batch_size` frames.

        Raises UserError if no frame could be decoded.
        """
        frames: list[Any] = []
        audio_packets: list[Any] = []
        streams = [self.video, *(self.source.streams[index] for index in self.audio)]
        with ProgressLine("colorizing", max(1, self.video.frames), "frames") as progress:
            for packet in self.source.demux(*streams):
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    self.end = max(self.end, end)
                if packet.stream.index in self.audio:
                    # Kept until the encoder has received a frame, because the first
                    # muxed packet opens the encoder.
                    audio_packets.append(packet)
                    continue
                frames += packet.decode()  # the last packet is empty and flushes the decoder
                if len(frames) >= batch_size or packet.size == 0:
                    self._write(frames)
                    self._copy(audio_packets)
                    frames, audio_packets = [], []
                    progress.advance_to(self.num_frames)
        if self.num_frames == 0:
            raise UserError("no frame could be decoded: remove the file from the inputs")
        self._copy(audio_packets)
        self.result.mux(self.out.encode(None))

    def _copy(self, audio_packets: Sequence[Any]) -> None:
        for packet in audio_packets:
            if packet.dts is not None:
                packet.stream = self.audio[packet.stream.index]
                self.result.mux(packet)

    def _write(self, frames: Sequence[Any]) -> None:
        import av

        arrays = [_to_rgb(frame, self.matrix) for frame in frames]
        if not arrays:
            return
        images = [Image.fromarray(rgb) for rgb in arrays]
        if self.num_frames == 0:
            self._set_shape(frames[0], *images[0].size)
        self._measure(images, colours := self.network.predict_ab(images, dropout=self.dropout))
        for frame, rgb, ab in zip(frames, arrays, colours, strict=True):
            recolor(rgb, ab)
            colorized = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            colorized = colorized.reformat(
                format="yuv420p", dst_colorspace=_MATRICES[self.matrix], dst_color_range="MPEG"
            )
            colorized.pts, colorized.time_base = frame.pts, frame.time_base
            self.result.mux(self.out.encode(colorized))
        self.num_frames += len(frames)

    def _set_shape(self, frame: Any, width: int, height: int) -> None:
        """Set the output's size in pixels, and the aspect ratio of its pixels.

        The source's pixels are not square in formats such as DV and DVD.
        """
        self.out.width, self.out.height, self.out.pix_fmt = width, height, "yuv420p"
        aspect = self.video.sample_aspect_ratio or Fraction(1)
        self.out.sample_aspect_ratio = 1 / aspect if _quarter_turns(frame) % 2 else aspect

    def _measure(self, images: Sequence[Image.Image], colours: np.ndarray) -> None:
        for image, ab in zip(images, colours, strict=True):
            lab = rgb_to_lab(np.asarray(fit_image(image, ab.shape[-1], "squash")))
            self.source_flicker.add(lab[0], lab[1:])
            self.generated_flicker.add(lab[0], ab)

    def describe(self) -> str:
        """Return one line on the result: number of frames, flicker, missing parts."""
        no_audio = ""
        if self.source.streams.audio and not self.audio:
            no_audio = ", without its sound, which MP4 cannot contain"
        flicker = (
            f"flicker {self.generated_flicker.mean:.2f} "
            f"(the video's own colours: {self.source_flicker.mean:.2f})"
        )
        return f"{self.num_frames} frames, {flicker}{no_audio}{self._truncation()}"

    def _truncation(self) -> str:
        """Return a remark if the end of the video could not be read, otherwise "".

        A missing part of less than 1 s is ignored.
        """
        duration = (self.source.duration or 0) / 1e6
        # MPEG streams do not contain a duration; FFmpeg estimates it from the bit rate.
        estimated = self.source.format.name.startswith("mpeg")
        # Otherwise the duration may be that of a stream that was not read.
        all_read = len(self.source.streams) == 1 + len(self.audio)
        if estimated or not all_read or duration - self.end < 1:
            return ""
        return f"; the readable part ends at {self.end:.1f} s of {duration:.1f} s"


def _colour_matrix(video: Any) -> int:
    """Return the matrix of a video's YCbCr colours: 1 for BT.709, 6 for BT.601.

    These are codes of ITU-T H.273. If the video does not specify its matrix, the one
    that players assume for its height is returned.
    """
    tagged = {1: 1, 5: 6, 6: 6}  # 5 is BT.601 with the primaries of PAL
    return tagged.get(video.colorspace, 1 if video.height >= 720 else 6)


def _to_rgb(frame: Any, matrix: int) -> np.ndarray:
    """Return a frame as (H, W, 3) uint8 sRGB, rotated as its metadata says.

    H and W are cropped to even numbers, which 4:2:0 chroma subsampling requires.
    `matrix` is the result of `_colour_matrix`.
    """
    if frame.colorspace == _UNSPECIFIED:
        frame.colorspace = matrix
    rgb = np.rot90(frame.to_ndarray(format="rgb24"), _quarter_turns(frame))
    return np.ascontiguousarray(rgb[: len(rgb) // 2 * 2, : rgb.shape[1] // 2 * 2])


def _quarter_turns(frame: Any) -> int:
    """Return by how many quarter turns anticlockwise a frame must be rotated."""
    return round(frame.rotation / 90)
