"""Colorize videos frame by frame with PyAV, and measure their flicker."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from colortrain.inference.colorizer import Colorizer
from launch.image_jobs import Job
from launch.video.source import open_source
from launch.video.transcode import Transcoder
from shards.errors import UserError
from shards.files import open_atomic


def check_video(jobs: Sequence[Job]) -> None:
    """Raise UserError if a video is to be colorized but PyAV is not installed."""
    videos = [job.source for job in jobs if job.is_video]
    if videos and importlib.util.find_spec("av") is None:
        raise UserError(f"{videos[0]}: videos require PyAV: pip install 'colortrain[video]'")


def colorize_video(
    source: Path, target: Path, network: Colorizer, batch_size: int, dropout: bool
) -> str:
    """Colorize one video, write an MP4 file (H.264) with sound, and describe it.

    The result says how many frames were colorized and what was damaged or left out.
    Raises UserError if the video cannot be read or converted.
    """
    import av

    try:
        with (
            open_source(source) as opened,
            open_atomic(target) as stream,
            av.open(stream, "w", "mp4") as result,
        ):
            transcoder = Transcoder(opened, result, network, dropout)
            transcoder.run(batch_size)
            return transcoder.describe()
    except av.FFmpegError as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"FFmpeg cannot convert it: {reason}") from None
