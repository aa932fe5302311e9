"""Generating colours and scoring them: the same numbers, bit for bit, from any number of processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from colortrain.lab import Codec, stored_to_lab
from colortrain.metrics.constant import median_colour
from colortrain.metrics.images import Depth, per_image, psnr
from shards.errors import UserError
from shards.reader import Split

Scores = dict[str, Any]
Rows = dict[str, np.ndarray]


def make(generator: nn.Module, codec: Codec, lab: Tensor, *, dropout: bool = False, seed: int = 0) -> Tensor:
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


def generate(generator: nn.Module, codec: Codec, lab: Tensor, *, dropout: bool = False, seed: int = 0) -> Tensor:
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
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed a GPU that trains
        yield


def score_split(
    generator: nn.Module, codec: Codec, split: Split, device: torch.device | str, *,
    rank: int = 0, world: int = 1, dropout: bool = False, batch_size: int = 16, limit: int | None = None, seed: int = 0,
    metrics: Depth = "all", progress: Callable[[int], None] | None = None,
) -> Scores:  # fmt: skip
    """Every metric of a split's first `limit` samples (all by default), beside those of grey pictures, of one constant
    colour (`median_colour`) and of the truth.

    Returns {"samples", "protocol", "metrics": {"l1": {"generated": x, "grey": y}, ...}}, the same on every rank. Every
    rank must call it. Samples go through the network in fixed chunks of `batch_size`, chunk i on rank i % world, on
    one thread where the device is a CPU: sums depend on both in their last bits, so neither may follow the world.
    `metrics="core"` leaves out the slow ones, for scores along a training. `progress` is told how many samples are
    done, over all ranks by this rank's count.
    """
    device, count = torch.device(device), min(len(split), limit or len(split))
    if count == 0:
        raise UserError(f"{split.root}: split {split.name} is empty, there is nothing to score")
    constant = median_colour(split)
    mine: list[tuple[int, Rows]] = []
    with _one_thread(device):
        for turn, start in enumerate(range(0, count, batch_size)[rank::world], start=1):
            samples = range(start, min(start + batch_size, count))
            truth = stored_to_lab(torch.from_numpy(split.read(samples)).to(device))
            made = make(generator, codec, truth, dropout=dropout, seed=chunk_seed(seed, start))
            shown = with_lightness(truth, made)
            mine.append((start, _to_numpy(per_image(shown, truth, made=made, constant=constant.ab, metrics=metrics))))
            if progress:
                progress(min(turn * world * batch_size, count))
    manifest = split.manifest
    protocol = {
        "dataset_id": manifest.dataset_id, "split": split.name, "size": manifest.size, "fit": manifest.fit,
        "dtype": manifest.dtype, "dropout": dropout, "seed": seed, "batch_size": batch_size,
        "lightness": "made" if codec.channels == 3 else "given", "median": constant.protocol(split),
    }  # fmt: skip
    return {"samples": count, "protocol": protocol, "metrics": summarise(_gather(mine, world))}


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


def _gather(mine: list[tuple[int, Rows]], world: int) -> Rows:
    """All ranks' chunks, as one array a metric in the order of samples."""
    everyone = [mine]
    if world > 1:
        everyone = [[] for _ in range(world)]
        torch.distributed.all_gather_object(everyone, mine)
    chunks = sorted((chunk for part in everyone for chunk in part), key=lambda chunk: chunk[0])
    return {name: np.concatenate([rows[name] for _, rows in chunks]) for name in chunks[0][1]}


def summarise(rows: Rows) -> dict[str, dict[str, float]]:
    """Metrics of a split from those of its pictures ("l1.grey": (N,) float64): means, and what only exists pooled.

    `psnr` is the mean over pictures, `psnr_pooled` that of the mean squared error over all pixels of all pictures.
    """
    metrics: dict[str, dict[str, float]] = {}
    for name, values in rows.items():
        metric, version = name.split(".")
        metrics.setdefault(metric, {})[version] = float(values.mean())
    pooled = metrics.pop("mse")
    metrics["psnr_pooled"] = {v: float(psnr(torch.tensor(x, dtype=torch.float64))) for v, x in pooled.items()}
    colours = metrics["colourfulness"]
    ratios = {version: _ratio(value, colours["truth"]) for version, value in colours.items() if version != "truth"}
    metrics["colourfulness_ratio"] = ratios
    return {name: metrics[name] for name in LABELS if name in metrics}


def _ratio(value: float, truth: float) -> float:
    return value / truth if truth else math.nan


# What each metric is called, which way is better, and how many decimals are worth printing.
LABELS = {
    "l1": ("L1 of ab / 110", "↓", 4),
    "psnr": ("PSNR, mean of pictures, dB", "↑", 2),
    "psnr_pooled": ("PSNR, pooled, dB", "↑", 2),
    "ssim": ("SSIM", "↑", 4),
    "accuracy_2": ("accuracy at 2 %, L too, %", "↑", 1),
    "accuracy_5": ("accuracy at 5 %, L too, %", "↑", 1),
    "accuracy_ab_2": ("accuracy at 2 %, ab alone, %", "↑", 1),
    "accuracy_ab_5": ("accuracy at 5 %, ab alone, %", "↑", 1),
    "mae": ("MAE x 100, L too", "↓", 2),
    "mae_lab": ("MAE in Lab units, L too", "↓", 2),
    "colourfulness": ("colourfulness (M3)", "→ truth", 2),
    "colourfulness_ratio": ("colourfulness / truth", "→ 1", 3),
    "bright_spots": ("bright spots, % of pixels", "↓", 3),
    "sepia": ("sepia (one hue = 1)", "→ truth", 3),
}
COLUMNS = ("generated", "grey", "median", "truth")


def table_rows(scores: Scores) -> list[list[str]]:
    """The scores as text, a row a metric: name, which way is better, then `COLUMNS`."""
    rows = []
    for name, values in scores["metrics"].items():
        label, better, decimals = LABELS.get(name, (name, "", 4))
        shown = [f"{values[column]:.{decimals}f}" if column in values else "" for column in COLUMNS]
        rows.append([label, better, *shown])
    return rows


def caption(scores: Scores) -> str:
    """What the numbers were measured on, in one line."""
    protocol = scores["protocol"]
    median = protocol["median"]
    learnt = f"{median['split']}, the split scored (an oracle)" if median["oracle"] else median["split"]
    return (
        f"{scores['samples']:,} samples of {protocol['split']} of {protocol['dataset_id']}, {protocol['size']} px "
        f"({protocol['fit']}), dropout {'on' if protocol['dropout'] else 'off'}, "
        f"L {'of its own' if protocol['lightness'] == 'made' else 'given'}; "
        f"median a, b = {median['ab'][0]:g}, {median['ab'][1]:g} of {learnt}"
    )


def markdown_table(scores: Scores) -> str:
    """The scores as a Markdown table under a caption."""
    head = ["metric", "better", *COLUMNS]
    lines = [head, ["---", ":-:", *["--:"] * len(COLUMNS)], *table_rows(scores)]
    return "\n".join([caption(scores), "", *("| " + " | ".join(line) + " |" for line in lines)]) + "\n"


def text_table(scores: Scores) -> str:
    """The scores as aligned columns under a caption, for a terminal or a log."""
    lines = [["metric", "better", *COLUMNS], *table_rows(scores)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([caption(scores), *(line.rstrip() for line in text)]) + "\n"
