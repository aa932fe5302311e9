"""Videos that tests write, and a network that keeps their colours."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from launch.image_jobs import Outcome
from launch.video import colorize_video
from shards.color import rgb_to_lab
from shards.errors import UserError
from shards.sources.decode import fit_image
from tests.support.small_shard_set import photograph

av: Any = pytest.importorskip("av", reason="videos need colortrain[video]")

FRAMES, RATE = 12, 10
B_FRAMES = {"bf": "2", "x264-params": "b-adapt=0:scenecut=0:keyint=10"}


def write_video(path: Path, sound: str | None = "aac", seconds: int = 1) -> Path:
    """Write a moving crop of a photograph, 1.2 s, with a tone of `seconds` seconds."""
    cat = photograph("chelsea")
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=RATE, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        audio = video.add_stream(sound, rate=44100, layout="mono") if sound else None
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(
                cat[40:160, 60 + 4 * number : 220 + 4 * number], format="rgb24"
            )
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
        if audio:
            wave = (np.sin(np.arange(44100 * seconds) / 10)[None] * 0.3).astype(np.float32)
            tone = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            tone.sample_rate, tone.pts, tone.time_base = 44100, 0, Fraction(1, 44100)
            resampler = av.AudioResampler(format=audio.format, layout="mono", rate=44100)
            for part in resampler.resample(tone):
                video.mux(audio.encode(part))
            video.mux(audio.encode(None))
    return path


def read_video(path: Path) -> tuple[list[np.ndarray], list[float], list[bytes]]:
    """Return frames, their times in seconds, and the audio packets."""
    with av.open(str(path)) as video:
        frames = list(video.decode(video=0))
        images = [frame.to_ndarray(format="rgb24") for frame in frames]
    with av.open(str(path)) as video:
        sound = (
            [bytes(packet) for packet in video.demux(audio=0) if packet.size]
            if video.streams.audio
            else []
        )
    return images, [frame.time for frame in frames], sound


def write_green(
    path: Path,
    times: Sequence[int] = (0, 40),
    size: tuple[int, int] = (64, 48),
    matrix: str = "ITU601",
    levels: str = "MPEG",
    tags: Sequence[int] = (),
    aspect: Fraction = Fraction(1),
) -> Path:
    """Write green frames at these times (ms), with these colour and aspect settings.

    `tags` are colorspace, primaries and transfer by their numbers in H.273; none:
    untagged.
    """
    width, height = size
    green = av.VideoFrame.from_ndarray(
        np.full((height, width, 3), (30, 160, 60), np.uint8), format="rgb24"
    )
    with av.open(str(path), "w") as video:
        stream = video.add_stream(
            "libx264", rate=30, options={"crf": "1"}, time_base=Fraction(1, 1000)
        )
        stream.width, stream.height, stream.color_range = (
            width,
            height,
            2 if levels == "JPEG" else 1,
        )
        stream.sample_aspect_ratio = aspect
        if tags:
            stream.colorspace, stream.color_primaries, stream.color_trc = tags
        for time in times:
            frame = green.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=levels)
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    return path


class IdentityNetwork:
    """Stands for a network: returns the images' own colours."""

    def predict_ab(self, images: Sequence[Image.Image], dropout: bool | None = None) -> np.ndarray:
        return np.stack(
            [rgb_to_lab(np.asarray(fit_image(image, 16, "squash")))[1:] for image in images]
        )


def transcoded(video: Path, target: Path) -> Outcome:
    """Return the outcome for a video that is colorized with its own colours."""
    network: Any = IdentityNetwork()
    try:
        line = colorize_video(video, target, network, 8, False)
    except UserError as error:
        return Outcome(failures=[f"{video}: {error}"])
    return Outcome(num_written=1, video_lines=[f"{video.name} by identity: {line}"])


def rotate(video: Path) -> None:
    """Rotate an MP4 by 90 degrees in its track header (ISO/IEC 14496-12, 8.3.2)."""
    data = video.read_bytes()
    start = data.index(b"tkhd") + 44
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    video.write_bytes(data[:start] + matrix + data[start + len(matrix) :])


