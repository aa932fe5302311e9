"""Checkpoints that are either whole or not there, in safetensors and JSON: no pickle on any path.

RUN/checkpoints/step-000001000/generator.safetensors  critic.safetensors  ema.safetensors
                               generator_adam.safetensors  critic_adam.safetensors
                               recipe.json  trainer.json  MANIFEST.json (size and SHA-256 of each, written last)
RUN/checkpoints/best.json      which step was best by the metric of `keep_best`
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from colortrain.recipe import Recipe, load_recipe, save_recipe
from colortrain.runs.layout import (
    MANIFEST,
    TRAINER_STATE,
    best_file,
    checkpoint_folder,
    checkpoint_steps,
    checkpoints_folder,
    recipe_file,
)
from shards.errors import UserError
from shards.files import fsync_folder, open_atomic, sha256_of, write_atomic

FORMAT = 1  # of the folder: files, their names and the names inside them
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

Tensors = Mapping[str, Tensor]
Step = int | Literal["best"] | None  # which checkpoint: of that step, the best, or the newest


def save_checkpoint(
    run: Path, step: int, parts: Mapping[str, Tensors], recipe: Recipe, state: dict[str, Any]
) -> Path:
    """Write one checkpoint: temporary folder, fsync, manifest last, rename.

    `parts`: file stem -> tensors by name; `state`: what JSON can hold. An existing checkpoint of that step stays.
    """
    final = checkpoint_folder(run, step)
    if is_intact(final):
        return final
    temporary = final.with_name(f"{final.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for name, tensors in parts.items():
            _save_tensors(tensors, temporary / f"{name}.safetensors")
        save_recipe(recipe, recipe_file(temporary))
        document = {"format": FORMAT, "step": step, **state}
        write_atomic(temporary / TRAINER_STATE, json.dumps(document, indent=1).encode())
        _seal(temporary)
        shutil.rmtree(final, ignore_errors=True)  # a wreck of the same step
        temporary.rename(final)
        fsync_folder(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _save_tensors(tensors: Tensors, path: Path) -> None:
    with open_atomic(path) as stream:
        write_tensors(
            stream, {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        )


def write_tensors(stream: BinaryIO, tensors: Tensors) -> None:
    """Write CPU tensors in the safetensors format, straight from their memory.

    The library would copy each twice while it holds the interpreter, and the training beside this thread with it.
    """
    # wide elements first, so that each begins at a multiple of its width
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        start, end = end, end + tensors[name].nbytes
        shape = list(tensors[name].shape)
        header[name] = {
            "dtype": _DTYPES[tensors[name].dtype],
            "shape": shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        stream.write(tensors[name].view(-1).view(torch.uint8).numpy().data)


def _seal(folder: Path) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
    }
    write_atomic(folder / MANIFEST, json.dumps(files, indent=1).encode())


def is_intact(folder: Path) -> bool:
    """Whether a checkpoint's files are all there with the sizes and hashes of its manifest."""
    try:
        files = json.loads((folder / MANIFEST).read_text())
        return all(
            (folder / name).stat().st_size == entry["bytes"]
            and sha256_of(folder / name) == entry["sha256"]
            for name, entry in files.items()
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return False  # other errors of the file system are no proof of damage: they end the run


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint that is whole, None where there are none; warns about newer ones that are not.

    Raises `UserError` if there are checkpoints and none is whole: starting again would wipe the run's history.
    """
    steps = checkpoint_steps(run)
    for step in reversed(steps):
        folder = checkpoint_folder(run, step)
        if is_intact(folder):
            return folder
        warnings.warn(
            f"{folder} is damaged, falling back to the checkpoint before it", stacklevel=2
        )
    if steps:
        raise UserError(
            f"{checkpoints_folder(run)}: all are damaged; restore one, or delete that folder to start from step 0"
        )
    return None


def load_part(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint, on the CPU."""
    path = folder / f"{name}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None


def load_state(folder: Path) -> dict[str, Any]:
    """What `trainer.json` holds: step, images, dataset_id and the like; raises `UserError` for another format."""
    state = json.loads((folder / TRAINER_STATE).read_text())
    assert isinstance(state, dict)
    found = state.get("format", FORMAT)  # the first ones did not say
    if found != FORMAT:
        raise UserError(
            f"{folder} is of checkpoint format {found}, this version reads {FORMAT}: use the version that wrote it"
        )
    return state


def adam_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """An Adam's state by parameter name: "exp_avg.encoder.0.conv.weight" and so on."""
    tensors = {}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}.{name}"] = torch.as_tensor(value)
    return tensors


def load_adam(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Tensors) -> None:
    """Put back what `adam_tensors` took, on each parameter's device and in its memory layout."""
    fused = bool(
        optimizer.defaults.get("fused")
    )  # it counts steps beside the parameters, the others on the CPU
    for name, parameter in module.named_parameters():
        for kind in ("step", "exp_avg", "exp_avg_sq"):
            value = tensors.get(f"{kind}.{name}")
            if value is not None and kind == "step":
                optimizer.state[parameter][kind] = value.to(parameter.device if fused else "cpu")
            elif value is not None:
                optimizer.state[parameter][kind] = torch.empty_like(
                    parameter, dtype=value.dtype
                ).copy_(value)


def find_checkpoint(run: Path, step: Step = None) -> Path:
    """The folder of a whole checkpoint: the newest, the best or that of a step; raises `UserError` if there is none."""
    if step == "best":
        step = best_step(run)
    folder = latest_checkpoint(run) if step is None else checkpoint_folder(run, step)
    if folder is None or not is_intact(folder):
        steps = ", ".join(map(str, checkpoint_steps(run))) or "none"
        asked = "no checkpoint" if step is None else f"no whole checkpoint of step {step}"
        raise UserError(
            f"{run}: {asked} (steps found: {steps}); give the folder that launch.train wrote as --run"
        )
    return folder


def best_step(run: Path) -> int:
    """The step that `best.json` names."""
    try:
        return int(json.loads((best_file(run)).read_text())["step"])
    except FileNotFoundError:
        raise UserError(
            f"{run} has no best checkpoint: train it with --set keep_best=l1, or name a step"
        ) from None


def weights_part(folder: Path, ema: bool = True) -> str:
    """Which file of a checkpoint holds the generator to use: the averaged one where there is one and `ema` is true."""
    return "ema" if ema and (folder / "ema.safetensors").is_file() else "generator"


def load_generator(
    run: Path, *, step: Step = None, ema: bool = True
) -> tuple[nn.Module, Recipe, int]:
    """The trained generator of a run (in eval mode, on the CPU), its recipe and its step.

    The newest whole checkpoint, the best by `keep_best`, or that of `step`; the averaged weights where there are any
    and `ema` is true.
    """
    folder = find_checkpoint(Path(run), step)
    reached = load_state(folder)["step"]
    recipe = load_recipe(recipe_file(folder))
    generator = recipe.generator.build()
    load_weights(generator, folder, weights_part(folder, ema))
    return generator.eval(), recipe, reached


def load_weights(network: nn.Module, folder: Path, part: str) -> None:
    """Give a network the weights of a checkpoint's part; raises `UserError` if it is another network's."""
    try:
        network.load_state_dict(load_part(folder, part))
    except RuntimeError as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise UserError(
            f"{folder}: the weights do not fit its recipe ({reason}); if an earlier version of colortrain wrote them, "
            "use that one, or train again"
        ) from None
