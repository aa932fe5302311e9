"""Generate colours for a split of the shards and score them.

The scores are bit-identical on any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from colortrain.lab import Codec, stored_to_lab
from colortrain.metrics.baselines import median_colour
from colortrain.metrics.extractors import FeatureExtractors
from colortrain.metrics.gather import broadcast_from_rank_0, gather_on_rank_0, sum_on_rank_0
from colortrain.metrics.image_metrics import (
    Depth,
    image_versions,
    metrics_on_device,
    values_per_image,
)
from colortrain.metrics.registry import METRICS, Scores
from colortrain.metrics.set_metrics import FeatureKey, SetMetrics, Stats
from colortrain.metrics.summaries import Rows, intervals, source_names, summarise
from colortrain.metrics.transfers import HostCopy, upload
from shards.errors import UserError
from shards.read.dataset import Split

T = TypeVar("T")


class ScoringStoppedError(Exception):
    """Raised by `score_split`, on all ranks, after a request to stop."""


def predict_lab(
    generator: nn.Module, codec: Codec, lab: Tensor, *, dropout: bool = False, seed: int = 0
) -> Tensor:
    """Return the images that a generator predicts from the L of `lab`, as Lab.

    `lab` and the result are (B, 3, H, W) in CIELAB units. The result has the L of
    `lab`, unless the generator predicts L too. If `dropout` is true, dropout layers
    stay active, with masks that depend on `seed` alone. `generator` has no DDP wrapper.
    """
    L, _ = codec.encode(lab)
    with torch.no_grad(), _evaluating(generator, dropout), _seeded(seed, lab.device):
        # the class's forward(): accelerate replaces an instance's by one with autocast
        fake = type(generator).forward(generator, L)
    predicted = codec.decode(L, fake)
    return predicted if codec.channels == 3 else with_lightness(lab, predicted)


def with_lightness(lab: Tensor, predicted: Tensor) -> Tensor:
    """Return images (B, 3, H, W) with the L of `lab` and the a and b of `predicted`."""
    return torch.cat([lab[:, :1], predicted[:, 1:]], dim=1)


def generate(
    generator: nn.Module, codec: Codec, lab: Tensor, *, dropout: bool = False, seed: int = 0
) -> Tensor:
    """Return the images `lab` with generated a and b instead of their own.

    `lab` and the result are (B, 3, H, W) in CIELAB units. The other arguments are
    described in `predict_lab`.
    """
    return with_lightness(lab, predict_lab(generator, codec, lab, dropout=dropout, seed=seed))


@contextmanager
def _evaluating(generator: nn.Module, dropout: bool) -> Iterator[None]:
    flags = [(module, module.training) for module in generator.modules()]
    generator.eval()
    for module, _ in flags:
        if isinstance(module, _DropoutNd):
            module.train(dropout)
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generator of `device` inside the `with` block, then restore it."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        else:  # torch.manual_seed would also seed a GPU that is training
            torch.default_generator.manual_seed(seed)
        yield


@dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """Options for scoring: which samples of a split, and how.

    They must be equal on all ranks.
    """

    batch_size: int = 16  # samples per chunk; the last bits of the scores depend on it
    limit: int | None = None  # score only this many samples, from the first; None: all
    dropout: bool = False  # keep dropout layers active
    seed: int = 0  # of the dropout masks
    only: frozenset[str] | None = None  # compute only these metrics; None: all
    metrics: Depth = "all"  # "core" leaves out slow metrics and intervals, for use in training
    extractors: FeatureExtractors = field(default_factory=FeatureExtractors)  # feature metrics


def score_split(
    generator: nn.Module,
    codec: Codec,
    split: Split,
    device: torch.device | str,
    config: ScoringConfig | None = None,
    *,
    rank: int = 0,
    world: int = 1,
    progress: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Scores:
    """Score a generator on a split; return the scores, which are equal on all ranks.

    Every rank must call the function. Raises UserError for an empty split, and
    ScoringStoppedError. The arguments and the result are described in `SplitScorer`.
    """
    scorer = SplitScorer(codec, split, torch.device(device), config, rank=rank, world=world)
    return scorer.score(generator, progress, should_stop)


class SplitScorer:
    """Scores generators on one split.

    The metrics of the baselines and of the true images do not depend on the generator;
    they are computed with the first one only. The constructor raises UserError for an
    empty split.
    """

    def __init__(
        self,
        codec: Codec,
        split: Split,
        device: torch.device,
        config: ScoringConfig | None = None,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.codec, self.split, self.device = codec, split, device
        self.config = config or ScoringConfig()
        self.rank, self.world = rank, world
        self.count = min(len(split), self.config.limit or len(split))
        if self.count == 0:
            raise UserError(f"{split.root}: split {split.name} is empty: score another split")
        # The same on all ranks. An interrupted scoring leaves it as it was.
        self.has_baselines = False
        # of the last generator, the baselines and the truth; on rank 0 only
        self.rows: Rows = {}
        self.stats: Stats = {}

    def score(
        self,
        generator: nn.Module,
        progress: Callable[[int], None] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Scores:
        """Return a generator's scores on the split, which are equal on all ranks.

        Every rank must call it. `progress` is called with the estimated number of
        samples that all ranks together have scored. `should_stop` is called before each
        chunk, equally often on all ranks, and must return the same on all of them.
        Raises ScoringStoppedError if it returns true. The result is a dict:

        - "samples": the number of scored samples
        - "protocol": how they were scored
        - "metrics": metric -> version of the images -> value. The versions are
          "generated", "grey" (the grayscale baseline), "median" (the constant-colour
          baseline) and "truth".
        - "deviations", if a metric has them: metric -> version -> standard deviation
          over the parts of the set that protocol["deviations"] describes
        - "intervals", unless `config.metrics` is "core": metric -> version -> [low,
          high], a bootstrap interval. One more version is the difference "generated -
          grey".
        """
        chunks, stats = self._score_chunks(generator, progress, should_stop)
        parts = gather_on_rank_0(chunks, self.rank, self.world)
        total = sum_on_rank_0(stats, self.rank, self.world, self.device)
        self.has_baselines = True
        scores = self._summary(parts, total) if self.rank == 0 else {}
        return broadcast_from_rank_0(scores, self.world)

    def _summary(self, parts: list[list[tuple[int, Rows]]], stats: Stats) -> Scores:
        """Return the scores, given each rank's chunks and the statistics of all."""
        # `|` keeps the order of the versions
        self.rows = self.rows | _concatenate(chunk for part in parts for chunk in part)
        self.stats = self.stats | stats
        set_metrics = SetMetrics(self.config.extractors.set_extractors, self.stats)
        of_sets = set_metrics.compute()
        values = self._chosen(summarise(self.rows) | of_sets.metrics)
        scores: Scores = {
            "samples": self.count,
            "protocol": self._protocol(set_metrics),
            "metrics": {name: values[name] for name in METRICS if name in values},
        }
        if deviations := self._chosen(of_sets.deviations):
            scores["deviations"] = deviations
        # not of metrics of whole sets: resampling with repetition biases them
        if self.config.metrics == "core":
            return scores
        return {**scores, "intervals": self._chosen(intervals(self.rows))}

    def _chosen(self, by_metric: Mapping[str, T]) -> dict[str, T]:
        """Return the entries of the metrics that are to be computed."""
        only = self.config.only
        return {name: x for name, x in by_metric.items() if only is None or name in only}

    def _score_chunks(
        self,
        generator: nn.Module,
        progress: Callable[[int], None] | None,
        should_stop: Callable[[], bool],
    ) -> tuple[list[tuple[int, Rows]], Stats]:
        """Return the values of this rank's chunks of samples, and their statistics."""
        chunks: list[tuple[int, Rows]] = []
        set_metrics = SetMetrics(self.config.extractors.set_extractors)
        size = self.config.batch_size
        # The last bits of sums depend on the chunks and, on a CPU, on the threads, so
        # neither may depend on the number of processes.
        with _one_thread(self.device):
            # while the device computes a chunk, the host collects the one before
            launched = one_behind(self._launch_all(generator, should_stop))
            for turn, chunk in enumerate(launched, start=1):
                rows = values_per_image(chunk.rows.wait())
                chunks.append((chunk.start, {n: v.astype(np.float64) for n, v in rows.items()}))
                set_metrics.collect(chunk.features.wait(), chunk.start)
                if progress:
                    progress(min(turn * self.world * size, self.count))
        return chunks, set_metrics.stats

    def _launch_all(
        self, generator: nn.Module, should_stop: Callable[[], bool]
    ) -> Iterator[_Chunk]:
        """Launch this rank's chunks, one at a time, and yield them."""
        starts = range(0, self.count, self.config.batch_size)
        # Chunk i is scored on rank i modulo `world`. In the last turn, ranks may have
        # none.
        for turn in range(0, len(starts), self.world):
            if should_stop():
                raise ScoringStoppedError
            if turn + self.rank < len(starts):
                yield self._launch(generator, starts[turn + self.rank])

    def _launch(self, generator: nn.Module, start: int) -> _Chunk:
        """Start computing the scores of one chunk; the host does not wait for them."""
        config, extractors = self.config, self.config.extractors
        samples = range(start, min(start + config.batch_size, self.count))
        truth = stored_to_lab(upload(self.split.read(samples), self.device))
        seed = chunk_seed(config.seed, start)
        predicted = predict_lab(generator, self.codec, truth, dropout=config.dropout, seed=seed)
        generated = with_lightness(truth, predicted)
        images = image_versions(generated, truth, median_colour(self.split).ab)
        versions = ("generated",) if self.has_baselines else tuple(images)
        chosen = {version: images[version] for version in versions}
        only = None if config.only is None else source_names(config.only)
        rows = metrics_on_device(
            images, versions, predicted=predicted, metrics=config.metrics, only=only
        )
        for pair_metrics in extractors.pair_metrics:
            rows |= pair_metrics({**chosen, "truth": images["truth"]})
        features = SetMetrics(extractors.set_extractors).extract(chosen)
        return _Chunk(start, HostCopy(rows), HostCopy(features))

    def _protocol(self, set_metrics: SetMetrics) -> dict[str, Any]:
        extractors, deviations = self.config.extractors, self._chosen(set_metrics.deviations)
        return {
            **conditions(self.codec, self.split, self.config),
            "extractors": self._chosen(extractors.facts),
            "left_out": dict(extractors.left_out) | set_metrics.left_out,
            **({"deviations": deviations} if deviations else {}),
        }


