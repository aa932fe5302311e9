"""Sound tracks and subtitles: copied byte for byte, or converted to AAC."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from launch.video.sound import COPIED
from tests.launch.video.films import (
    av,
    codecs,
    read_levels,
    tone_start,
    transcoded,
    write_film,
)

ENCODERS = {"mp3": "libmp3lame", "opus": "libopus"}


def sound_bytes(path: Path) -> list[bytes]:
    with av.open(str(path)) as film:
        return [bytes(packet) for packet in film.demux(audio=0) if packet.size]


@pytest.mark.parametrize("codec", COPIED)
def test_each_codec_of_the_list_is_copied(tmp_path: Path, codec: str) -> None:
    source = write_film(tmp_path / "film.mkv", sound=[ENCODERS.get(codec, codec)], sound_rate=48000)
    assert codecs(source) == [codec]
    outcome = transcoded(source, result := tmp_path / "out.mp4")
    assert outcome.failures == []
    assert "sound" not in outcome.video_lines[0]
    assert sound_bytes(result) == sound_bytes(source)
    assert len(sound_bytes(source)) > 10


CONVERTED = [
    ("mkv", "pcm_s16le", 44100),
    ("mkv", "pcm_f32le", 48000),
    ("avi", "pcm_mulaw", 8000),
    ("avi", "adpcm_ms", 22050),
    ("mkv", "vorbis", 44100),
    ("wmv", "wmav2", 44100),
    ("mkv", "wavpack", 96000),
    ("mkv", "libmp3lame", 8000),
]


@pytest.mark.parametrize(("suffix", "codec", "rate"), CONVERTED)
def test_other_codecs_are_converted(tmp_path: Path, suffix: str, codec: str, rate: int) -> None:
    """MP3 of less than 16 kHz too, which MP4 cannot contain."""
    source = write_film(tmp_path / f"film.{suffix}", sound=[codec], sound_rate=rate)
    outcome = transcoded(source, result := tmp_path / "out.mp4")
    name = codecs(source)[0]
    assert f"; sound converted from {name} to AAC" in outcome.video_lines[0]
    assert codecs(result) == ["aac"]
    assert tone_start(result) == pytest.approx(tone_start(source), abs=0.002)
    with av.open(str(source)) as before, av.open(str(result)) as after:
        seconds = [
            sum(frame.samples / frame.sample_rate for frame in opened.decode(audio=0))
            for opened in (before, after)
        ]
    assert seconds[1] == pytest.approx(seconds[0], abs=0.15)


@pytest.mark.parametrize("layout", ["stereo", "5.1", "7.1", "4 channels"])
def test_channels_are_kept_where_aac_has_them(tmp_path: Path, layout: str) -> None:
    path, rate = tmp_path / "film.mkv", 8000
    layout = "quad" if layout == "4 channels" else layout
    with av.open(str(path), "w") as film:
        video = film.add_stream("mpeg4", rate=10)
        video.width = video.height = 32
        sound = film.add_stream("pcm_s16le", rate=rate, layout=layout)
        frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 99, np.uint8), format="rgb24")
        film.mux([*video.encode(frame), *video.encode(None)])
        channels = sound.codec_context.channels
        silence = np.zeros((1, rate * channels), np.int16)
        part = av.AudioFrame.from_ndarray(silence, format="s16", layout=layout)
        part.sample_rate, part.pts, part.time_base = rate, 0, Fraction(1, rate)
        film.mux([*sound.encode(part), *sound.encode(None)])
    assert transcoded(path, tmp_path / "out.mp4").failures == []
    with av.open(str(tmp_path / "out.mp4")) as film:
        kept = film.streams.audio[0].codec_context.channels
    assert kept == {8: 2}.get(channels, channels)


def test_a_packet_that_mp4_does_not_accept_is_left_out(tmp_path: Path) -> None:
    """The header of a frame of E-AC-3 with the identifier of another bit stream."""
    source = write_film(tmp_path / "film.mkv", sound=["eac3"], sound_rate=48000)
    packets = sound_bytes(source)
    damaged = packets[8][:5] + b"\xff" + packets[8][6:]
    data = source.read_bytes()
    assert data.count(packets[8]) == 1, "in the tone, where no two packets are equal"
    source.write_bytes(data.replace(packets[8], damaged))
    outcome = transcoded(source, result := tmp_path / "out.mp4")
    assert outcome.failures == []
    assert "; 1 damaged packet skipped or repaired" in outcome.video_lines[0]
    assert sound_bytes(result) == packets[:8] + packets[9:]


def test_a_rate_that_changes_midway(tmp_path: Path) -> None:
    """Such as in joined files: the result has the rate of the first part."""
    parts = [
        write_film(tmp_path / f"{rate}.vob", "mpeg2video", ["mp2"], 10, sound_rate=rate)
        for rate in (48000, 44100)
    ]
    joined = tmp_path / "joined.vob"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    outcome = transcoded(joined, result := tmp_path / "out.mp4")
    assert outcome.failures == []
    assert len(read_levels(result)[1]) == 20


def test_all_tracks_are_kept_with_their_languages(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mkv", sound=["aac", "pcm_s16le", "libmp3lame"])
    tagged = tmp_path / "tagged.mkv"
    with av.open(str(path)) as source, av.open(str(tagged), "w") as film:
        streams = {each.index: film.add_stream_from_template(each) for each in source.streams}
        for number, language in ((1, "ger"), (2, "fre"), (3, "ita")):
            streams[number].metadata["language"] = language
        for packet in source.demux():
            if packet.dts is not None or packet.pts is not None:
                packet.stream = streams[packet.stream.index]
                film.mux(packet)
    outcome = transcoded(tagged, result := tmp_path / "out.mp4")
    assert "; sound converted from pcm_s16le to AAC" in outcome.video_lines[0]
    assert codecs(result) == ["aac", "aac", "mp3"]
    with av.open(str(result)) as film:
        assert [each.language for each in film.streams.audio] == ["ger", "fre", "ita"]
    assert [tone_start(result, track) for track in range(3)] == pytest.approx([0.05] * 3, abs=0.03)


def write_subtitles(path: Path, codec: str, text: bytes) -> Path:
    """Write a film of 2 s with a subtitle from 0.5 s to 1.3 s."""
    with av.open(str(path), "w") as film:
        video = film.add_stream("mpeg4", rate=10)
        video.width = video.height = 32
        titles = film.add_mux_stream(codec, time_base=Fraction(1, 1000))
        for number in range(20):
            gray = np.full((32, 32, 3), 60 + number, np.uint8)
            frame = av.VideoFrame.from_ndarray(gray, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            film.mux(video.encode(frame))
        packet = av.Packet(text)
        packet.stream, packet.time_base = titles, Fraction(1, 1000)
        packet.pts, packet.dts, packet.duration = 500, 500, 800
        film.mux(packet)
        film.mux(video.encode(None))
    return path


def test_subtitles_of_mp4_are_copied(tmp_path: Path) -> None:
    source = write_subtitles(tmp_path / "film.mp4", "mov_text", b"\x00\x05hello")
    outcome = transcoded(source, result := tmp_path / "out.mp4")
    assert "not kept" not in outcome.video_lines[0]
    with av.open(str(result)) as film:
        title = next(each for each in film.demux(subtitles=0) if b"hello" in bytes(each))
    assert (title.pts * title.time_base, title.duration * title.time_base) == (0.5, Fraction(4, 5))
    assert bytes(title) == b"\x00\x05hello"


def test_other_subtitles_are_reported(tmp_path: Path) -> None:
    source = write_subtitles(tmp_path / "film.mkv", "subrip", b"hello")
    outcome = transcoded(source, result := tmp_path / "out.mp4")
    assert outcome.video_lines[0].endswith("; not kept: 1 subtitle track")
    assert codecs(result, "subtitle") == []
