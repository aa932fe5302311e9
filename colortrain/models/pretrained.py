"""Pretrained weights: published files, downloaded by name, or a user's file.

Files are loaded without executing pickled code.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from shards.errors import UserError
from shards.files import sha256_of
from shards.locks import locks_unsupported, warn_unsupported

# of ImageNet's RGB in [0, 1], with which torchvision's weights were trained
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@runtime_checkable
class Pretrainable(Protocol):
    """Protocol of a network's config that names pretrained weights to start from.

    The trainer loads these weights when a new run starts.
    """

    # build() never loads them: checkpoints, dry runs and exports do not require the
    # files
    def pretrain(self, network: nn.Module) -> None:
        """Load the pretrained weights into `network`, which was made by `build`.

        Raises UserError if the weights cannot be loaded.
        """


@dataclass(frozen=True)
class PublishedWeights:
    """A file with a state dict that can be downloaded from `url`.

    The file's name ends in the first digits of its SHA-256.
    """

    url: str

    @property
    def file(self) -> Path:
        """The path at which torch.hub stores the downloaded file."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rpartition("/")[2]

    @property
    def hash_prefix(self) -> str:
        """The first digits of the file's SHA-256, which are the end of its name."""
        return self.file.stem.rpartition("-")[2]


# ResNet-18, VGG-16 and SqueezeNet 1.1: torchvision's IMAGENET1K_V1
RESNET18 = PublishedWeights("https://download.pytorch.org/models/resnet18-f37072fd.pth")
VGG16 = PublishedWeights("https://download.pytorch.org/models/vgg16-397923af.pth")
SQUEEZENET = PublishedWeights("https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth")
# TensorFlow's weights of 2015-12-05, converted by torch-fidelity
INCEPTION = PublishedWeights(
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)


def load_weights(name: str, published: PublishedWeights, alternative: str) -> dict[str, Tensor]:
    """Return pretrained weights as a state dict on the CPU.

    `name` is "imagenet", for the file `published` (downloaded once), or the path of a
    .safetensors or .pth file. Raises UserError if the weights cannot be downloaded or
    read; `alternative` is the advice at the end of its message.
    """
    return (
        _download(published, alternative) if name == "imagenet" else _read(Path(name), alternative)
    )


def _download(published: PublishedWeights, alternative: str) -> dict[str, Tensor]:
    file = published.file
    # no lock where the file exists: a shared cache may be read-only
    with nullcontext() if file.is_file() else _exclusive_lock(file, alternative):
        if file.is_file() and not sha256_of(file).startswith(published.hash_prefix):
            raise UserError(
                f"{file} is damaged: its SHA-256 does not begin with {published.hash_prefix}; "
                "delete the file, to download it again"
            )
        try:
            return torch.hub.load_state_dict_from_url(
                published.url,
                map_location="cpu",
                progress=False,
                check_hash=True,
                weights_only=True,
            )
        # no network, or a download with another SHA-256
        except (OSError, RuntimeError, HTTPException) as error:
            raise UserError(
                f"cannot download {file.name} ({_first_line(error)}): "
                f"put the file into {file.parent}, or {alternative}"
            ) from None


@contextmanager
def _exclusive_lock(file: Path, alternative: str) -> Iterator[None]:
    """Hold this machine's lock for downloading `file` inside the `with` block.

    Where the file system does not support locks, continues without one. Raises
    UserError, with the advice `alternative`, if nothing can be written next to `file`.
    """
    path = file.with_name(f".{file.name}.lock")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise UserError(
            f"cannot download {file.name} to {file.parent} ({error.strerror}): "
            f"set TORCH_HOME to a folder that can be written to, or {alternative}"
        ) from None
    try:
        _wait_for_lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if not locks_unsupported(error):
            error.filename = str(path)
            raise
        # Each of several processes downloads a file of its own and renames it.
        risk = "several processes may download the file at the same time"
        warn_unsupported(path, error.strerror or str(error), risk)


def _read(path: Path, alternative: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(
            f"no weights file {path}: give imagenet or the path of a .safetensors or .pth file, "
            f"or {alternative}"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # which class depends on how the file is damaged
        raise UserError(
            f"cannot load weights safely from {path} ({_first_line(error)}): "
            f"give another file, or {alternative}"
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def load_matching(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict into `module`; ignore tensors that the module does not have.

    `where` names the source of the state dict in messages. Raises UserError if a tensor
    of `module` is missing or has another shape.
    """
    own = module.state_dict()
    # published files are older than BatchNorm's counters num_batches_tracked
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise UserError(
            f"{where} lacks {len(missing)} of {len(needed)} tensors, the first is {missing[0]}: "
            "give weights of the same architecture"
        )
    mismatched = [
        name for name in own if name in tensors and tensors[name].shape != own[name].shape
    ]
    if mismatched:
        name = mismatched[0]
        raise UserError(
            f"{where}: {name} has shape {tuple(tensors[name].shape)}, "
            f"the network expects {tuple(own[name].shape)}: give weights of the same architecture"
        )
    module.load_state_dict({name: tensors[name] for name in own if name in tensors}, strict=False)
