"""Films, frame by frame through PyAV, with their sound; and how much the colours flicker where nothing moves."""

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

_SOUNDS = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")  # that MP4 holds as they are
_MATRICES = {
    1: "ITU709",
    6: "ITU601",
}  # BT.709 and BT.601 by H.273's numbers: of matrix, primaries and transfer alike
_UNSAID = 2
STILL = 1.0  # L: a pixel whose lightness changes less between two frames is taken to be one where nothing moved


class Flicker:
    """How far colours go from a frame to the next where nothing moves: the mean distance of ab, in CIELAB units.

    Frames are looked at squashed to `size` pixels; a pixel counts if its L changes by less than `STILL`.
    """

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0
        self._before: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, L: np.ndarray, ab: np.ndarray) -> None:
        """The next frame: L (h, w) in [0, 100] and ab (2, h, w)."""
        if self._before is not None:
            still = np.abs(L - self._before[0]) < STILL
            distance = np.sqrt(np.square(ab - self._before[1]).sum(0))
            self.total += float(distance[still].sum())
            self.count += int(still.sum())
        self._before = (L, ab)

    @property
    def mean(self) -> float:
        """The measure; NaN where no pixel stood still."""
        return self.total / self.count if self.count else float("nan")


def check_video(jobs: Sequence[Job]) -> None:
    """Raise `UserError` if there are films and no PyAV."""
    films = [job.source for job in jobs if job.is_film]
    if films and importlib.util.find_spec("av") is None:
        raise UserError(f"{films[0]}: films need PyAV: pip install 'colortrain[video]'")


def colorize_film(
    job: Job, networks: Mapping[str, Colorizer], batch_size: int, dropout: bool, outcome: Outcome
) -> None:
    """Colour one film by every network into MP4 (H.264), with its sound; says how much the colours flicker."""
    import av

    try:
        for (name, network), target in zip(networks.items(), job.targets, strict=True):
            with (
                av.open(str(job.source)) as source,
                open_atomic(target) as stream,
                av.open(stream, "w", "mp4") as result,
            ):
                recoding = Recoding(source, result, network, dropout)
                recoding.run(batch_size)
                said = recoding.said()
            outcome.lines.append(f"{job.source.name} by {name}: {said}")
    except (av.FFmpegError, UserError) as error:
        outcome.failures.append(f"{job.source}: {str(error).splitlines()[0]}")
    else:
        outcome.num_written += 1


