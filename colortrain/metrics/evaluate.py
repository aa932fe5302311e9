"""Generating colours and scoring them: the same numbers, bit for bit, from any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from colortrain.lab import Codec, stored_to_lab
from colortrain.metrics import bootstrap
from colortrain.metrics.baselines import median_colour
from colortrain.metrics.extractors import FeatureExtractors
from colortrain.metrics.image_metrics import MSE_FLOOR, Depth, per_image, versions
from colortrain.metrics.registry import METRICS, Scores
from colortrain.metrics.set_metrics import SetMetrics
from shards.errors import UserError
from shards.read.dataset import Split

T = TypeVar("T")
Rows = dict[str, np.ndarray]
Metrics = dict[str, dict[str, float]]  # metric -> version -> value


def make(
    generator: nn.Module, codec: Codec, lab: Tensor, *, dropout: bool = False, seed: int = 0
) -> Tensor:
    """What the network makes of L alone: (B, 3, H, W) CIELAB in and out, L its own where the codec's colour has one.

    BatchNorm uses its running statistics. `dropout` keeps dropout layers on, drawn from `seed` alone. The generator's
    training flags and the random state of the process are as before afterwards. Takes the bare module, not a wrapper.
    """
    L, _ = codec.encode(lab)
    with torch.no_grad(), _evaluating(generator, dropout), _drawing_from(seed, lab.device):
        # the class's forward: accelerate puts an autocasting one on instances that train
        fake = type(generator).forward(generator, L)
    made = codec.decode(L, fake)
    return made if codec.channels == 3 else with_lightness(lab, made)


def with_lightness(lab: Tensor, made: Tensor) -> Tensor:
    """The colours of `made` under the lightness of `lab`, both (B, 3, H, W)."""
    return torch.cat([lab[:, :1], made[:, 1:]], dim=1)


def generate(
    generator: nn.Module, codec: Codec, lab: Tensor, *, dropout: bool = False, seed: int = 0
) -> Tensor:
    """Colour pictures: (B, 3, H, W) CIELAB, of which L alone is looked at, to the same L with generated ab (`make`)."""
    return with_lightness(lab, make(generator, codec, lab, dropout=dropout, seed=seed))


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
def _drawing_from(seed: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        else:
            torch.default_generator.manual_seed(
                seed
            )  # torch.manual_seed would also seed a GPU that trains
        yield


def score_split(
    generator: nn.Module,
    codec: Codec,
    split: Split,
    device: torch.device | str,
    *,
    rank: int = 0,
    world: int = 1,
    dropout: bool = False,
    batch_size: int = 16,
    limit: int | None = None,
    seed: int = 0,
    metrics: Depth = "all",
    extractors: FeatureExtractors | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Every metric of a split's first `limit` samples (all by default), beside those of grey pictures, of one constant
    colour (`median_colour`) and of the truth.

    Returns {"samples", "protocol", "metrics": {"l1": {"generated": x, "grey": y}, ...}}, the same on every rank. Every
    rank must call it. Samples go through the network in fixed chunks of `batch_size`, chunk i on rank i % world, on
    one thread where the device is a CPU: sums depend on both in their last bits, so neither may follow the world.
    `metrics="core"` leaves out the slow ones and the intervals, for scores along a training. `extractors` are the networks
    to judge with. "intervals" is shaped as "metrics", with "generated - grey" beside the versions; metrics of whole
    sets have none, for drawing pictures twice moves them. `progress` is told how many samples are done, over all ranks
    by this rank's count.
    """
    device, count = torch.device(device), min(len(split), limit or len(split))
    if count == 0:
        raise UserError(f"{split.root}: split {split.name} is empty, there is nothing to score")
    constant = median_colour(split)
    mine: list[tuple[int, Rows]] = []
    extractors = extractors or FeatureExtractors()
    set_metrics = SetMetrics(extractors.set_extractors)
    with _one_thread(device):
        for turn, start in enumerate(range(0, count, batch_size)[rank::world], start=1):
            samples = range(start, min(start + batch_size, count))
            truth = stored_to_lab(torch.from_numpy(split.read(samples)).to(device))
            made = make(generator, codec, truth, dropout=dropout, seed=chunk_seed(seed, start))
            shown = versions(with_lightness(truth, made), truth, constant.ab)
            by_networks = extractors.pair_metrics(shown) if extractors.pair_metrics else {}
            mine.append(
                (start, _to_numpy(per_image(shown, made=made, metrics=metrics) | by_networks))
            )
            set_metrics.add(shown, start)
            if progress:
                progress(min(turn * world * batch_size, count))
    parts = gathered((mine, set_metrics.seen), world)
    rows = _in_order(chunk for chunks, _ in parts for chunk in chunks)
    set_metrics = set_metrics.join(seen for _, seen in parts)
    manifest = split.manifest
    protocol = {
        "dataset_id": manifest.dataset_id,
        "split": split.name,
        "size": manifest.size,
        "fit": manifest.fit,
        "dtype": manifest.dtype,
        "dropout": dropout,
        "seed": seed,
        "batch_size": batch_size,
        "lightness": "made" if codec.channels == 3 else "given",
        "median": constant.protocol(split),
        "extractors": dict(extractors.facts),
        "left_out": dict(extractors.left_out) | set_metrics.left_out,
    }
    found = summarise(rows) | set_metrics.metrics()
    ordered = {name: found[name] for name in METRICS if name in found}
    scores = {"samples": count, "protocol": protocol, "metrics": ordered}
    return scores if metrics == "core" else {**scores, "intervals": intervals(rows)}


