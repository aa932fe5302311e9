"""Checkpoints in safetensors and JSON, without pickle, written atomically.

RUN/checkpoints/step-000001000/
    generator.safetensors  critic.safetensors  ema.safetensors
    generator_adam.safetensors  critic_adam.safetensors
    train_metrics.safetensors  losses since the last journal line, if there are any
    recipe.json  trainer.json
    MANIFEST.json              size and SHA-256 of each file; written last
RUN/checkpoints/best.json      the step with the best validation score
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypedDict, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from colortrain.models.memory import build_network
from colortrain.models.registry import GeneratorConfig
from colortrain.recipe import Recipe, load_recipe, save_recipe
from colortrain.runs.layout import (
    MANIFEST,
    RECIPE,
    TRAINER_STATE,
    best_file,
    checkpoint_folder,
    checkpoint_steps,
    checkpoints_folder,
    recipe_file,
    step_of,
)
from shards.errors import UserError
from shards.files import (
    check_utf8,
    fsync_folder,
    open_atomic,
    open_regular,
    path_below,
    read_regular,
    sha256_of,
    write_atomic,
)
from shards.json_files import check_type, parse_json, read_json

FORMAT = 1  # version of the folder: the files, their names and the keys in them
_MAX_MANIFEST_BYTES = 1 << 20
_REPLACED = ".tmp-replaced"  # suffix of a checkpoint folder while another replaces it
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

T = TypeVar("T")
Tensors = Mapping[str, Tensor]


class BestStep(TypedDict):
    """The types of the values in best.json."""

    metric: str
    step: int
    value: float
    distance: float


class _TrainerState(TypedDict):
    step: int
    images: int


class TrainerState(_TrainerState, total=False):
    """The types of the values in trainer.json."""

    dataset_id: str
    order: str
    init_from: dict[str, Any] | None
    best: BestStep | None
    validation_due: bool  # validation of this step was interrupted and must be repeated
    plateau: tuple[float | None, int, float]
    scalers: dict[str, dict[str, float]]


Part = Literal["ema", "generator"]  # the file of a generator's weights
Step = int | Literal["best"] | None  # selects a checkpoint: a step, the best, or (None) the newest


def save_checkpoint(
    run: Path, step: int, parts: Mapping[str, Tensors], recipe: Recipe, state: dict[str, Any]
) -> Path:
    """Write the checkpoint of one step of a run and return the checkpoint's folder.

    parts: file stem -> tensor name -> tensor. state: JSON values for trainer.json. An
    intact checkpoint of the same step is left as it is, unless its validation was due.
    """
    final = checkpoint_folder(run, step)
    if is_intact(final) and not load_state(final).get("validation_due"):
        return final
    temporary = final.with_name(f"{final.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    # All files are written here and fsynced, MANIFEST.json last. The folder is renamed
    # at the end, so an interrupted save leaves no incomplete checkpoint.
    temporary.mkdir(parents=True)
    try:
        for name, tensors in parts.items():
            _save_tensors(tensors, temporary / f"{name}.safetensors")
        save_recipe(recipe, recipe_file(temporary))
        document = {"format": FORMAT, "step": step, **state}
        write_atomic(temporary / TRAINER_STATE, json.dumps(document, indent=1).encode())
        _write_manifest(temporary)
        _replace(final, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _replace(final: Path, complete: Path) -> None:
    """Rename the folder `complete` to `final`, which may exist."""
    # No system call exchanges folders on every file system. If this process is killed
    # between the two renames, `restore_replaced` undoes the first one.
    replaced = final.with_name(f"{final.name}{_REPLACED}")
    if final.is_dir():
        shutil.rmtree(replaced, ignore_errors=True)
        final.rename(replaced)
    complete.rename(final)
    fsync_folder(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def restore_replaced(run: Path) -> None:
    """Restore a checkpoint whose replacement was interrupted by a kill."""
    for replaced in checkpoints_folder(run).glob(f"step-*{_REPLACED}"):
        final = replaced.with_name(replaced.name.removesuffix(_REPLACED))
        if not final.exists():
            replaced.rename(final)


def _save_tensors(tensors: Tensors, path: Path) -> None:
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with open_atomic(path) as stream:
        write_tensors(stream, on_cpu)


def write_tensors(stream: BinaryIO, tensors: Tensors) -> None:
    """Write contiguous CPU tensors in the safetensors format, without copying them."""
    # wide elements first, so that each tensor is aligned to the width of its elements
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
        # `safetensors.torch.save` would copy each tensor twice while it holds the GIL.
        # When a background thread writes a checkpoint, this would block the training
        # loop.
        stream.write(tensors[name].view(-1).view(torch.uint8).numpy().data)


def _write_manifest(folder: Path) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
    }
    write_atomic(folder / MANIFEST, json.dumps(files, indent=1).encode())


def is_intact(folder: Path) -> bool:
    """Return whether a checkpoint's files have the sizes and hashes in its manifest."""
    try:
        files = parse_json(read_regular(folder / MANIFEST, _MAX_MANIFEST_BYTES))
        paths = {name: path_below(folder, name) for name in (*files, RECIPE, TRAINER_STATE)}
        return all(
            path.stat().st_size == files[name]["bytes"] and sha256_of(path) == files[name]["sha256"]
            for name, path in paths.items()
        )
    except (FileNotFoundError, UserError, ValueError, KeyError, TypeError, AttributeError):
        return False  # other file system errors do not prove damage and are raised


