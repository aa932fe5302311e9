"""Score a small generator on a small split, in several numbers of processes.

    python -m tests.support.score_on_ranks FOLDER finite|diverged WORLD...

Writes the scores of each rank to FOLDER/WORLD-RANK.json, and to
FOLDER/sent-WORLD-RANK.json how many bytes of objects it passed to collective
operations. If the network has diverged, its colours in the last chunk are not finite.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from colortrain.lab import SymmetricCodec
from colortrain.metrics import evaluate
from colortrain.metrics.evaluate import ScoringConfig, score_split
from colortrain.metrics.extractors import FeatureExtractors
from colortrain.metrics.network_metrics import inception_extractor
from colortrain.metrics.set_metrics import LAB_FIELDS
from colortrain.models.pix2pix import UNetConfig
from colortrain.serialize import finite
from shards.read.dataset import Split
from tests.support.small_shard_set import small_set

COUNT, BATCH_SIZE = 13, 3


def small_extractor(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, 12) features and (B, 3) logits of images (B, 3, H, W) in 0..255."""
    features = nn.functional.adaptive_avg_pool2d(rgb / 255, 2).flatten(1)
    return features, 20 * features[:, :3]


def small_generator() -> nn.Module:
    """Return a generator whose colours differ from the baselines'."""
    torch.manual_seed(3)
    network = UNetConfig(base_channels=4, levels=4).build()
    with torch.no_grad():
        network(torch.randn(4, 1, 32, 32))  # running statistics that are not 0 and 1
        network.head.weight.mul_(30)
    return network


def spoil_last_chunk() -> None:
    """Let the generated colours of the last chunk, which has one image, be NaN."""
    real = evaluate.predict_lab

    def predict(generator: nn.Module, codec: Any, lab: Tensor, **options: Any) -> Tensor:
        predicted = real(generator, codec, lab, **options)
        return predicted * torch.nan if len(lab) == COUNT % BATCH_SIZE else predicted

    setattr(evaluate, "predict_lab", predict)  # noqa: B010


def count_bytes(name: str, sent: Counter[str], position: int) -> None:
    """Let a function of torch.distributed count the bytes of an argument in `sent`."""
    real: Callable[..., Any] = getattr(distributed, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        sent[name] += len(pickle.dumps(args[position]))
        return real(*args, **kwargs)

    setattr(distributed, name, counting)


def score(folder: Path, split: Split, rank: int, world: int) -> None:
    """Score on one rank of `world`, and write the scores."""
    sent: Counter[str] = Counter()
    if world > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/store-{world}", rank=rank, world_size=world
        )
        for name, position in (("all_gather_object", 1), ("gather_object", 0)):
            count_bytes(name, sent, position)
    extractors = (LAB_FIELDS, inception_extractor(small_extractor, splits=2))
    config = ScoringConfig(
        batch_size=BATCH_SIZE,
        dropout=True,
        extractors=FeatureExtractors(set_extractors=extractors),
    )
    scores = score_split(
        small_generator(), SymmetricCodec(), split, "cpu", config, rank=rank, world=world
    )
    name = f"{world}-{rank}.json"
    (folder / name).write_text(json.dumps(finite(scores)))
    (folder / f"sent-{name}").write_text(json.dumps(sent))


def main(folder: Path, diverged: bool, worlds: list[int]) -> None:
    """Score in this process, then fork the processes of each world size in turn."""
    torch.set_num_threads(1)
    split = Split(small_set(folder / "set", count=COUNT))
    if diverged:
        spoil_last_chunk()
    score(folder, split, 0, 1)  # loads what torch loads at its first use
    for world in worlds:
        children = []
        for rank in range(world):
            child = os.fork()
            if child == 0:
                score(folder, split, rank, world)
                os._exit(0)
            children.append(child)
        for child in children:
            _, status = os.waitpid(child, 0)
            assert status == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "diverged", [int(world) for world in sys.argv[3:]])
