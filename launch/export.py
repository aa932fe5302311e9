"""Take a trained network out of its run: a folder that `colortrain.load` reads, ONNX, the Hugging Face Hub.

python -m launch.export --run runs/first --out exported --onnx exported/model.onnx
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from colortrain.inference.colorizer import CONFIG, MODEL, Colorizer, load
from colortrain.inference.model_card import is_model_card, model_card
from colortrain.inference.onnx import OPSET, TOLERANCE, export_onnx
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.recipe import Recipe, load_recipe, save_recipe
from colortrain.runs.checkpoint import find_checkpoint
from colortrain.runs.history import read_document
from colortrain.runs.layout import RECIPE, step_of
from launch.cli import CommandParser
from launch.network_options import add_weight_arguments
from shards.errors import UserError, run_command
from shards.files import write_atomic

_EXAMPLE = """\
OUT then holds model.safetensors, config.json, recipe.json and README.md, a model card filled from the run.
ONNX takes L (batch, 1, height, width) in [0, 100] and gives ab in CIELAB units; dropout is off there.
example: a folder for two lines of Python, and ONNX beside it
  python -m launch.export --run runs/first --out exported --onnx exported/model.onnx
  python -c 'import colortrain; print(colortrain.load("exported").description)'
"""
# What an upload fails with; the first are of requests, httpx or httpx2: each version of the library has its own client.
_FAILURES: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, ValueError, OSError)
CARD = "README.md"
FILES = (RECIPE, CARD, f"{MODEL}.safetensors", CONFIG)  # in the order in which they are written


def parser() -> argparse.ArgumentParser:
    """The words this door understands."""
    words = CommandParser("launch.export", "Take a trained network out of its run.", _EXAMPLE)
    words.add_argument("--run", required=True, type=Path, help="folder that launch.train wrote")
    words.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for safetensors, config and model card"
    )
    words.add_argument(
        "--onnx", type=Path, metavar="FILE.onnx", help=f"also as ONNX, opset {OPSET}, any size"
    )
    add_weight_arguments(words)
    words.add_argument(
        "--push", metavar="NAME", help="also to the Hugging Face Hub, for instance me/old-photos"
    )
    words.add_argument(
        "--private", action="store_true", help="with --push: a repository that only you see"
    )
    words.add_argument("--force", action="store_true", help="overwrite an earlier export")
    return words


def check(arguments: argparse.Namespace) -> None:
    """Raise `UserError` for what could not be done or would overwrite something, before any work."""
    out, onnx = arguments.out, arguments.onnx
    if out is None and onnx is None:
        raise UserError("nothing to write: give --out DIR or --onnx FILE.onnx")
    if onnx is not None and onnx.suffix.lower() != ".onnx":
        raise UserError(f"--onnx {onnx}: give a name that ends in .onnx")
    if onnx is not None and onnx.exists() and not arguments.force:
        raise UserError(f"{onnx} exists: choose another name, or give --force")
    if out is not None:
        _check_folder(out, arguments.force)
    if arguments.push is not None:
        _check_push(arguments)


def _check_folder(out: Path, force: bool) -> None:
    ours = read_document(out / CONFIG).get("library") == "colortrain" or _is_unfinished(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not ours):
        raise UserError(f"{out} holds something else than an export: choose another --out")
    if ours and not force:
        raise UserError(f"{out} holds an export already: choose another --out, or give --force")


def _is_unfinished(out: Path) -> bool:
    """Whether a folder holds what a killed export left, which began with its recipe, and nothing else."""
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    temporary = tuple(f".{name}." for name in FILES)
    own = (
        name in FILES[:-1] or (name.startswith(temporary) and name.endswith(".tmp"))
        for name in names
    )
    card = out / CARD
    return (
        all(own)
        and any(RECIPE in name for name in names)
        and (not card.exists() or is_model_card(card.read_text()))
    )


def _check_push(arguments: argparse.Namespace) -> None:
    if arguments.out is None:
        raise UserError("--push sends what --out DIR holds: give that too")
    try:
        validate_repo_id(arguments.push)
    except HFValidationError as error:
        raise UserError(f"--push {arguments.push}: {str(error).splitlines()[0]}") from None
    if get_token() is None:
        raise UserError(
            "--push needs a token of huggingface.co: run `hf auth login`, or set HF_TOKEN"
        )


def write_folder(network: Colorizer, recipe: Recipe, run: Path, out: Path, name: str) -> None:
    """Write an export's files, config.json last."""
    save_recipe(without_paths(recipe), out / RECIPE)
    write_atomic(out / CARD, model_card(name, network, recipe, run).encode())
    network.save(out)


def without_paths(recipe: Recipe) -> Recipe:
    """The recipe as it may be shown to others: a file that its encoder began with is named, its folder is not."""
    generator = recipe.generator
    if isinstance(generator, ResNet18UNetConfig) and generator.pretrained:
        generator = dataclasses.replace(generator, pretrained=Path(generator.pretrained).name)
    return dataclasses.replace(recipe, generator=generator)


def push(out: Path, name: str, onnx: Path | None, private: bool) -> str:
    """Send an export's own files, and no others that lie there, to the Hub; returns the address."""
    files = [*FILES]
    if onnx is not None and onnx.resolve().parent == out.resolve():
        files.append(onnx.name)
    api = HfApi()
    try:
        address = api.create_repo(name, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=out,
            allow_patterns=files,
            commit_message="Export from colortrain",
        )
    except _FAILURES as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"the Hub did not take {name} ({reason}); {out} is complete") from None
    return str(address)


def main(argv: Sequence[str] | None = None) -> int:
    """Export; returns the exit status."""
    arguments = parser().parse_args(argv)
    check(arguments)
    folder = find_checkpoint(
        arguments.run, arguments.checkpoint
    )  # once: a run that trains on writes new ones
    recipe = load_recipe(folder / RECIPE)
    network = load(arguments.run, checkpoint=step_of(folder), ema=arguments.ema)
    about = network.description
    print(f"{about.recipe}, step {about.step:,}, {about.images:,} images, weights: {about.weights}")
    if arguments.out is not None:
        name = arguments.push or arguments.out.resolve().name
        write_folder(network, recipe, arguments.run, arguments.out, name)
        print(f"{arguments.out}: colortrain.load({str(arguments.out)!r})")
    if arguments.onnx is not None:
        found = export_onnx(network, arguments.onnx)
        print(
            f"{arguments.onnx}: opset {OPSET}, off PyTorch by {found:.1e} of ab / 110 (allowed: {TOLERANCE:g})"
        )
    if arguments.push is not None:
        print(push(arguments.out, arguments.push, arguments.onnx, arguments.private))
    return 0


if __name__ == "__main__":
    sys.exit(run_command("launch.export", main))
