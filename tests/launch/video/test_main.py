"""`colortrain colorize` with videos: results, messages and exit statuses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import colortrain
from launch.colorize import main
from launch.colorize_journal import JOURNAL
from launch.image_jobs import is_video
from launch.video import check_video
from shards.color import rgb_to_lab
from shards.errors import UserError
from tests.launch.video.films import FRAMES, read_video, write_film, write_green, write_video
from tests.support.small_run import small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("video") / "run"
    small_run(folder)
    return folder


def test_a_video_keeps_its_frames_time_stamps_and_sound(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "cat.mp4")
    out = tmp_path / "out"
    assert main(["--run", str(run), "--out", str(out), str(video), "--batch-size", "5"]) == 0
    assert {path.name for path in out.iterdir()} == {"cat.mp4", JOURNAL}
    before, times, sound = read_video(video)
    after, same_times, same_sound = read_video(out / "cat.mp4")
    assert (len(after), same_times) == (FRAMES, times)
    assert same_sound == sound
    assert len(sound) > 10
    network = colortrain.load(run)
    for one, other in zip(before, after, strict=True):
        expected = network.colorize(one, dropout=False).astype(int)
        assert np.abs(expected - other).mean() < 6, "except for the loss of H.264"
        assert np.abs(rgb_to_lab(one)[0] - rgb_to_lab(other)[0]).mean() < 3
    printed = capsys.readouterr().out
    assert "cat.mp4 by run: 12 frames, flicker " in printed
    written = (out / "cat.mp4").stat().st_ino
    assert main(["--run", str(run), "--out", str(out), str(video)]) == 0
    assert "0 of 1 inputs colorized, 1 were done before" in capsys.readouterr().out
    assert (out / "cat.mp4").stat().st_ino == written
    with pytest.raises(UserError, match=r"cat\.mp4 exists, and .* another --dropout"):
        main(["--run", str(run), "--out", str(out), str(video), "--dropout", "on"])


def test_a_video_without_sound(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = write_video(tmp_path / "silent.mp4", sound=None)
    assert main(["--run", str(run), "--out", str(tmp_path / "out"), str(silent)]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(r"silent.mp4 by run: 12 frames, flicker [^;]+\)", line), "no remark"
    assert len(read_video(tmp_path / "out" / "silent.mp4")[0]) == FRAMES


@pytest.mark.parametrize("kind", ["list", "text"])
def test_a_bad_video_does_not_stop_the_others(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    bad, good = tmp_path / "bad.mp4", write_film(tmp_path / "good.avi", frames=3)
    bad.write_text("ffconcat version 1.0\nfile good.avi\n" if kind == "list" else "no video")
    status = main(["--run", str(run), "--out", str(tmp_path / "out"), str(bad), str(good)])
    captured = capsys.readouterr()
    assert status == 1
    assert f"not colorized: {bad}: FFmpeg cannot read it: not a video, cut off" in captured.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"good.mp4", JOURNAL}


@pytest.mark.parametrize("suffix", ["vob", "mts", "M2TS", "wmv", "3gp", "flv", "ts", "ogv", "dv"])
def test_a_video_is_recognized_by_its_suffix(suffix: str) -> None:
    assert is_video(Path(f"film.{suffix}"))


def test_an_unreadable_video_is_reported_and_writes_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    assert (
        main(["--run", str(run), "--out", str(tmp_path / "out"), str(tmp_path / "broken.mp4")]) == 1
    )
    assert f"not colorized: {tmp_path / 'broken.mp4'}: " in capsys.readouterr().err
    assert list(tmp_path.rglob("*.mp4*")) == [tmp_path / "broken.mp4"]


def test_a_video_without_frames_overwrites_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write_green(tmp_path / "head.mkv").read_bytes()
    cluster = whole.index(b"\x1f\x43\xb6\x75")  # its identifier: RFC 9559, 5.1.3
    (tmp_path / "head.mkv").write_bytes(whole[: cluster + 20])
    (tmp_path / "head.mp4").write_bytes(b"good")
    assert (
        main(["--run", str(run), "--out", str(tmp_path), "--force", str(tmp_path / "head.mkv")])
        == 1
    )
    assert "head.mkv: no frame could be decoded: remove the file" in capsys.readouterr().err
    assert (tmp_path / "head.mp4").read_bytes() == b"good"
    assert {path.name for path in tmp_path.iterdir()} == {"head.mkv", "head.mp4", JOURNAL}


def test_videos_need_pyav(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Path) -> None:
    video = write_video(tmp_path / "cat.mp4", sound=None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'colortrain\[video\]'"):
        main(["--run", str(run), "--out", str(tmp_path / "out"), str(video)])
    check_video([])
