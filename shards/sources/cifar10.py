"""CIFAR-10 as its authors publish it: the binary layout, and the python layout read without running pickles.

https://www.cs.toronto.edu/~kriz/cifar.html: 10 000 records a file; a record is one label byte and 3072 pixel bytes
(32x32 planes R, G, B). The python layout pickles a dict whose b"data" is the same as an array (10000, 3072).
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from shards.errors import UserError

SIDE = 32
PIXELS = 3 * SIDE * SIDE
RECORD = 1 + PIXELS
_NAME = re.compile(r"(data_batch_\d+|test_batch)(\.bin)?")
_LARGEST_PICKLE = 1 << 28
_MOST_TUPLES = 1000  # a batch has a dozen


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
        raise UserError(
            f"{path} has {size} bytes, no multiple of {RECORD}: not CIFAR-10's binary layout, or cut short"
        )
    return size // RECORD


def to_image(data: bytes) -> Image.Image:
    """The picture of 3072 raw bytes (planes R, G, B)."""
    return Image.fromarray(
        np.frombuffer(data, np.uint8).reshape(3, SIDE, SIDE).transpose(1, 2, 0).copy()
    )


@lru_cache(maxsize=8)
def load_python(path: str) -> np.ndarray:
    """The pixels of a batch in the python layout: (images, 3072) uint8; raises `UserError` for any other pickle."""
    if Path(path).stat().st_size > _LARGEST_PICKLE:
        raise UserError(f"{path} is too large for a CIFAR-10 batch")
    data = Path(path).read_bytes()
    try:
        _check_tuples(data)
        batch = _ArraysAlone(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a pickle that is no batch may raise anything
        raise UserError(
            f"{path} is not CIFAR-10's python layout ({error}): nothing of it was run"
        ) from None
    found = batch.get(b"data", batch.get("data")) if isinstance(batch, dict) else None
    pixels = found.pixels if isinstance(found, _Array) else None
    if pixels is None or pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise UserError(
            f"{path} is not CIFAR-10's python layout (no uint8 array of rows of {PIXELS})"
        )
    return pixels


def _check_tuples(data: bytes) -> None:
    """Refuse what may be a deep nest of tuples: as a dict's key, Python's own hash of it ends the process."""
    if (
        sum(opcode.name.startswith("TUPLE") for opcode, _, _ in pickletools.genops(data))
        > _MOST_TUPLES
    ):
        raise pickle.UnpicklingError("it has too many tuples")


class _Named:
    """What a pickle may name: neither a class nor a function of anyone's, so it can be called and no more."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it gives a state to what has none")


class _Dtype:
    """Stands for a numpy dtype. A real one would believe any state, and then read memory that is not the array's."""

    __slots__ = ("name",)

    def __init__(self, name: str | bytes, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """u1, the only type that is used, has no state worth having."""


class _Array:
    """Stands for a numpy array; its pixels are an array of our own making, and only if it is one of bytes."""

    __slots__ = ("pixels",)

    def __init__(self, *_: Any) -> None:
        self.pixels: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran, data = state
        self.pixels = _bytes_array(data, dtype, shape, "F" if fortran else "C")


def _bytes_array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray | None:
    """The uint8 array of exactly these bytes; None for arrays of other types, which a batch may hold but none needs."""
    if not isinstance(dtype, _Dtype) or dtype.name not in ("u1", b"u1"):
        return None
    if not isinstance(shape, tuple) or not all(
        type(extent) is int and extent >= 0 for extent in shape
    ):
        raise pickle.UnpicklingError("an array's shape is none")
    if not isinstance(data, (bytes, bytearray)) or len(data) != math.prod(shape):
        raise pickle.UnpicklingError("an array's bytes do not fill its shape")
    return np.frombuffer(data, np.uint8).reshape(shape, order="F" if order == "F" else "C")


def _array_from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.pixels = _bytes_array(data, dtype, shape, order)
    return array


def _refuse(*_: Any) -> NoReturn:
    raise pickle.UnpicklingError("it calls what arrays are never made with")


def _encode(text: str, codec: str) -> bytes:
    return text.encode("latin1")  # how protocol 2 spells bytes


_ADMITTED = {
    "_reconstruct": _Named(_Array),
    "_frombuffer": _Named(_array_from_buffer),
    "ndarray": _Named(_refuse),  # only ever an argument
    "dtype": _Named(_Dtype),
    "encode": _Named(_encode),
}
_MODULES = re.compile(r"numpy(\._?core\.(multiarray|numeric))?|_codecs")


class _ArraysAlone(pickle.Unpickler):
    """Admits dicts, lists, bytes, numbers and byte arrays; whatever else a pickle names is refused, not imported."""

    def find_class(self, module: str, name: str) -> Any:
        if _MODULES.fullmatch(module) and name in _ADMITTED:
            return _ADMITTED[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
