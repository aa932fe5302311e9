"""Load a trained network from a run or an exported folder, and colorize photographs.

    network = colortrain.load("runs/first")
    coloured = network.colorize(photograph)

An exported folder, from `colortrain export`, contains model.safetensors and
config.json.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import nn

from colortrain.lab import Codec
from colortrain.metrics.evaluate import generate
from colortrain.models.memory import build_network
from colortrain.models.registry import GeneratorConfig
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.recipe import Recipe
from colortrain.runs.checkpoint import Part, Step, load_weights, read_generator, write_tensors
from colortrain.runs.layout import checkpoints_folder
from colortrain.serialize import from_plain, to_plain
from colortrain.visualize import recolor
from shards.color import rgb_to_lab
from shards.errors import UserError
from shards.files import open_atomic, sha256_of, write_atomic
from shards.json_files import parse_json
from shards.sources.decode import fit_image, to_rgb

FORMAT = 1  # version of an exported folder: its files and their fields
CONFIG, MODEL = "config.json", "model"


@dataclass(frozen=True, kw_only=True)
class Description:
    """A network's architecture and how it was trained: the fields of config.json."""

    recipe: str  # name of the recipe
    size: int  # pixels, height and width of the training images
    generator: GeneratorConfig
    codec: Codec
    test_dropout: bool  # keep dropout on when generating (Isola et al. 2017, section 3.2)
    weights: Part  # "ema": averaged over training; "generator": of the last step
    step: int
    images: int  # number of images seen in training
    dataset_id: str


def describe(recipe: Recipe, state: dict[str, Any], weights: Part) -> Description:
    """Return the description of a checkpoint's network.

    `state` is the content of the checkpoint's trainer.json; `weights` says which of its
    weights are used.
    """
    generator = recipe.generator
    if isinstance(generator, ResNet18UNetConfig):  # trained weights replace the initial ones
        generator = dataclasses.replace(generator, pretrained=None)
    return Description(
        recipe=recipe.name,
        size=recipe.size,
        generator=generator,
        codec=recipe.codec,
        weights=weights,
        test_dropout=recipe.test_dropout,
        step=state["step"],
        images=state.get("images", 0),
        dataset_id=state.get("dataset_id", ""),
    )


class Colorizer:
    """A trained generator, in eval mode, that colorizes photographs of any size."""

    def __init__(self, generator: nn.Module, description: Description) -> None:
        self.generator, self.description = generator.eval(), description

    @property
    def device(self) -> torch.device:
        """The device that the network's parameters are on."""
        return next(self.generator.parameters()).device

    def to(self, device: torch.device | str) -> Colorizer:
        """Move the network to a device and return this object."""
        self.generator.to(device)
        return self

    @overload
    def colorize(
        self, photograph: np.ndarray, *, dropout: bool | None = None, seed: int = 0
    ) -> np.ndarray: ...
    @overload
    def colorize(
        self, photograph: Image.Image, *, dropout: bool | None = None, seed: int = 0
    ) -> Image.Image: ...
    def colorize(
        self, photograph: np.ndarray | Image.Image, *, dropout: bool | None = None, seed: int = 0
    ) -> np.ndarray | Image.Image:
        """Return a photograph with generated colours, at its own resolution.

        photograph: (H, W, 3) uint8 sRGB, (H, W) uint8 grayscale, or a PIL image of any
        mode. The result is (H, W, 3) uint8 sRGB for an array, an RGB image for a PIL
        image.

        `dropout` says whether dropout layers are active; None means as in the recipe.
        `seed` determines the dropout masks. Raises ValueError for arrays of another
        shape or type.
        """
        if isinstance(photograph, Image.Image):
            # rotates it upright by its EXIF orientation; transparent parts become white
            image = to_rgb(photograph)
            (ab,) = self.predict_ab([image], dropout=dropout, seed=seed)
            rgb = np.array(image)
            recolor(rgb, ab)
            return Image.fromarray(rgb)
        # Pillow's copy, 4 bytes per pixel, is freed before the colours are applied.
        (ab,) = self.predict_ab([_image_of(photograph)], dropout=dropout, seed=seed)
        rgb = np.array(photograph) if photograph.ndim == 3 else np.stack([photograph] * 3, axis=2)
        recolor(rgb, ab)
        return rgb

    def predict_ab(
        self, images: Sequence[Image.Image], *, dropout: bool | None = None, seed: int = 0
    ) -> np.ndarray:
        """Return generated a and b for RGB images, at the network's image size.

        The images are resized to squares, whatever their aspect ratio. The result is
        (B, 2, size, size) float32 in CIELAB units. `dropout` and `seed` are as in
        `colorize`.
        """
        description = self.description
        squares = [fit_image(image, description.size, "squash") for image in images]
        pixels = np.stack([rgb_to_lab(np.asarray(square)) for square in squares])
        lab = torch.from_numpy(pixels).to(self.device)
        dropout = description.test_dropout if dropout is None else dropout
        coloured = generate(self.generator, description.codec, lab, dropout=dropout, seed=seed)
        return coloured[:, 1:].cpu().numpy()

    def fingerprint(self) -> str:
        """Return 64 hexadecimal digits that identify weights and description."""
        # the same digits for a checkpoint of a run and for its export
        document = json.dumps(to_plain(self.description), sort_keys=True)
        digest = hashlib.sha256(document.encode())
        for name, value in sorted(self.generator.state_dict().items()):
            array = value.detach().cpu().contiguous().numpy()
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def save(self, folder: Path | str) -> None:
        """Write the network to a folder that `load` reads."""
        folder = Path(folder)
        tensors = {
            name: value.detach().cpu().contiguous()
            for name, value in self.generator.state_dict().items()
        }
        with open_atomic(folder / f"{MODEL}.safetensors") as stream:
            write_tensors(stream, tensors)
        digest = sha256_of(folder / f"{MODEL}.safetensors")
        document = {
            "library": "colortrain",
            "format": FORMAT,
            "sha256": digest,
            **to_plain(self.description),
        }
        document.pop("type")
        write_atomic(folder / CONFIG, json.dumps(document, indent=1).encode() + b"\n")