def encoder(name: str) -> str:
    """Return the name of an encoder; skip the test if this PyAV does not have it."""
    try:
        av.Codec(name, "w")
    except ValueError:
        pytest.skip(f"this PyAV has no encoder {name}")
    return name


def write_film(
    path: Path,
    codec: str = "mpeg4",
    sound: Sequence[str] = (),
    frames: int = 40,
    size: tuple[int, int] = (32, 32),
    options: dict[str, str] | None = None,
    container: str | None = None,
    sound_rate: int = 44100,
    pixels: str = "yuv420p",
) -> Path:
    """Write grainy frames, each 3 levels lighter than the one before, at 10 per second.

    `sound`: codecs of tracks with a tone from 0.05 s to 0.5 s.
    """
    rate = 25 if codec == "dvvideo" else RATE
    grain = np.random.default_rng(0).normal(0, 12, (frames, size[1], size[0], 1))
    muxer = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov", ".3gp") else {}
    with av.open(str(path), "w", container, container_options=muxer) as film:
        video = film.add_stream(encoder(codec), rate=rate, options=options or {})
        (video.width, video.height) = size
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else pixels
        video.bit_rate = 0 if codec in ("libx264", "ffv1", "dvvideo") else 2_000_000
        tracks = [_add_track(film, name, sound_rate) for name in sound]
        for number in range(frames):
            gray = np.repeat(60 + 3 * number + grain[number], 3, axis=2).round().astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(gray, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            film.mux(video.encode(frame))
        film.mux(video.encode(None))
        for track in tracks:
            _write_tone(film, track, frames / rate)
    return path


def _add_track(film: Any, codec: str, rate: int) -> Any:
    experimental = {"strict": "-2"} if codec in ("vorbis", "dca") else {}
    layout = "stereo" if codec == "vorbis" or film.format.name == "dv" else "mono"
    track = film.add_stream(encoder(codec), rate=rate, layout=layout, options=experimental)
    track.bit_rate = {"libopencore_amrnb": 12_200, "vorbis": 96_000}.get(codec, 32_000)
    return track


def _write_tone(film: Any, track: Any, seconds: float) -> None:
    times = np.arange(round(seconds * track.rate)) / track.rate
    wave = 0.5 * np.sin(2 * np.pi * 440 * times) * (times >= 0.05) * (times < 0.5)
    tone = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
    tone.sample_rate, tone.pts, tone.time_base = track.rate, 0, Fraction(1, track.rate)
    resampler = av.AudioResampler(track.format, track.layout, track.rate, frame_size=1024)
    for part in (*resampler.resample(tone), *resampler.resample(None)):
        if part is not None:
            film.mux(track.encode(part))
    film.mux(track.encode(None))


def start_time(film: Any) -> float:
    """Return the time in seconds that becomes 0 in the result: MPEG starts later."""
    return 0.0 if "mp4" in film.format.name else max(0, film.start_time or 0) / 1e6


def read_levels(path: Path) -> tuple[list[float], list[int]]:
    """Return the times in seconds and the gray levels of all readable frames."""
    times, levels = [], []
    with av.open(str(path)) as film:
        start = start_time(film)
        for packet in film.demux(video=0):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            times += [frame.time - start for frame in frames]
            levels += [round(float(frame.to_ndarray(format="gray").mean())) for frame in frames]
    return times, levels


def tone_start(path: Path, track: int = 0, after: float = 0) -> float:
    """Return when the tone of a sound track begins, or is on `after` some seconds."""
    with av.open(str(path)) as film:
        start = start_time(film)
        resampler = av.AudioResampler("fltp", "mono", None)
        for frame in film.decode(audio=track):
            for part in resampler.resample(frame):
                loud = np.flatnonzero(np.abs(part.to_ndarray()[0]) > 0.1)
                time = float(part.time) - start
                if loud.size and time >= after:
                    return time + float(loud[0]) / part.sample_rate
    raise AssertionError(f"{path} has no tone")


def codecs(path: Path, kind: str = "audio") -> list[str]:
    """Return the codecs of the sound tracks of a film, or of another kind of track."""
    with av.open(str(path)) as film:
        return [
            each.codec_context.codec.canonical_name for each in film.streams if each.type == kind
        ]
