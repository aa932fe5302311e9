"""Read CIFAR-10 in its binary layout and its Python layout, without executing code.

https://www.cs.toronto.edu/~kriz/cifar.html

binary layout   per image a label byte and 3072 pixel bytes (planes R, G, B of 32 x 32)
Python layout   a pickled dict whose b"data" has the same pixels: (10000, 3072) uint8
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
_MAX_PICKLE_BYTES = 1 << 28
_MAX_TUPLES = 1000  # a batch has a dozen


def is_batch(path: Path) -> bool:
    """Return whether a file is named like a CIFAR-10 batch, e.g. `data_batch_1.bin`."""
    return _NAME.fullmatch(path.name) is not None


def find_batches(folder: Path) -> list[Path]:
    """Return the batch files of a CIFAR-10 folder, [] for any other folder."""
    # The official archives unpack to these subfolders.
    for candidate in (folder, folder / "cifar-10-batches-bin", folder / "cifar-10-batches-py"):
        batches = sorted(candidate.glob("*_batch*"))
        batches = [path for path in batches if is_batch(path) and path.is_file()]
        binary = [path for path in batches if path.suffix == ".bin"]
        if batches:
            return binary or batches  # never both layouts of the same images
    return []


def count(path: Path, label_bytes: int = 1) -> int:
    """Return the number of images in a batch file.

    A record of the binary layout begins with `label_bytes`: 1, or 2 for CIFAR-100.
    Raises UserError if the file is damaged.
    """
    if path.suffix != ".bin":
        return len(load_python(str(path)))
    size, record = path.stat().st_size, label_bytes + PIXELS
    if size == 0 or size % record:
        raise UserError(
            f"{path} has {size} bytes, which is not a multiple of {record}: "
            "it is cut short, or not in CIFAR's binary layout; download it again"
        )
    return size // record


def to_image(data: bytes) -> Image.Image:
    """Return the 32 x 32 RGB image of 3072 raw bytes (planes R, G, B)."""
    return Image.fromarray(
        np.frombuffer(data, np.uint8).reshape(3, SIDE, SIDE).transpose(1, 2, 0).copy()
    )


@lru_cache(maxsize=8)
def load_python(path: str) -> np.ndarray:
    """Return the pixels of a batch in the Python layout: (images, 3072) uint8.

    Raises UserError if the file is not such a batch.
    """
    return _load_batch(path)[0]


def load_labelled(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels and the labels of a CIFAR-10 batch in either layout.

    The pixels are (images, 3072) uint8, the labels (images,) int64. Raises UserError if
    the file is damaged or has no labels.
    """
    if path.suffix == ".bin":
        count(path)  # raises UserError for a file that is cut short
        rows = np.fromfile(path, np.uint8).reshape(-1, RECORD)
        return rows[:, 1:], rows[:, 0].astype(np.int64)
    pixels, batch = _load_batch(str(path))
    labels = batch.get(b"labels", batch.get("labels"))
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise UserError(f"{path} has no label for each image: download CIFAR-10 again")
    return pixels, np.array(labels, np.int64)


def _load_batch(path: str) -> tuple[np.ndarray, dict[Any, Any]]:
    """Return the pixels, (images, 3072) uint8, and all fields of a pickled batch.

    Raises UserError if the file is not such a batch.
    """
    if Path(path).stat().st_size > _MAX_PICKLE_BYTES:
        raise UserError(f"{path} is too large for a CIFAR batch: exclude it from SOURCE")
    data = Path(path).read_bytes()
    try:
        _check_tuples(data)
        batch = _RestrictedUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # other pickles can raise anything
        raise UserError(
            f"{path} is not in CIFAR's Python layout ({error}; none of its code was executed): "
            "exclude it from SOURCE"
        ) from None
    array = batch.get(b"data", batch.get("data")) if isinstance(batch, dict) else None
    pixels = array.pixels if isinstance(array, _ArrayStub) else None
    if pixels is None or pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise UserError(
            f"{path} is not in CIFAR's Python layout (no uint8 array with rows of {PIXELS}): "
            "exclude it from SOURCE"
        )
    return pixels, batch


def _check_tuples(data: bytes) -> None:
    """Raise UnpicklingError if a pickle makes too many tuples."""
    # Deeply nested tuples used as a dict key would crash the interpreter when hashed.
    names = (opcode.name for opcode, _, _ in pickletools.genops(data))
    if sum(name.startswith("TUPLE") for name in names) > _MAX_TUPLES:
        raise pickle.UnpicklingError("it has too many tuples")


class _AllowedCallable:
    """A function or class that a pickle may call, but not use in any other way."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it sets the state of an object without state")


class _DtypeStub:
    """Stands in for a numpy dtype while a pickle is loaded."""

    # A real dtype accepts any state from a pickle, and could then read memory outside
    # the array.
    __slots__ = ("name",)

    def __init__(self, name: str | bytes, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Ignore the state of the pickled dtype."""


class _ArrayStub:
    """Stands in for a numpy array while a pickle is loaded."""

    __slots__ = ("pixels",)

    def __init__(self, *_: Any) -> None:
        self.pixels: np.ndarray | None = None  # None unless its dtype is uint8

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran, data = state
        self.pixels = _uint8_array(data, dtype, shape, "F" if fortran else "C")


def _uint8_array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray | None:
    """Return the array with the bytes `data` if its dtype is uint8, else None.

    Raises UnpicklingError if the number of bytes does not match the shape.
    """
    if not isinstance(dtype, _DtypeStub) or dtype.name not in ("u1", b"u1"):
        return None  # batches may contain other arrays, which are not needed
    if not isinstance(shape, tuple) or not all(
        type(extent) is int and extent >= 0 for extent in shape
    ):
        raise pickle.UnpicklingError("an array has an invalid shape")
    if not isinstance(data, (bytes, bytearray)) or len(data) != math.prod(shape):
        raise pickle.UnpicklingError("the number of bytes of an array does not match its shape")
    return np.frombuffer(data, np.uint8).reshape(shape, order="F" if order == "F" else "C")


def _array_from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _ArrayStub:
    array = _ArrayStub()
    array.pixels = _uint8_array(data, dtype, shape, order)
    return array


def _refuse(*_: Any) -> NoReturn:
    raise pickle.UnpicklingError("it calls a function that array pickles never call")


def _encode(text: str, codec: str) -> bytes:
    return text.encode("latin1")  # pickle protocol 2 stores bytes as latin1 text


_ALLOWED = {
    "_reconstruct": _AllowedCallable(_ArrayStub),
    "_frombuffer": _AllowedCallable(_array_from_buffer),
    "ndarray": _AllowedCallable(_refuse),  # valid only as an argument
    "dtype": _AllowedCallable(_DtypeStub),
    "encode": _AllowedCallable(_encode),
}
_MODULES = re.compile(r"numpy(\._?core\.(multiarray|numeric))?|_codecs")


class _RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that loads only dicts, lists, bytes, numbers and uint8 arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if _MODULES.fullmatch(module) and name in _ALLOWED:
            return _ALLOWED[name]
        # Raised without importing the function or class.
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not allowed")
