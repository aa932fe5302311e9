"""Weights that others trained: torchvision's published files by name, or a file of the user's; nothing is unpickled.

Only a fresh run asks for them: `config.build()` never does, so that a checkpoint, a dry run or an export needs none.
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


@runtime_checkable
class Pretrainable(Protocol):
    """A network's config that knows of weights to start from; the trainer asks for them where a run begins."""

    def pretrain(self, network: nn.Module) -> None:
        """Load the weights into `network`, which `build()` made; raises `UserError` if they cannot be had."""


@dataclass(frozen=True)
class Published:
    """A state dict on the web; its name ends in the first digits of its SHA-256, as torchvision names its files."""

    url: str

    @property
    def file(self) -> Path:
        """Where torch.hub keeps it."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rpartition("/")[2]

    @property
    def digits(self) -> str:
        """The digits its SHA-256 begins with."""
        return self.file.stem.rpartition("-")[2]


RESNET18 = Published("https://download.pytorch.org/models/resnet18-f37072fd.pth")  # IMAGENET1K_V1
INCEPTION = Published(  # TensorFlow's of 2015-12-05, as torch-fidelity converted them
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
VGG16 = Published("https://download.pytorch.org/models/vgg16-397923af.pth")  # IMAGENET1K_V1


def load_weights(name: str, published: Published, without: str) -> dict[str, Tensor]:
    """The tensors of `name`: "imagenet" (`published`, downloaded once), or the path of a .safetensors or .pth file.

    `without` is what an error tells to write in order to do without them. Raises `UserError`.
    """
    return _fetch(published, without) if name == "imagenet" else _read(Path(name), without)


def _fetch(published: Published, without: str) -> dict[str, Tensor]:
    file = published.file
    with nullcontext() if file.is_file() else _turns(file):  # a shared cache may be read-only
        if file.is_file() and not sha256_of(file).startswith(published.digits):
            raise UserError(
                f"{file} is damaged: its SHA-256 does not begin with {published.digits}; delete the file"
            )
        try:
            return torch.hub.load_state_dict_from_url(
                published.url,
                map_location="cpu",
                progress=False,
                check_hash=True,
                weights_only=True,
            )
        except (
            OSError,
            RuntimeError,
            HTTPException,
        ) as error:  # no network; a download that is not what it should be
            raise UserError(
                f"cannot download {file.name} ({_first_line(error)}): put the file into {file.parent}, or {without}"
            ) from None


@contextmanager
def _turns(file: Path) -> Iterator[None]:
    """One process of a machine after the other, so that the first downloads for all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file.with_name(f".{file.name}.lock"), os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path, without: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(
            f"no weights file {path}: give imagenet, the path of a .safetensors or .pth file, or {without}"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in a dozen ways
        raise UserError(f"{path} holds no weights that load safely: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def fill(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load the tensors that `module` has names for; raises `UserError` naming what is missing or of another shape.

    Counters of BatchNorm may be missing: published files are older than they are.
    """
    mine = module.state_dict()
    needed = [name for name in mine if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise UserError(
            f"{where} lacks {len(missing)} of {len(needed)} tensors, {missing[0]} first"
        )
    wrong = [name for name in mine if name in tensors and tensors[name].shape != mine[name].shape]
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{where}: {name} is {tuple(tensors[name].shape)}, the network's is {tuple(mine[name].shape)}"
        )
    module.load_state_dict({name: tensors[name] for name in mine if name in tensors}, strict=False)