class Recoding:
    """One film on its way through one network: decoded, coloured and encoded in batches; its sound copied."""

    def __init__(self, source: Any, result: Any, network: Colorizer, dropout: bool) -> None:
        if not source.streams.video:
            raise UserError("there are no pictures in it")
        self.source, self.result, self.network, self.dropout = source, result, network, dropout
        self.pictures = source.streams.video[0]
        # In the film's own ticks: in ticks of its mean rate, pictures at a rate that varies would fall on one another.
        rate, tick = self.pictures.average_rate or 25, self.pictures.time_base
        self.out = result.add_stream("libx264", rate=rate, time_base=tick, options={"crf": "18"})
        self.standard = _standard(self.pictures)
        self._tag()
        sounds = [each for each in source.streams.audio if each.codec_context.name in _SOUNDS][:1]
        self.sounds = {each.index: result.add_stream_from_template(each) for each in sounds}
        self.own, self.made, self.num_frames = Flicker(), Flicker(), 0
        self.end = 0.0  # of what could be read, in seconds

    def _tag(self) -> None:
        """Say how colours are coded, for players guess otherwise: primaries and transfer as they are in the film."""
        said = (self.pictures.color_primaries, self.pictures.color_trc)
        self.out.colorspace, self.out.color_range = self.standard, 1  # black is 16, white 235
        self.out.color_primaries, self.out.color_trc = (
            self.standard if tag == _UNSAID else tag for tag in said
        )

    def run(self, batch_size: int) -> None:
        """From the first packet to the last."""
        waiting: list[Any] = []
        sound: list[Any] = []
        streams = [self.pictures, *(self.source.streams[index] for index in self.sounds)]
        with ProgressLine("colouring", max(1, self.pictures.frames), "frames") as progress:
            for packet in self.source.demux(*streams):
                if packet.pts is not None:
                    self.end = max(
                        self.end, float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    )
                if packet.stream.index in self.sounds:
                    sound.append(packet)  # held until the encoder has seen a frame: muxing opens it
                    continue
                waiting += (
                    packet.decode()
                )  # the last one is empty, and gives the frames still held back
                if len(waiting) >= batch_size or packet.size == 0:
                    self._write(waiting)
                    self._copy(sound)
                    waiting, sound = [], []
                    progress.advance_to(self.num_frames)
        if self.num_frames == 0:
            raise UserError("no picture in it could be read")
        self._copy(sound)
        self.result.mux(self.out.encode(None))

    def _copy(self, sound: Sequence[Any]) -> None:
        for packet in sound:
            if packet.dts is not None:
                packet.stream = self.sounds[packet.stream.index]
                self.result.mux(packet)

    def _write(self, frames: Sequence[Any]) -> None:
        import av

        pictures = [_upright(frame, self.standard) for frame in frames]
        if not pictures:
            return
        images = [Image.fromarray(rgb) for rgb in pictures]
        if self.num_frames == 0:
            self._shape(frames[0], *images[0].size)
        self._measure(images, colours := self.network.predict_ab(images, dropout=self.dropout))
        for frame, rgb, ab in zip(frames, pictures, colours, strict=True):
            recolor(rgb, ab)
            coloured = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            coloured = coloured.reformat(
                format="yuv420p", dst_colorspace=_MATRICES[self.standard], dst_color_range="MPEG"
            )
            coloured.pts, coloured.time_base = frame.pts, frame.time_base
            self.result.mux(self.out.encode(coloured))
        self.num_frames += len(frames)

    def _shape(self, frame: Any, width: int, height: int) -> None:
        """Say how large pictures are, and how wide their pixels: those of DV and DVD are not square."""
        self.out.width, self.out.height, self.out.pix_fmt = width, height, "yuv420p"
        wide = self.pictures.sample_aspect_ratio or Fraction(1)
        self.out.sample_aspect_ratio = 1 / wide if _quarters(frame) % 2 else wide

    def _measure(self, images: Sequence[Image.Image], colours: np.ndarray) -> None:
        for image, ab in zip(images, colours, strict=True):
            lab = rgb_to_lab(np.asarray(fit_image(image, ab.shape[-1], "squash")))
            self.own.add(lab[0], lab[1:])
            self.made.add(lab[0], ab)

    def said(self) -> str:
        """One line about what came of it."""
        silent = (
            ""
            if self.sounds or not self.source.streams.audio
            else ", without its sound, which MP4 cannot hold"
        )
        figures = f"flicker {self.made.mean:.2f} (the film's own colours: {self.own.mean:.2f})"
        return f"{self.num_frames} frames, {figures}{silent}{self._cut()}"

    def _cut(self) -> str:
        """What to say where the film ends more than a second before its container says: not all of it is there."""
        length = (self.source.duration or 0) / 1e6
        guessed = self.source.format.name.startswith(
            "mpeg"
        )  # from the rate of bits: nothing in it tells
        all_read = len(self.source.streams) == 1 + len(
            self.sounds
        )  # else it may be the length of what is left out
        if guessed or not all_read or length - self.end < 1:
            return ""
        return f"; what could be read ends at {self.end:.1f} s of {length:.1f} s"


def _standard(pictures: Any) -> int:
    """What turns a film's colours into RGB, BT.709 or BT.601: as it says, or else what players take for its size."""
    said = {1: 1, 5: 6, 6: 6}  # 5 is BT.601 with the primaries of PAL
    return said.get(pictures.colorspace, 1 if pictures.height >= 720 else 6)


def _upright(frame: Any, standard: int) -> np.ndarray:
    """uint8 (H, W, 3), turned as the film says, both sides even, as H.264's colours need."""
    if frame.colorspace == _UNSAID:
        frame.colorspace = standard
    rgb = np.rot90(frame.to_ndarray(format="rgb24"), _quarters(frame))
    return np.ascontiguousarray(rgb[: len(rgb) // 2 * 2, : rgb.shape[1] // 2 * 2])


def _quarters(frame: Any) -> int:
    """How often a film wants to be turned by 90 degrees, anticlockwise."""
    return round(frame.rotation / 90)