def _image_of(photograph: np.ndarray) -> Image.Image:
    if (
        not isinstance(photograph, np.ndarray)
        or photograph.dtype != np.uint8
        or photograph.ndim not in (2, 3)
    ):
        is_array = isinstance(photograph, np.ndarray)
        got = f"{photograph.dtype} {photograph.shape}" if is_array else type(photograph).__name__
        raise ValueError(
            f"a photograph must be uint8 (H, W, 3) or (H, W), or a PIL image; got {got}"
        )
    if photograph.size == 0 or (photograph.ndim == 3 and photograph.shape[2] != 3):
        raise ValueError(
            f"a photograph must be uint8 (H, W, 3) or (H, W), not empty; got {photograph.shape}"
        )
    image = Image.fromarray(np.ascontiguousarray(photograph))
    return image if image.mode == "RGB" else image.convert("RGB")


def load(
    folder: Path | str,
    *,
    checkpoint: Step = None,
    ema: bool = True,
    device: torch.device | str = "cpu",
) -> Colorizer:
    """Return the network of a run, or of a folder written by `colortrain export`.

    For a run, `checkpoint` is a step, "best" (by the recipe's `keep_best`) or None (the
    newest intact one). With `ema`, the averaged weights are used if the checkpoint has
    them. Raises UserError if the folder does not contain the requested network.
    """
    folder = Path(folder)
    if (folder / CONFIG).is_file():
        network = _load_exported(folder)
        if checkpoint is not None or (not ema and network.description.weights == "ema"):
            raise UserError(
                f"{folder} is an exported folder with a single network: "
                "choose checkpoint and ema when exporting"
            )
    elif checkpoints_folder(folder).is_dir():
        network, _ = load_run(folder, checkpoint, ema)
    else:
        raise UserError(
            f"{folder} contains no network: give a run of `colortrain train` or a folder "
            "written by `colortrain export`"
        )
    return network.to(device)


def load_run(run: Path, checkpoint: Step, ema: bool) -> tuple[Colorizer, Recipe]:
    """Return the network of a run's checkpoint, and the recipe of the checkpoint.

    `checkpoint` and `ema` are as in `load`. Raises UserError if the checkpoint does not
    exist or cannot be read.
    """
    saved = read_generator(run, checkpoint, ema)
    description = describe(saved.recipe, saved.state, saved.part)
    return Colorizer(saved.build(description.generator), description), saved.recipe


def _load_exported(folder: Path) -> Colorizer:
    config = folder / CONFIG
    try:
        document = parse_json(config.read_bytes())
        library, version, digest = (document.pop(name) for name in ("library", "format", "sha256"))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(
            f"{config} was not written by `colortrain export`: give an exported folder, or a run"
        ) from None
    if (library, version) != ("colortrain", FORMAT):
        raise UserError(
            f"{config} has {library} format {version}, but this version reads format {FORMAT}: "
            "export the run again"
        )
    description = from_plain(Description, document, str(config))
    assert isinstance(description, Description)
    weights = folder / f"{MODEL}.safetensors"
    if not weights.is_file() or sha256_of(weights) != digest:
        raise UserError(
            f"{weights} is missing or damaged (its SHA-256 differs from the one in config.json): "
            "export the run again"
        )
    generator = build_network(description.generator)
    load_weights(generator, folder, MODEL)
    return Colorizer(generator, description)
