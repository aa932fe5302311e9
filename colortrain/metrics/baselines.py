"""The constant-colour baseline: the same a and b for every pixel of every image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shards.color import unpack
from shards.format.manifest import TRAIN
from shards.read.dataset import Split
from shards.read.mixture import evenly_spaced

_MAX_SAMPLES = 2000  # from which the median is computed, evenly spaced


@dataclass(frozen=True)
class MedianColour:
    """The medians of a and of b, in whole CIELAB units, and how they were computed.

    They are the medians over `samples` samples of the split named `split`.
    """

    ab: tuple[float, float]
    split: str
    samples: int

    def protocol(self, scored: Split) -> dict[str, object]:
        """Return how the baseline's colour was computed, as values for evaluation.json.

        The keys are "ab", "split", "samples" and "oracle", which is true if the colour
        is from the split `scored`.
        """
        facts = {"ab": list(self.ab), "split": self.split, "samples": self.samples}
        return {**facts, "oracle": self.split == scored.name}


@lru_cache(maxsize=8)
def median_colour(scored: Split) -> MedianColour:
    """Return the colour of the constant-colour baseline for the split `scored`.

    It is the median colour of the split "train", else of the first split whose name
    begins with "train" (such as train2014), else of `scored`.
    """
    # The median is the constant colour with the least L1. From the scored split it is
    # an oracle, which uses the true colours of the scored images.
    filled = sorted(name for name, shards in scored.manifest.splits.items() if shards)
    train = next((name for name in filled if name.startswith(TRAIN)), scored.name)
    return _count(scored if train == scored.name else scored.sibling(train))


def _count(split: Split) -> MedianColour:
    counts, samples = np.zeros((2, 256), np.int64), 0
    for samples, stored in enumerate(evenly_spaced(split, _MAX_SAMPLES), 1):  # noqa: B007
        units = np.clip(np.rint(unpack(stored)[1:]) + 128, 0, 255).astype(np.intp)
        counts += [np.bincount(channel.ravel(), minlength=256) for channel in units]
    reached = counts.cumsum(1) * 2 >= counts.sum(1, keepdims=True)
    a, b = (float(index - 128) for index in reached.argmax(1).tolist())
    return MedianColour((a, b), split.name, samples)