def latest_checkpoint(run: Path) -> Path | None:
    """Return the folder of a run's newest intact checkpoint; None if there is none.

    Warns about newer checkpoints that are damaged. Raises UserError if all are damaged.
    """
    steps = checkpoint_steps(run)
    for step in reversed(steps):
        folder = checkpoint_folder(run, step)
        if is_intact(folder):
            return folder
        if folder.is_dir():  # else the run is training and has just deleted it
            warnings.warn(
                f"{folder} is damaged, falling back to the checkpoint before it", stacklevel=2
            )
    # starting again from step 0 would overwrite the run's history
    if steps:
        raise UserError(
            f"{checkpoints_folder(run)}: all checkpoints are damaged; restore one, or delete that "
            "folder to start from step 0"
        )
    return None


def load_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """Return the tensors of the file `name`.safetensors in a checkpoint's folder.

    They are on the CPU, by name. Raises UserError if the file cannot be read.
    """
    path = folder / f"{name}.safetensors"
    check_utf8(path)
    try:
        open_regular(path).close()
        return load_file(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch's own are RuntimeErrors
        raise UserError(
            f"cannot read {path} ({error}): restore it, or delete {folder} to use the checkpoint "
            "before it"
        ) from None


def load_state(folder: Path) -> dict[str, Any]:
    """Return the contents of a checkpoint's trainer.json: step, images, dataset_id, ...

    Raises UserError if they are damaged or have another format version.
    """
    path = folder / TRAINER_STATE
    advice = f"restore it, or delete {folder} to use the checkpoint before it"
    state: dict[str, Any] = read_json(path, dict[str, Any], advice)
    version = state.get("format", FORMAT)  # the first versions did not write it
    if version != FORMAT:
        raise UserError(
            f"{folder} has checkpoint format {version}, but this version reads format {FORMAT}: "
            "use the version that wrote it"
        )
    try:
        check_type(TrainerState, state)
        if step_of(folder) not in (None, state["step"]):
            raise ValueError(f"step cannot be {state['step']}")
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): {advice}") from None
    return state


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """Return the state tensors of the optimizer of `module` by name.

    A name is, for instance, "exp_avg.encoder.0.conv.weight".
    """
    tensors = {}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}.{name}"] = torch.as_tensor(value)
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Tensors) -> None:
    """Load state tensors, from `optimizer_tensors`, into the optimizer of `module`."""
    # a fused Adam keeps its step counts on the parameters' device, others on the CPU
    fused = bool(optimizer.defaults.get("fused"))
    for name, parameter in module.named_parameters():
        for kind in ("step", "exp_avg", "exp_avg_sq"):
            value = tensors.get(f"{kind}.{name}")
            if value is not None and kind == "step":
                optimizer.state[parameter][kind] = value.to(parameter.device if fused else "cpu")
            elif value is not None:
                # on the device and in the memory layout of the parameter
                optimizer.state[parameter][kind] = torch.empty_like(
                    parameter, dtype=value.dtype
                ).copy_(value)


