r"""Score generators on GPU stand-ins and on the CPU; count what made the host wait.

    python -m tests.support.gpu_stand_in \
        python -m tests.support.score_on_gpu SHARDS OUT.json

OUT.json has, for each device, the scores of two generators, by the same scorer, with
all metrics. For "cuda" it also has the number of events of each kind.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import torch
from torch import nn

from colortrain.lab import SymmetricCodec
from colortrain.metrics.evaluate import ScoringConfig, SplitScorer
from colortrain.metrics.extractors import FeatureExtractors
from colortrain.metrics.network_metrics import inception_extractor
from colortrain.metrics.set_metrics import LAB_FIELDS
from colortrain.models.pix2pix import UNetConfig
from shards.read.dataset import Split
from tests.support.gpu_stand_in import events

CHUNK = 3  # images


class SmallExtractor(nn.Module):
    """A network with the two outputs of `Inception`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 8, 5, stride=3)

    def forward(self, rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (B, 8) and logits (B, 4)."""
        features = self.convolution(rgb / 32).relu().mean(dim=(2, 3))
        return features, features[:, :4]


def make_generator(seed: int) -> nn.Module:
    """Return a generator whose colours are strong enough for bright spots."""
    torch.manual_seed(seed)
    network = UNetConfig(base_channels=4, levels=4).build()
    with torch.no_grad():
        network(torch.randn(4, 1, 32, 32))
        network.head.weight.mul_(60)
    return network


def score(split: Split, device: torch.device) -> dict[str, object]:
    """Return the scores of two generators on a device, and the events of each."""
    extractors = (LAB_FIELDS, inception_extractor(SmallExtractor().to(device), splits=2))
    config = ScoringConfig(batch_size=CHUNK, extractors=FeatureExtractors(extractors))
    scorer = SplitScorer(SymmetricCodec(), split, device, config)
    generators = [make_generator(seed).to(device) for seed in range(2)]
    scorer.score(generators[0])  # what is cached once in a process is cached now
    scorer = SplitScorer(SymmetricCodec(), split, device, config)
    results, counts = [], []
    for generator in generators:
        with events.recorded() as found:
            results.append(scorer.score(generator)["metrics"])
        counts.append(Counter(event.what for event in found))
    return {"scores": results, "events": counts}


def main() -> None:
    """Score on both devices, and write the results."""
    split = Split(sys.argv[1])
    results = {name: score(split, torch.device(name)) for name in ("cpu", "cuda")}
    Path(sys.argv[2]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
