"""A trained network ready for use: loaded from a run or an exported folder in one line, it colours photographs.

    network = colortrain.load("runs/first")
    coloured = network.colorize(photograph)

An exported folder holds model.safetensors and config.json, and is written by `Colorizer.save` (`launch.export`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import nn

from colortrain.lab import Codec
from colortrain.metrics.evaluate import generate
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.recipe import Generator, Recipe, load_recipe
from colortrain.runs.checkpoint import (
    Step,
    find_checkpoint,
    load_state,
    load_weights,
    weights_part,
    write_tensors,
)
from colortrain.runs.layout import checkpoints_folder, recipe_file
from colortrain.serialize import from_plain, to_plain
from colortrain.visualize import recolor
from shards.color import rgb_to_lab
from shards.errors import UserError
from shards.files import open_atomic, sha256_of, write_atomic
from shards.sources.decode import fit_image, to_rgb

FORMAT = 1  # of an exported folder: its files and their fields
CONFIG, MODEL = "config.json", "model"
Weights = Literal["ema", "generator"]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a trained network is, and what it has seen: the fields of config.json."""

    recipe: str  # its name
    size: int  # pixels, height and width of the pictures it learned from
    generator: Generator
    codec: Codec
    test_dropout: bool  # dropout stays on when colouring (Isola et al. 2017, section 3.2)
    weights: Weights  # the averaged ones, or the last step's
    step: int
    images: int  # seen in training
    dataset_id: str


def describe(recipe: Recipe, state: dict[str, Any], weights: Weights) -> Description:
    """The description of a run's checkpoint, from its recipe and its trainer.json."""
    generator = recipe.generator
    if isinstance(
        generator, ResNet18UNetConfig
    ):  # where training began says nothing about what was learned
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
    """A trained generator (in eval mode) with all it takes to colour a photograph of any size."""

    def __init__(self, generator: nn.Module, description: Description) -> None:
        self.generator, self.description = generator.eval(), description

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.generator.parameters()).device

    def to(self, device: torch.device | str) -> Colorizer:
        """Move the network; returns self."""
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
        """The photograph in generated colours: its own lightness at full resolution; what colours it had are ignored.

        `photograph`: uint8 sRGB (H, W, 3) or grey (H, W), or a PIL image of any mode (turned upright, transparent
        parts on white). Returns uint8 (H, W, 3), or an RGB image for an image. `dropout` None: as the recipe says;
        draws follow from `seed`. Raises `ValueError` for other arrays.
        """
        if isinstance(photograph, Image.Image):
            image = to_rgb(photograph)
            (ab,) = self.predict_ab([image], dropout=dropout, seed=seed)
            rgb = np.array(image)
            recolor(rgb, ab)
            return Image.fromarray(rgb)
        (ab,) = self.predict_ab(
            [_image_of(photograph)], dropout=dropout, seed=seed
        )  # Pillow's copy, 4 bytes a pixel, goes
        rgb = np.array(photograph) if photograph.ndim == 3 else np.stack([photograph] * 3, axis=2)
        recolor(rgb, ab)
        return rgb

    def predict_ab(
        self, images: Sequence[Image.Image], *, dropout: bool | None = None, seed: int = 0
    ) -> np.ndarray:
        """The colours given to RGB images, squashed to the size trained at: float32 (B, 2, size, size) CIELAB."""
        about = self.description
        squares = [
            rgb_to_lab(np.asarray(fit_image(image, about.size, "squash"))) for image in images
        ]
        lab = torch.from_numpy(np.stack(squares)).to(self.device)
        dropout = about.test_dropout if dropout is None else dropout
        return (
            generate(self.generator, about.codec, lab, dropout=dropout, seed=seed)[:, 1:]
            .cpu()
            .numpy()
        )

    def save(self, folder: Path | str) -> None:
        """Write model.safetensors and config.json, the latter last; `load` takes them back. Others there stay."""
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


def _image_of(picture: np.ndarray) -> Image.Image:
    if (
        not isinstance(picture, np.ndarray)
        or picture.dtype != np.uint8
        or picture.ndim not in (2, 3)
    ):
        found = (
            f"{picture.dtype} {picture.shape}"
            if isinstance(picture, np.ndarray)
            else type(picture).__name__
        )
        raise ValueError(f"a photograph is uint8 (H, W, 3) or (H, W), or a PIL image; got {found}")
    if picture.size == 0 or (picture.ndim == 3 and picture.shape[2] != 3):
        raise ValueError(
            f"a photograph is uint8 (H, W, 3) or (H, W), not empty; got {picture.shape}"
        )
    image = Image.fromarray(np.ascontiguousarray(picture))
    return image if image.mode == "RGB" else image.convert("RGB")


def load(
    folder: Path | str,
    *,
    checkpoint: Step = None,
    ema: bool = True,
    device: torch.device | str = "cpu",
) -> Colorizer:
    """The network of a run, or of a folder that `launch.export` wrote.

    Of a run: the newest whole checkpoint, the "best" by `keep_best`, or that of a step; its averaged weights where
    there are any and `ema` is true. An exported folder has one network. Raises `UserError` for what is neither.
    """
    folder = Path(folder)
    if (folder / CONFIG).is_file():
        network = _load_exported(folder)
        if checkpoint is not None or (not ema and network.description.weights == "ema"):
            raise UserError(
                f"{folder} is an export and holds one network: choose checkpoint and ema when exporting"
            )
    elif checkpoints_folder(folder).is_dir():
        network = _load_run(folder, checkpoint, ema)
    else:
        raise UserError(
            f"{folder} holds no network: give a run of launch.train or a folder of launch.export"
        )
    return network.to(device)


def _load_run(run: Path, checkpoint: Step, ema: bool) -> Colorizer:
    folder = find_checkpoint(run, checkpoint)
    weights: Weights = "ema" if weights_part(folder, ema) == "ema" else "generator"
    about = describe(load_recipe(recipe_file(folder)), load_state(folder), weights)
    return _filled(about, folder, weights)


def _load_exported(folder: Path) -> Colorizer:
    where = folder / CONFIG
    try:
        document = json.loads(where.read_text())
        library, version, digest = (document.pop(name) for name in ("library", "format", "sha256"))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(
            f"{where} is none of launch.export's: give a folder that it wrote, or a run"
        ) from None
    if (library, version) != ("colortrain", FORMAT):
        raise UserError(
            f"{where} is of {library} format {version}, this version reads {FORMAT}: export the run again"
        )
    about = from_plain(Description, document, str(where))
    assert isinstance(about, Description)
    weights = folder / f"{MODEL}.safetensors"
    if not weights.is_file() or sha256_of(weights) != digest:
        raise UserError(
            f"{weights} is missing or damaged (its SHA-256 is not config.json's): export the run again"
        )
    return _filled(about, folder, MODEL)


def _filled(about: Description, folder: Path, part: str) -> Colorizer:
    generator = about.generator.build()
    load_weights(generator, folder, part)
    return Colorizer(generator, about)
