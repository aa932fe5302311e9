"""Colorize videos frame by frame with PyAV, and measure their flicker."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

from colortrain.inference.colorizer import Colorizer
from launch.image_jobs import Job, Outcome
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
    job: Job, networks: Mapping[str, Colorizer], batch_size: int, dropout: bool, outcome: Outcome
) -> None:
    """Colorize one video with every network, and write MP4 files (H.264) with sound.

    Adds to `outcome` a line about each MP4 file, or the reason if the video cannot be
    read.
    """
    import av

    try:
        for (name, network), target in zip(networks.items(), job.targets, strict=True):
            with (
                open_source(job.source) as source,
                open_atomic(target) as stream,
                av.open(stream, "w", "mp4") as result,
            ):
                transcoder = Transcoder(source, result, network, dropout)
                transcoder.run(batch_size)
                description = transcoder.describe()
            outcome.video_lines.append(f"{job.source.name} by {name}: {description}")
    except (av.FFmpegError, UserError) as error:
        outcome.failures.append(f"{job.source}: {_reason(error)}")
    else:
        outcome.num_written += 1


def _reason(error: Exception) -> str:
    """Return the message of an error of FFmpeg, or of a UserError, as one line."""
    if isinstance(error, UserError):
        return str(error)
    return f"FFmpeg cannot convert it: {getattr(error, 'strerror', None) or error}"
