"""Convert the frames of a video to upright sRGB of one size."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageOps

# BT.709 and BT.601 by their numbers in ITU-T H.273, which are the same for matrix
# coefficients, colour primaries and transfer characteristics.
MATRICES = {1: "ITU709", 6: "ITU601"}
UNSPECIFIED = 2  # the code of H.273 for values that the video does not specify


def colour_matrix(video: Any) -> int:
    """Return the matrix of a video's YCbCr colours: 1 for BT.709, 6 for BT.601.

    Source of these numbers: ITU-T H.273.
    """
    tagged = {1: 1, 5: 6, 6: 6}  # 5 is BT.601 with the primaries of PAL
    # Otherwise what players assume for the height of the video.
    return tagged.get(video.colorspace, 1 if video.height >= 720 else 6)


def to_rgb(frame: Any, matrix: int) -> np.ndarray:
    """Return a frame as upright sRGB, (H, W, 3) uint8, with even H and W.

    matrix: the matrix of the video's YCbCr colours, 1 for BT.709 or 6 for BT.601.
    """
    if frame.colorspace == UNSPECIFIED:
        frame.colorspace = matrix
    transposed, mirrored, flipped = orientation(frame)
    rgb = frame.to_ndarray(format="rgb24")
    rgb = rgb.transpose(1, 0, 2) if transposed else rgb
    rgb = rgb[:: -1 if flipped else 1, :: -1 if mirrored else 1]
    # 4:2:0 chroma subsampling requires even sides; a side of one pixel is doubled.
    doubled = [(0, 1 if side == 1 else 0) for side in rgb.shape[:2]]
    rgb = np.pad(rgb, [*doubled, (0, 0)], mode="edge")
    return np.ascontiguousarray(rgb[: len(rgb) // 2 * 2, : rgb.shape[1] // 2 * 2])


def orientation(frame: Any) -> tuple[bool, bool, bool]:
    """Return whether to transpose, mirror and flip a frame to make it upright.

    The steps are done in this order; mirroring exchanges left and right, flipping top
    and bottom. Source: ISO/IEC 14496-12, 8.3.2.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know the kind of another item
        return _TURNS[round(frame.rotation / 90) % 4]
    if matrix is None:
        return _TURNS[0]
    # Rows (a, b, u), (c, d, v): a point (x, y) is shown at (a x + c y, b x + d y). The
    # matrix is rounded to the nearest of the eight combinations of the steps.
    a, b, _, c, d = (int(value) for value in np.frombuffer(matrix, np.int32)[:5])
    if max(abs(b), abs(c)) > max(abs(a), abs(d)):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


# By quarter turns anticlockwise.
_TURNS = [(False, False, False), (True, False, True), (False, True, True), (True, True, False)]


def fit_frame(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a frame scaled to another size, with black bars if its shape differs.

    rgb: (H, W, 3) uint8.
    """
    if rgb.shape[:2] == (height, width):
        return rgb
    return np.array(ImageOps.pad(Image.fromarray(rgb), (width, height)))
