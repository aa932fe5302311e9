"""The constant-colour baseline: one colour for every pixel of every image.

Scores are compared with it and with the grayscale baseline.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shards.color import unpack
from shards.read.dataset import Split
from shards.read.mixture import evenly_spaced

_MAX_SAMPLES = 2000  # from which the median is computed, evenly spaced
_TRAIN = "train"


@dataclass(frozen=True)
class MedianColour:
    """Channel-wise median of a and b, in whole CIELAB units.

    It is computed from `samples` samples of the split named `split`.
    """

    ab: tuple[float, float]
    split: str
    samples: int

    def protocol(self, scored: Split) -> dict[str, object]:
        """Return the facts that a report gives, for JSON.

        "oracle" is true if the colour was computed from the split that is scored.
        """
        facts = {"ab": list(self.ab), "split": self.split, "samples": self.samples}
        return {**facts, "oracle": self.split == scored.name}


@lru_cache(maxsize=8)
def median_colour(scored: Split) -> MedianColour:
    """Return the median of the data set's train split, or of `scored` if there is none.

    In the second case it is an oracle: it uses the samples that are scored. The median
    is the constant colour with the least L1. It is computed once per process and split.
    """
    use_train = bool(scored.manifest.splits.get(_TRAIN)) and scored.name != _TRAIN
    return _count(scored.sibling(_TRAIN) if use_train else scored)


def _count(split: Split) -> MedianColour:
    counts, samples = np.zeros((2, 256), np.int64), 0
    for samples, stored in enumerate(evenly_spaced(split, _MAX_SAMPLES), 1):  # noqa: B007
        units = np.clip(np.rint(unpack(stored)[1:]) + 128, 0, 255).astype(np.intp)
        counts += [np.bincount(channel.ravel(), minlength=256) for channel in units]
    reached = counts.cumsum(1) * 2 >= counts.sum(1, keepdims=True)
    a, b = (float(index - 128) for index in reached.argmax(1).tolist())
    return MedianColour((a, b), split.name, samples)
