"""Find the batches of CIFAR-100, in its binary layout and its Python layout.

https://www.cs.toronto.edu/~kriz/cifar.html

binary layout   train.bin, test.bin: per image a byte of the coarse label, one of the
                fine label, and 3072 pixel bytes (planes R, G, B of 32 x 32)
Python layout   train, test: pickled dicts like those of CIFAR-10, with the same pixels
"""

from __future__ import annotations

from pathlib import Path

LABEL_BYTES = 2  # coarse and fine label, before the pixels of a record
_BINARY, _PYTHON = ("test.bin", "train.bin"), ("test", "train")
# The names of the batches are common, so their folder must have a file of labels.
_LABEL_NAMES = ("fine_label_names.txt", "coarse_label_names.txt", "meta")


def is_batch(path: Path) -> bool:
    """Return whether a file is a CIFAR-100 batch, judged by its name and its folder."""
    if path.name not in (*_BINARY, *_PYTHON) or not path.is_file():
        return False
    return any((path.parent / name).is_file() for name in _LABEL_NAMES)


def find_batches(folder: Path) -> list[Path]:
    """Return the batch files of a CIFAR-100 folder, [] for any other folder."""
    # The official archives unpack to these subfolders.
    for candidate in (folder, folder / "cifar-100-binary", folder / "cifar-100-python"):
        for names in (_BINARY, _PYTHON):  # never both layouts of the same images
            if batches := [candidate / name for name in names if is_batch(candidate / name)]:
                return batches
    return []
