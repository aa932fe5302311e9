"""Read how long a video is by its own header, to notice when its end is missing."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

_HEADER = 1 << 16  # bytes that contain an ASF header
# The GUID of the File Properties Object of ASF, in the file's byte order.
_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def declared_length(source: Any, video: Any) -> float:
    """Return the length in seconds that a container declares, 0 if it declares none."""
    name = source.format.name
    if name.startswith(("mpeg", "dv", "ogg")):  # FFmpeg estimates it from size or end
        return 0.0
    if name == "avi":  # FFmpeg shortens the duration of a truncated file
        return float(video.frames * video.time_base)
    if name.startswith("asf"):  # FFmpeg conceals it if the file's size is not as declared
        return asf_length(Path(source.name))
    return (source.duration or 0) / 1e6


def asf_length(path: Path) -> float:
    """Return the length in seconds in the header of an ASF file, 0 if it has none.

    Source: Advanced Systems Format specification, 3.2.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER)
    start = header.find(_FILE_PROPERTIES)
    if not 0 <= start <= len(header) - 88:
        return 0.0
    play, _, preroll = struct.unpack_from("<QQQ", header, start + 64)
    # Play duration in 100 ns, preroll in ms.
    return max(0.0, play / 1e7 - preroll / 1e3)
