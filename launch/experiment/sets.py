"""The shard sets of an experiment: one for training, one for scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shards.read.dataset import Split, open_held_out


@dataclass(frozen=True)
class Sets:
    """The shard sets of one table: `train` for training, `held_out` to score.

    Both may be the same folder. split: the split of `held_out` to score, or None for
    its held-out split; note: how the data differ from the paper's, a sentence, or "".
    """

    train: Path
    held_out: Path
    split: str | None = None
    note: str = ""

    def training_images(self) -> int:
        """Return the number of training images."""
        return len(Split(self.train, "train"))

    def scored(self) -> Split:
        """Open the split that is scored.

        Raises UserError if there is none.
        """
        return Split(self.held_out, self.split) if self.split else open_held_out(self.held_out)
