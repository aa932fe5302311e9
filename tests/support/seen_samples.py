"""One rank of `test_loading`: read, all-reduce after each batch as DDP would, and write down which samples came.

accelerate launch ... -m tests.support.seen_samples SHARDS OUT BATCH STEPS
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator

from colortrain.data.loader import Loader, LoaderConfig
from colortrain.lab import SymmetricCodec
from shards.read.dataset import Split


def main() -> None:
    """A sample is known by its first two values of ab: the set is made so that they are its number."""
    shards, out, batch_size, steps = (
        sys.argv[1],
        Path(sys.argv[2]),
        int(sys.argv[3]),
        int(sys.argv[4]),
    )
    accelerator = Accelerator(cpu=True)
    config = LoaderConfig(
        batch_size=batch_size,
        seed=1,
        flip=0,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    loader = Loader(Split(shards), SymmetricCodec(), config)
    seen = []
    with closing(loader.batches()) as batches:
        for batch in islice(batches, steps):
            stored = (batch.colour[:, :, 0, 0] * 110 + 128).round().long()
            seen.append((stored[:, 0] + 256 * stored[:, 1]).tolist())
            accelerator.reduce(
                torch.ones(1)
            )  # a rank that ran dry would leave the others waiting here
    (out / f"{accelerator.process_index}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
    torch.distributed.destroy_process_group()