@dataclass(frozen=True)
class _Chunk:
    """The scores of consecutive samples; `start` is the index of the first one."""

    start: int
    rows: HostCopy[str]  # from `metrics_on_device`
    features: HostCopy[FeatureKey]  # from `SetMetrics.extract`


def one_behind(items: Iterable[T]) -> Iterator[T]:
    """Yield the items in order, each of them after the next one has been made."""
    previous: list[T] = []
    for item in items:
        yield from previous
        previous = [item]
    yield from previous


def conditions(codec: Codec, split: Split, config: ScoringConfig) -> dict[str, Any]:
    """Return the part of scores["protocol"] that does not depend on the metrics."""
    return {
        **_split_facts(split),
        "dropout": config.dropout,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "lightness": "made" if codec.channels == 3 else "given",
        "median": median_colour(split).protocol(split),
    }


def _split_facts(split: Split) -> dict[str, Any]:
    manifest = split.manifest
    return {
        "dataset_id": manifest.dataset_id,
        "split": split.name,
        "size": manifest.size,
        "fit": manifest.fit,
        "dtype": manifest.dtype,
    }


def chunk_seed(seed: int, start: int) -> int:
    """Return the seed of the dropout masks for one chunk of samples.

    A chunk is scored in one forward pass; its first sample is number `start` of the
    split.
    """
    return (seed * 0x9E3779B1 + start) % 2**63


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _concatenate(chunks: Iterable[tuple[int, Rows]]) -> Rows:
    """Join the values of all chunks into one array per metric, ordered by sample."""
    # a chunk is the number of its first sample, and its values
    ordered = [rows for _, rows in sorted(chunks, key=lambda chunk: chunk[0])]
    return {name: np.concatenate([rows[name] for rows in ordered]) for name in ordered[0]}
