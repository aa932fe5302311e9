"""One rank of `test_loading`: read batches and record which samples they contain.

    accelerate launch ... -m tests.support.seen_samples SHARDS OUT BATCH STEPS

After each batch the ranks all-reduce, as DDP does.
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
from launch.processes import exit_process
from shards.read.dataset import Split


def main() -> None:
    """Write the numbers of the samples in each batch to OUT/RANK.json.

    The test's shards have the number of a sample in its ab: a + 256 * b, as stored.
    """
    shards, out = sys.argv[1], Path(sys.argv[2])
    batch_size, steps = int(sys.argv[3]), int(sys.argv[4])
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
            # if a rank ran out of samples, the others would hang here
            accelerator.reduce(torch.ones(1))
    (out / f"{accelerator.process_index}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
    torch.distributed.destroy_process_group()
    exit_process(0)  # a normal shutdown of gloo aborts sometimes
