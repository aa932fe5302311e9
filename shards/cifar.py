"""CIFAR-10 as its authors publish it: the binary layout, and the python layout read without running pickles.

https://www.cs.toronto.edu/~kriz/cifar.html: 10 000 records a file; a record is one label byte and 3072 pixel bytes
(32x32 planes R, G, B). The python layout pickles a dict whose b"data" is the same as an array (10000, 3072).
"""

from __future__ import annotations

import io
import pickle
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shards.errors import UserError

SIDE = 32
PIXELS = 3 * SIDE * SIDE
RECORD = 1 + PIXELS
_NAME = re.compile(r"(data_batch_\d+|test_batch)(\.bin)?")
_LARGEST_PICKLE = 1 << 28


def is_batch(path: Path) -> bool:
    """Whether a file has the name of a CIFAR-10 batch."""
    return _NAME.fullmatch(path.name) is not None


def find_batches(folder: Path) -> list[Path]:
    """The batch files of a CIFAR-10 folder, or of the one its archive unpacks to inside `folder`; [] if it is none."""
    for place in (folder, folder / "cifar-10-batches-bin", folder / "cifar-10-batches-py"):
        batches = sorted(place.glob("*_batch*"))
        batches = [path for path in batches if is_batch(path) and path.is_file()]
        binary = [path for path in batches if path.suffix == ".bin"]
        if batches:
            return binary or batches  # never both layouts of the same pictures
    return []


def count(path: Path) -> int:
    """How many images a batch file holds; raises `UserError` if it is no whole batch."""
    if path.suffix != ".bin":
        return len(load_python(str(path)))
    size = path.stat().st_size
    if size == 0 or size % RECORD:
        raise UserError(f"{path} has {size} bytes, no multiple of {RECORD}: not CIFAR-10's binary layout, or cut short")
    return size // RECORD


def to_image(data: bytes) -> Image.Image:
    """The picture of 3072 raw bytes (planes R, G, B)."""
    return Image.fromarray(np.frombuffer(data, np.uint8).reshape(3, SIDE, SIDE).transpose(1, 2, 0).copy())


@lru_cache(maxsize=8)
def load_python(path: str) -> np.ndarray:
    """The pixels of a batch in the python layout: (images, 3072) uint8; raises `UserError` for any other pickle."""
    if Path(path).stat().st_size > _LARGEST_PICKLE:
        raise UserError(f"{path} is too large for a CIFAR-10 batch")
    try:
        batch = _ArraysAlone(io.BytesIO(Path(path).read_bytes()), encoding="bytes").load()
        data = batch.get(b"data", batch.get("data"))
    except _FORBIDDEN as error:
        raise UserError(f"{path} is not CIFAR-10's python layout ({error}): nothing of it was run") from None
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != PIXELS:
        raise UserError(f"{path} is not CIFAR-10's python layout (no uint8 array of rows of {PIXELS})")
    return data


_FORBIDDEN = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)  # what a pickle that is no batch may raise


def _make_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    return np.empty(0, np.uint8)  # its __setstate__ follows, with the real shape, type and bytes


def _make_dtype(name: str | bytes, *_: Any) -> np.dtype:
    text = name.decode() if isinstance(name, bytes) else name
    return np.dtype({"u1": "u1", "i8": "i8"}[text], copy=True)


def _array_from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    return np.frombuffer(buffer, dtype).reshape(shape)


def _encode(text: str, codec: str) -> bytes:
    return text.encode("latin1")  # how protocol 2 spells bytes


_ADMITTED = {
    "_reconstruct": _make_array,
    "_frombuffer": _array_from_buffer,
    "ndarray": np.ndarray,
    "dtype": _make_dtype,
    "encode": _encode,
}
_MODULES = re.compile(r"numpy(\._?core\.(multiarray|numeric))?|_codecs")


class _ArraysAlone(pickle.Unpickler):
    """Admits dicts, lists, bytes, numbers and numpy arrays; whatever else a pickle names is refused, not imported."""

    def find_class(self, module: str, name: str) -> Any:
        if _MODULES.fullmatch(module) and name in _ADMITTED:
            return _ADMITTED[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