def _to_numpy(rows: dict[str, Tensor]) -> Rows:
    return {name: values.double().cpu().numpy() for name, values in rows.items()}


def chunk_seed(seed: int, start: int) -> int:
    """The seed of dropout for the chunk that begins at sample `start`: the draw must not follow the process."""
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


def gathered(mine: T, world: int) -> list[T]:
    """What every rank has, in the order of ranks; each must call it."""
    everyone = [mine] * world
    if world > 1:
        torch.distributed.all_gather_object(everyone, mine)
    return everyone


def _in_order(chunks: Iterable[tuple[int, Rows]]) -> Rows:
    """All ranks' chunks, as one array a metric in the order of samples."""
    ordered = [rows for _, rows in sorted(chunks, key=lambda chunk: chunk[0])]
    return {name: np.concatenate([rows[name] for rows in ordered]) for name in ordered[0]}


def summarise(rows: Rows) -> Metrics:
    """Metrics of a split from those of its pictures ("l1.grey": (N,) float64): means, and what only exists pooled.

    `psnr` is the mean over pictures, `psnr_pooled` that of the mean squared error over all pixels of all pictures.
    """
    means = combined({name: values.mean() for name, values in rows.items()})
    return {
        metric: {version: float(x) for version, x in values.items()}
        for metric, values in means.items()
    }


def intervals(rows: Rows) -> dict[str, dict[str, list[float]]]:
    """95 % bootstrap intervals of every metric of `summarise`, and of "generated - grey" on the same draws."""
    means = combined(bootstrap.resampled_means(rows))
    found: dict[str, dict[str, list[float]]] = {}
    for metric, values in means.items():
        beside = (
            {"generated - grey": values["generated"] - values["grey"]} if "grey" in values else {}
        )
        found[metric] = {
            version: bootstrap.interval(drawn) for version, drawn in {**values, **beside}.items()
        }
    return found


def combined(means: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Metric -> version -> value from means over pictures ("l1.grey"), of any shape."""
    metrics: dict[str, dict[str, np.ndarray]] = {}
    for name, values in means.items():
        metric, version = name.split(".")
        metrics.setdefault(metric, {})[version] = values
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