def read_checkpoint(run: Path, step: Step, read: Callable[[Path], T]) -> T:
    """Call `read` with the folder of a checkpoint, and return its result.

    `step` is a step number, "best" or None (the newest). Raises UserError if there is
    no such checkpoint.
    """
    while True:
        # A run that is training deletes its older checkpoints, perhaps the chosen one
        # before it is read completely. Then choose and read again.
        before = checkpoint_steps(run)
        try:
            return read(_find_checkpoint(run, step))
        except (OSError, UserError):
            if checkpoint_steps(run) == before:
                raise


def _find_checkpoint(run: Path, step: Step) -> Path:
    """Return the folder of the intact checkpoint that `step` chooses.

    Raises UserError if there is no such checkpoint or it is damaged.
    """
    if step is None:
        folder = latest_checkpoint(run)
    else:
        step = best_step(run) if step == "best" else step
        chosen = checkpoint_folder(run, step)
        folder = chosen if is_intact(chosen) else None
    if folder is None:
        steps = ", ".join(map(str, checkpoint_steps(run))) or "none"
        missing = "no checkpoint" if step is None else f"no intact checkpoint of step {step}"
        raise UserError(
            f"{run}: {missing} (steps found: {steps}); "
            "give the folder of a run of `colortrain train` as --run"
        )
    return folder


def best_step(run: Path) -> int:
    """Return the step number in RUN/checkpoints/best.json.

    Raises UserError if there is no such file.
    """
    try:
        advice = "give --checkpoint STEP instead of best"
        return int(read_json(best_file(run), BestStep, advice)["step"])
    except FileNotFoundError:
        raise UserError(
            f"{run} has no best checkpoint: give --checkpoint STEP, "
            "or train a run with --set keep_best=METRIC (e.g. l1)"
        ) from None


def weights_part(folder: Path, ema: bool = True) -> Part:
    """Return the stem of the generator's file in a checkpoint: "ema" or "generator".

    It is "ema" if the checkpoint has averaged weights and `ema` is true.
    """
    return "ema" if ema and (folder / "ema.safetensors").is_file() else "generator"


@dataclass(frozen=True)
class SavedGenerator:
    """A checkpoint's generator in memory, valid even if the checkpoint is deleted."""

    folder: Path
    recipe: Recipe
    state: dict[str, Any]  # the contents of trainer.json
    part: Part  # the file that the weights come from
    weights: Tensors

    def build(self, config: GeneratorConfig) -> nn.Module:
        """Return the generator, built from `config`, on the CPU and in eval mode.

        Raises UserError if the weights belong to another architecture.
        """
        generator = build_network(config)
        set_weights(generator, self.weights, self.folder)
        return generator.eval()


def read_generator(run: Path, step: Step, ema: bool) -> SavedGenerator:
    """Return the generator of the checkpoint that `step` chooses.

    With `ema`, the averaged weights are used if the checkpoint has them. Raises
    UserError if the checkpoint does not exist or cannot be read.
    """

    def read(folder: Path) -> SavedGenerator:
        part = weights_part(folder, ema)
        recipe, state = load_recipe(recipe_file(folder)), load_state(folder)
        return SavedGenerator(folder, recipe, state, part, load_tensors(folder, part))

    return read_checkpoint(run, step, read)


def load_generator(
    run: Path, *, step: Step = None, ema: bool = True
) -> tuple[nn.Module, Recipe, int]:
    """Return a run's trained generator, its recipe, and the step of its checkpoint.

    The generator is on the CPU and in eval mode. `step` is a step number, "best" or
    None (the newest). With `ema`, the averaged weights are used if the checkpoint has
    them. Raises UserError if the checkpoint does not exist or cannot be read.
    """
    saved = read_generator(Path(run), step, ema)
    return saved.build(saved.recipe.generator), saved.recipe, saved.state["step"]


def load_weights(network: nn.Module, folder: Path, part: str) -> None:
    """Load the file `part`.safetensors of a checkpoint's folder into a network.

    Raises UserError if the file cannot be read or belongs to another architecture.
    """
    set_weights(network, load_tensors(folder, part), folder)


def set_weights(network: nn.Module, weights: Tensors, folder: Path) -> None:
    """Copy the weights that were read from a checkpoint into a network.

    Raises UserError, which names `folder`, if they belong to another architecture.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise UserError(
            f"{folder}: the weights do not fit its recipe ({reason}); if an earlier version of "
            "colortrain wrote them, use that version, or train again"
        ) from None
