"""Export a trained network to a folder, to ONNX, or to the Hugging Face Hub.

colortrain export --run runs/first --out exported --onnx exported/model.onnx
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

from colortrain.inference.colorizer import CONFIG, MODEL, Colorizer, load_run
from colortrain.inference.model_card import is_model_card, model_card
from colortrain.inference.onnx import OPSET, TOLERANCE, export_onnx
from colortrain.models.resnet18 import ResNet18UNetConfig
from colortrain.recipe import Recipe, save_recipe
from colortrain.runs.history import read_document
from colortrain.runs.layout import RECIPE
from launch.cli import CommandParser
from launch.network_options import add_weight_arguments
from shards.errors import UserError, run_command
from shards.files import write_atomic

_EXAMPLE = """\
The folder contains model.safetensors, config.json, recipe.json and README.md, a model card that
describes the training and the scores. The ONNX model takes L (batch, 1, height, width) in
[0, 100] and returns ab in CIELAB units, without dropout.

example: a folder that colortrain.load reads, and an ONNX model in it
  colortrain export --run runs/first --out exported --onnx exported/model.onnx
  python -c 'import colortrain; print(colortrain.load("exported").description)'
"""
# The exceptions of an upload. The first are those of requests, httpx or httpx2,
# depending on the HTTP client that the installed version of huggingface_hub uses.
_UPLOAD_ERRORS: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, ValueError, OSError)
CARD = "README.md"
FILES = (RECIPE, CARD, f"{MODEL}.safetensors", CONFIG)  # in the order in which they are written


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = CommandParser("export", "Export a trained network.", _EXAMPLE)
    parser.add_argument("--run", required=True, type=Path, metavar="DIR", help="run folder")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for weights, config and model card"
    )
    parser.add_argument(
        "--onnx",
        type=Path,
        metavar="FILE.onnx",
        help=f"also export to ONNX (opset {OPSET}, any batch and image size)",
    )
    add_weight_arguments(parser)
    parser.add_argument(
        "--push",
        metavar="NAME",
        help="also upload to this repository of the Hugging Face Hub, for example me/old-photos",
    )
    parser.add_argument(
        "--private", action="store_true", help="with --push: create a private repository"
    )
    parser.add_argument("--force", action="store_true", help="overwrite an earlier export")
    return parser


def check(args: argparse.Namespace) -> None:
    """Raise UserError if an option is invalid or a file would be overwritten."""
    out, onnx = args.out, args.onnx
    if out is None and onnx is None:
        raise UserError("nothing to write: give --out DIR or --onnx FILE.onnx")
    if onnx is not None and onnx.suffix.lower() != ".onnx":
        raise UserError(f"--onnx {onnx}: give a name that ends in .onnx")
    if onnx is not None and onnx.exists() and not args.force:
        raise UserError(f"{onnx} exists: choose another name, or give --force")
    if out is not None:
        _check_folder(out, args.force)
    if args.push is not None:
        _check_push(args)


def _check_folder(out: Path, force: bool) -> None:
    is_export = read_document(out / CONFIG).get("library") == "colortrain" or _is_unfinished(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not is_export):
        raise UserError(f"{out} exists and is not an export: choose another --out")
    if is_export and not force:
        raise UserError(f"{out} contains an export: choose another --out, or give --force")


def _is_unfinished(out: Path) -> bool:
    """Return whether a folder contains only the files of an interrupted export."""
    # An export writes recipe.json first and config.json last; temporary files count.
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    temporary = tuple(f".{name}." for name in FILES)
    written_by_export = (
        name in FILES[:-1] or (name.startswith(temporary) and name.endswith(".tmp"))
        for name in names
    )
    card = out / CARD
    return (
        all(written_by_export)
        and any(RECIPE in name for name in names)
        and (not card.exists() or is_model_card(card.read_text(encoding="utf-8", errors="replace")))
    )


def _check_push(args: argparse.Namespace) -> None:
    if args.out is None:
        raise UserError("--push uploads the folder of --out: give --out DIR")
    try:
        validate_repo_id(args.push)
    except HFValidationError as error:
        raise UserError(
            f"--push {args.push} is not a valid repository name: {str(error).splitlines()[0]}"
        ) from None
    if get_token() is None:
        raise UserError(
            "--push requires a token of huggingface.co: run `hf auth login`, or set HF_TOKEN"
        )


def write_folder(network: Colorizer, recipe: Recipe, run: Path, out: Path, name: str) -> None:
    """Write weights, config, recipe and model card of a network to the folder `out`.

    name: title of the model card.
    """
    save_recipe(without_paths(recipe), out / RECIPE)
    write_atomic(
        out / CARD, model_card(name, network, recipe, run).encode(errors="backslashreplace")
    )
    # config.json comes last: a folder that contains it is complete.
    network.save(out)


def without_paths(recipe: Recipe) -> Recipe:
    """Return the recipe with only the file name in the path of pretrained weights."""
    # An exported recipe should not contain folders of the machine that trained it.
    generator = recipe.generator
    if isinstance(generator, ResNet18UNetConfig) and generator.pretrained:
        generator = dataclasses.replace(generator, pretrained=Path(generator.pretrained).name)
    return dataclasses.replace(recipe, generator=generator)


def push(out: Path, name: str, onnx: Path | None, private: bool) -> str:
    """Upload an export to the Hugging Face Hub and return the URL of the repository.

    out: folder of the export; name: name of the repository; onnx: also uploaded if it
    is in that folder. Raises UserError if the Hub cannot be reached or refuses the
    upload.
    """
    files = [*FILES]
    if onnx is not None and onnx.resolve().parent == out.resolve():
        files.append(onnx.name)
    api = HfApi()
    try:
        url = api.create_repo(name, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=out,
            allow_patterns=files,
            commit_message="Export from colortrain",
        )
    except _UPLOAD_ERRORS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"uploading {name} to the Hub failed ({reason}); the export in {out} is complete"
        ) from None
    return str(url)


def main(argv: Sequence[str] | None = None) -> int:
    """Export the network as the options say, and return the exit status."""
    args = make_parser().parse_args(argv)
    check(args)
    network, recipe = load_run(args.run, args.checkpoint, args.ema)
    about = network.description
    lines = [
        f"{about.recipe}, step {about.step:,}, {about.images:,} images, weights: {about.weights}"
    ]
    if args.out is not None:
        name = args.push or args.out.resolve().name
        write_folder(network, recipe, args.run, args.out, name)
        lines.append(f"{args.out}: load with colortrain.load({str(args.out)!r})")
    if args.onnx is not None:
        error = export_onnx(network, args.onnx)
        lines.append(
            f"{args.onnx}: opset {OPSET}, largest difference from PyTorch {error:.1e} of ab / 110 "
            f"(allowed: {TOLERANCE:g})"
        )
    print("\n".join(lines))
    if args.push is not None:
        print(push(args.out, args.push, args.onnx, args.private))
    return 0


if __name__ == "__main__":
    sys.exit(run_command("export", main))
