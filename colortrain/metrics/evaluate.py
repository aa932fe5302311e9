"""Generate colours for a split of the shards and score them.

The scores are bit-identical on any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from colortrain.lab import Codec, stored_to_lab
from colortrain.metrics import bootstrap
from colortrain.metrics.baselines import median_colour
from colortrain.metrics.extractors import FeatureExtractors
from colortrain.metrics.gather import broadcast_from_rank_0, gather_on_rank_0, sum_on_rank_0
from colortrain.metrics.image_metrics import MSE_FLOOR, Depth, image_versions, per_image
from colortrain.metrics.registry import METRICS, Scores
from colortrain.metrics.set_metrics import SetMetrics
from shards.errors import UserError
from shards.read.dataset import Split

Rows = dict[str, np.ndarray]  # "l1.generated" -> (N,) float64, one value per image
Metrics = dict[str, dict[str, float]]  # metric -> version -> value


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

    Every rank must call the function. `progress` is called with the estimated number of
    samples that all ranks together have scored. `should_stop` is called before each
    chunk, equally often on all ranks, and must return the same on all of them. Raises
    ScoringStoppedError if it returns true, and UserError for an empty split. The result
    is a dict:

    - "samples": the number of scored samples
    - "protocol": how they were scored
    - "metrics": metric -> version of the images -> value. The versions are "generated",
      "grey" (the grayscale baseline), "median" (the constant-colour baseline) and
      "truth".
    - "intervals", unless `config.metrics` is "core": metric -> version -> [low, high],
      a bootstrap interval. One more version is the difference "generated - grey".
    """
    config = config or ScoringConfig()
    device, count = torch.device(device), min(len(split), config.limit or len(split))
    batch_size, extractors = config.batch_size, config.extractors
    if count == 0:
        raise UserError(f"{split.root}: split {split.name} is empty: score another split")
    constant = median_colour(split)
    chunks: list[tuple[int, Rows]] = []
    set_metrics = SetMetrics(extractors.set_extractors)
    # Chunk i is scored on rank i modulo `world`, and on one thread if the device is a
    # CPU. The last bits of sums depend on the chunks and the threads, so neither may
    # depend on the number of processes.
    with _one_thread(device):
        starts = _own_starts(range(0, count, batch_size), rank, world)
        for turn, start in enumerate(starts, start=1):
            if should_stop():
                raise ScoringStoppedError
            if start is None:
                continue
            samples = range(start, min(start + batch_size, count))
            truth = stored_to_lab(torch.from_numpy(split.read(samples)).to(device))
            seed = chunk_seed(config.seed, start)
            predicted = predict_lab(generator, codec, truth, dropout=config.dropout, seed=seed)
            images = image_versions(with_lightness(truth, predicted), truth, constant.ab)
            pairs = extractors.pair_metrics(images) if extractors.pair_metrics else {}
            rows = per_image(images, predicted=predicted, metrics=config.metrics) | pairs
            chunks.append((start, _to_numpy(rows)))
            set_metrics.update(images, start)
            if progress:
                progress(min(turn * world * batch_size, count))
    parts = gather_on_rank_0(chunks, rank, world)
    stats = sum_on_rank_0(set_metrics.stats, rank, world, device)
    if rank != 0:
        return broadcast_from_rank_0({}, world)
    all_rows = _concatenate(chunk for part in parts for chunk in part)
    set_metrics = SetMetrics(extractors.set_extractors, stats)
    protocol = {
        **_split_facts(split),
        "dropout": config.dropout,
        "seed": config.seed,
        "batch_size": batch_size,
        "lightness": "made" if codec.channels == 3 else "given",
        "median": constant.protocol(split),
        "extractors": dict(extractors.facts),
        "left_out": dict(extractors.left_out) | set_metrics.left_out,
    }
    values = summarise(all_rows) | set_metrics.compute()
    ordered = {name: values[name] for name in METRICS if name in values}
    scores: Scores = {"samples": count, "protocol": protocol, "metrics": ordered}
    if config.metrics != "core":
        # metrics of whole sets have none: resampling with repetition biases them
        scores["intervals"] = intervals(all_rows)
    return broadcast_from_rank_0(scores, world)


def _own_starts(starts: range, rank: int, world: int) -> Iterator[int | None]:
    """Yield the first sample of each chunk that a rank scores, or None if it has none.

    `starts` are the first samples of all chunks. All ranks get equally many items.
    """
    for turn in range(0, len(starts), world):
        yield starts[turn + rank] if turn + rank < len(starts) else None


def _split_facts(split: Split) -> dict[str, Any]:
    manifest = split.manifest
    return {
        "dataset_id": manifest.dataset_id,
        "split": split.name,
        "size": manifest.size,
        "fit": manifest.fit,
        "dtype": manifest.dtype,
    }


def _to_numpy(rows: dict[str, Tensor]) -> Rows:
    return {name: values.double().cpu().numpy() for name, values in rows.items()}


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


def summarise(rows: Rows) -> Metrics:
    """Return the metrics of a whole split as metric -> version of the images -> value.

    rows: (N,) float64, the values of single images, for each metric and version, under
    keys such as "l1.grey". The versions are "generated", "grey" and "median" (the
    baselines), and "truth".
    """
    means = combine_means({name: values.mean() for name, values in rows.items()})
    return {
        metric: {version: float(x) for version, x in values.items()}
        for metric, values in means.items()
    }


def intervals(rows: Rows) -> dict[str, dict[str, list[float]]]:
    """Return the 95 % bootstrap intervals [low, high] of the metrics of `summarise`.

    The result maps metric -> version of the images -> interval. One more version,
    "generated - grey", is the difference between the generated images and the grayscale
    baseline.
    """
    means = combine_means(bootstrap.resampled_means(rows))
    result: dict[str, dict[str, list[float]]] = {}
    for metric, values in means.items():
        # on the same resamples
        difference = (
            {"generated - grey": values["generated"] - values["grey"]} if "grey" in values else {}
        )
        ends = {
            version: bootstrap.interval(resampled)
            for version, resampled in {**values, **difference}.items()
        }
        # without the ratios to photographs without any colour
        result[metric] = {
            version: each for version, each in ends.items() if np.isfinite(each).all()
        }
    return result


def combine_means(means: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Compute metrics from means over images: metric -> version of the images -> value.

    The keys of `means` are "metric.version", such as "l1.grey"; the values are scalars
    or arrays. In the result, `psnr_pooled` replaces the mean squared error. Ratios to
    the colourfulness of the truth are added; they are NaN where the truth has no
    colour.
    """
    metrics: dict[str, dict[str, np.ndarray]] = {}
    for name, values in means.items():
        metric, version = name.split(".")
        metrics.setdefault(metric, {})[version] = values
    # from the mean squared error of all images, whereas `psnr` is a mean over images
    metrics["psnr_pooled"] = {
        v: -10 * np.log10(np.maximum(x, MSE_FLOOR)) for v, x in metrics.pop("mse").items()
    }
    for name in ("colourfulness", "colourfulness_absolute"):
        truth = metrics[name]["truth"]
        with np.errstate(divide="ignore", invalid="ignore"):  # photographs without any colour
            ratios = {
                v: np.where(truth > 0, x / truth, np.nan)
                for v, x in metrics[name].items()
                if v != "truth"
            }
        metrics[f"{name}_ratio"] = ratios
    return metrics
