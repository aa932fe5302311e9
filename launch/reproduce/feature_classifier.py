"""The eyes of the Fréchet distance where no Inception weights are: a small classifier, trained here on CIFAR-10.

Its distance ranks what was measured with the same judge, and no more: it is not the FID of the literature, whose
features are Inception's. Accuracy and SHA-256 of the weights stand beside every figure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from colortrain.lab import lab_to_rgb, stored_to_lab
from colortrain.metrics.baselines import median_colour
from colortrain.metrics.evaluate import generate
from colortrain.metrics.features import Moments, fid
from colortrain.models.classifier import Classifier
from colortrain.runs.checkpoint import load_generator
from shards.errors import UserError
from shards.files import sha256_of, write_atomic
from shards.progress import ProgressLine
from shards.read.dataset import open_held_out
from shards.sources.cifar10 import RECORD, SIDE, find_batches

_BATCH = 128
_RATE = 0.3  # of SGD at its highest; from 0 in a quarter of the steps, and back
_CHUNK = 100  # pictures at once when judging


@dataclass(frozen=True)
class Judge:
    """A classifier, what share of the test pictures it names rightly, and its weights' digest."""

    network: Classifier
    accuracy: float
    digest: str
    device: torch.device

    def describe(self) -> str:
        """One phrase for a caption."""
        return (
            f"features of a CIFAR-10 classifier trained here ({self.accuracy:.1%} of the test pictures right, "
            f"SHA-256 {self.digest[:12]}): not Inception's"
        )

    def distances(self, run: Path, shards: Path, limit: int | None) -> dict[str, float]:
        """Fréchet distance to the true pictures of the held-out split: of what the run made, grey, and the median."""
        generator, recipe, _ = load_generator(run)
        split = open_held_out(shards)
        constant = torch.tensor(median_colour(split).ab).view(1, 2, 1, 1)
        versions = {
            "generated": lambda lab, seed: generate(
                generator.to(self.device), recipe.codec, lab, dropout=recipe.test_dropout, seed=seed
            ),
            "grey": lambda lab, _: torch.cat([lab[:, :1], torch.zeros_like(lab[:, 1:])], 1),
            "median": lambda lab, _: torch.cat(
                [lab[:, :1], constant.to(lab).expand_as(lab[:, 1:])], 1
            ),
            "truth": lambda lab, _: lab,
        }
        sums: dict[str, Moments] = {}
        count = min(len(split), limit or len(split))
        for start in range(0, count, _CHUNK):
            lab = stored_to_lab(
                torch.from_numpy(split.read(range(start, min(start + _CHUNK, count)))).to(
                    self.device
                )
            )
            for name, make in versions.items():
                seen = Moments.of(self.features(make(lab, start)))
                sums[name] = sums[name] + seen if name in sums else seen
        truth = sums.pop("truth")
        return {name: fid(truth, made) for name, made in sums.items()}

    @torch.no_grad()
    def features(self, lab: Tensor) -> np.ndarray:
        """(B, D) of CIELAB pictures (B, 3, H, W)."""
        return self.network.features(lab_to_rgb(lab)).cpu().numpy()


def judge_for(source: Path, path: Path, images: int) -> Judge:
    """The judge in `path`, trained on the source's labels for `images` images if there is none yet."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    record = path.with_suffix(".json")
    if not record.is_file():
        pictures, labels = labelled(source, "data_batch")
        network = trained(pictures, labels, images, device)
        right = accuracy(network, *labelled(source, "test_batch"))
        write_atomic(
            path,
            save({name: value.cpu().contiguous() for name, value in network.state_dict().items()}),
        )
        facts = {"accuracy": right, "sha256": sha256_of(path), "images": images}
        write_atomic(record, json.dumps(facts, indent=1).encode() + b"\n")
    return load_judge(path, device)


def load_judge(path: Path, device: torch.device | str = "cpu") -> Judge:
    """A judge that `judge_for` wrote; raises `UserError` if its weights are others than were recorded."""
    facts, digest = json.loads(path.with_suffix(".json").read_text()), sha256_of(path)
    if digest != facts["sha256"]:
        raise UserError(
            f"{path} is not what {path.with_suffix('.json')} describes: remove both to train it again"
        )
    network = Classifier()
    network.load_state_dict(load_file(path))
    return Judge(network.to(device).eval(), facts["accuracy"], digest, torch.device(device))


def labelled(source: Path, batches: str) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, 32, 32) uint8 and labels (N,) of the batches, binary layout, whose names begin so."""
    files = [path for path in find_batches(source) if path.name.startswith(batches)]
    rows = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, RECORD) for path in files])
    return torch.from_numpy(rows[:, 1:].reshape(-1, 3, SIDE, SIDE)), torch.from_numpy(
        rows[:, 0].astype(np.int64)
    )


def trained(pictures: Tensor, labels: Tensor, images: int, device: torch.device) -> Classifier:
    """A classifier after `images` images in random order, mirrored and moved by up to 3 pixels; its draws are fixed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = Classifier().to(device).train()
        steps = max(1, images // _BATCH)
        sgd = torch.optim.SGD(
            network.parameters(), lr=_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        with ProgressLine("training the judge", steps * _BATCH, "images") as progress:
            for step in range(steps):
                sgd.param_groups[0]["lr"] = _RATE * min(
                    4 * (step + 1) / steps, 4 / 3 * (1 - step / steps)
                )
                chosen = torch.randint(len(pictures), (_BATCH,))
                shown = moved(pictures[chosen].to(device).float() / 255)
                F.cross_entropy(
                    network(shown), labels[chosen].to(device), label_smoothing=0.05
                ).backward()
                sgd.step()
                sgd.zero_grad()
                progress.advance_to((step + 1) * _BATCH)
    return network.eval()


def moved(rgb: Tensor) -> Tensor:
    """A batch moved by up to 3 pixels, mirrored every other time."""
    left, top, mirrored = (int(torch.randint(n, ())) for n in (7, 7, 2))
    height, width = rgb.shape[-2:]
    part = F.pad(rgb, (3, 3, 3, 3), mode="reflect")[..., top : top + height, left : left + width]
    return part.flip(-1) if mirrored else part


@torch.no_grad()
def accuracy(network: Classifier, pictures: Tensor, labels: Tensor) -> float:
    """Share of pictures whose label is the classifier's first choice."""
    device = next(network.parameters()).device
    right = [
        (network(some.to(device).float() / 255).argmax(1).cpu() == names).sum().item()
        for some, names in zip(pictures.split(500), labels.split(500), strict=True)
    ]
    return sum(right) / len(labels)
