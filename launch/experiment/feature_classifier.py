"""A Fréchet distance that does not require the weights of Inception.

Its features are from a small classifier that is trained here on CIFAR-10, so distances
are not comparable with the FID of the literature.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from colortrain.distributed.device import default_device
from colortrain.lab import lab_to_rgb, stored_to_lab
from colortrain.metrics.baselines import median_colour
from colortrain.metrics.evaluate import generate
from colortrain.metrics.features import Moments, fid
from colortrain.models.classifier import Classifier
from colortrain.runs.checkpoint import load_generator
from shards.errors import UserError
from shards.files import sha256_of, write_atomic
from shards.json_files import read_json
from shards.progress import ProgressLine
from shards.read.dataset import Split
from shards.sources.cifar10 import SIDE, find_batches, load_labelled

_BATCH = 128
_MAX_LR = 0.3  # of SGD: rises linearly for a quarter of the steps, then falls linearly to 0
_FEATURE_BATCH = 100  # images at once when features are extracted
_MAX_SHIFT = 3  # pixels, of the augmentation


class _Facts(TypedDict):
    accuracy: float
    sha256: str


@dataclass(frozen=True)
class FeatureClassifier:
    """A CIFAR-10 classifier whose features are used for Fréchet distances.

    accuracy: fraction of CIFAR-10's test images that it labels correctly; digest:
    SHA-256 of the file of its weights.
    """

    network: Classifier
    accuracy: float
    digest: str
    device: torch.device

    def describe(self) -> str:
        """Return a phrase about the classifier for the notes below a table."""
        return (
            # Only distances by the same classifier can be compared.
            f"features of a CIFAR-10 classifier trained here ({self.accuracy:.1%} accuracy on the "
            f"test images, SHA-256 {self.digest[:12]}), not Inception's"
        )

    def distances(self, run: Path, split: Split, limit: int | None) -> dict[str, float]:
        """Return Fréchet distances to the true images of a split.

        Returns one for "generated" images of the run, one for "grey" images and one for
        images in the "median" colour. limit: number of images (None: all).
        Raises UserError if the network cannot be loaded.
        """
        generator, recipe, _ = load_generator(run)
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
        moments: dict[str, Moments] = {}
        count = min(len(split), limit or len(split))
        for start in range(0, count, _FEATURE_BATCH):
            stored = split.read(range(start, min(start + _FEATURE_BATCH, count)))
            lab = stored_to_lab(torch.from_numpy(stored).to(self.device))
            for name, make in versions.items():
                batch = Moments.of(self.features(make(lab, start)))
                moments[name] = moments[name] + batch if name in moments else batch
        truth = moments.pop("truth")
        return {name: fid(truth, version) for name, version in moments.items()}

    @torch.no_grad()
    def features(self, lab: Tensor) -> np.ndarray:
        """Return the features of images, (B, D) float32.

        lab: (B, 3, H, W) in CIELAB units.
        """
        return self.network.features(lab_to_rgb(lab)).cpu().numpy()


def load_or_train(source: Path, path: Path, images: int) -> FeatureClassifier:
    """Return the classifier saved in the file `path`; if there is none, train it first.

    source: folder of CIFAR-10; images: number of images to train on, drawn with
    repetition. Raises UserError if a saved classifier is damaged.
    """
    device = default_device()
    record = path.with_suffix(".json")
    if not record.is_file():
        training_images, labels = read_labelled(source, "data_batch")
        network = train_classifier(training_images, labels, images, device)
        weights = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
        test_accuracy = accuracy(network, *read_labelled(source, "test_batch"))
        write_atomic(path, save(weights))
        facts = {"accuracy": test_accuracy, "sha256": sha256_of(path), "images": images}
        write_atomic(record, json.dumps(facts, indent=1).encode() + b"\n")
    return load_classifier(path, device)


def load_classifier(path: Path, device: torch.device | str = "cpu") -> FeatureClassifier:
    """Return the classifier that `load_or_train` saved in the file `path`.

    Raises UserError if the file of the weights was changed.
    """
    record = path.with_suffix(".json")
    advice = f"remove it and {path} to train the classifier again"
    facts, digest = read_json(record, _Facts, advice), sha256_of(path)
    if digest != facts["sha256"]:
        raise UserError(
            f"{path} differs from its record {path.with_suffix('.json')}: "
            "remove both to train the classifier again"
        )
    network = Classifier()
    network.load_state_dict(load_file(path))
    device = torch.device(device)
    return FeatureClassifier(network.to(device).eval(), facts["accuracy"], digest, device)


def read_labelled(source: Path, prefix: str) -> tuple[Tensor, Tensor]:
    """Return the images, (N, 3, 32, 32) uint8, and labels, (N,) int64, of CIFAR-10.

    source: folder of the batch files; prefix: what the names of the files to read start
    with, such as "data_batch".
    """
    files = [path for path in find_batches(source) if path.name.startswith(prefix)]
    pixels, labels = zip(*map(load_labelled, files), strict=True)
    images = torch.from_numpy(np.concatenate(pixels).reshape(-1, 3, SIDE, SIDE))
    return images, torch.from_numpy(np.concatenate(labels))


def train_classifier(
    images: Tensor, labels: Tensor, num_images: int, device: torch.device
) -> Classifier:
    """Return a classifier, trained on `num_images` random images with augmentation.

    images: (N, 3, H, W) uint8, from which they are drawn with repetition; labels: (N,)
    int64.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = Classifier().to(device).train()
        steps = max(1, num_images // _BATCH)
        sgd = torch.optim.SGD(
            network.parameters(), lr=_MAX_LR, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        label = "training the feature classifier"
        with ProgressLine(label, steps * _BATCH, "images") as progress:
            for step in range(steps):
                sgd.param_groups[0]["lr"] = _MAX_LR * min(
                    4 * (step + 1) / steps, 4 / 3 * (1 - step / steps)
                )
                chosen = torch.randint(len(images), (_BATCH,))
                augmented = augment(images[chosen].to(device).float() / 255)
                F.cross_entropy(
                    network(augmented), labels[chosen].to(device), label_smoothing=0.05
                ).backward()
                sgd.step()
                sgd.zero_grad()
                progress.advance_to((step + 1) * _BATCH)
    return network.eval()


def augment(rgb: Tensor) -> Tensor:
    """Shift images randomly by up to 3 pixels, and flip them with probability 0.5.

    rgb: (B, 3, H, W), all shifted and flipped alike.
    """
    shifts = 2 * _MAX_SHIFT + 1
    left, top, flipped = (int(torch.randint(n, ())) for n in (shifts, shifts, 2))
    height, width = rgb.shape[-2:]
    padded = F.pad(rgb, (_MAX_SHIFT,) * 4, mode="reflect")
    shifted = padded[..., top : top + height, left : left + width]
    return shifted.flip(-1) if flipped else shifted


@torch.no_grad()
def accuracy(network: Classifier, images: Tensor, labels: Tensor) -> float:
    """Return the fraction of images that the classifier labels correctly, in [0, 1].

    images: (N, 3, H, W) uint8; labels: (N,) int64.
    """
    device = next(network.parameters()).device
    correct = [
        (network(some.to(device).float() / 255).argmax(1).cpu() == names).sum().item()
        for some, names in zip(images.split(500), labels.split(500), strict=True)
    ]
    return sum(correct) / len(labels)
