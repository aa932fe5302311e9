"""A trained network as ONNX, checked against PyTorch before it is written: lightness in, colours out, in CIELAB units.

Every recipe's file has the same contract, whatever its codec: `L` float32 (batch, 1, height, width) in [0, 100] to `ab`
(batch, 2, height, width). Height and width are multiples of `size_step`, any of them; the batch is free.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from colortrain.inference.colorizer import Colorizer
from colortrain.recipe import Generator
from shards.errors import UserError
from shards.files import write_atomic

OPSET = 18
TOLERANCE = 1e-4  # of ab / 110, the unit in which L1 is reported
_NEEDED = ("onnx", "onnxruntime")


class LightnessToColours(nn.Module):
    """The generator between its codec's scalings: L (B, 1, H, W) in [0, 100] to ab (B, 2, H, W), CIELAB units."""

    def __init__(self, network: Colorizer) -> None:
        super().__init__()
        self.generator, self.codec = network.generator, network.description.codec
        self.eval()  # without dropout: draws could not be compared, and a file should answer alike every time

    def forward(self, L: Tensor) -> Tensor:
        none = torch.zeros_like(L)
        scaled, _ = self.codec.encode(torch.cat([L, none, none], dim=1))
        return self.codec.decode(scaled, self.generator(scaled))[:, 1:]


def size_step(generator: Generator) -> int:
    """What height and width must be multiples of: the least number whose double and treble both pass."""
    return next(
        step
        for step in range(1, 1 << 14)
        if _passes(generator, 2 * step) and _passes(generator, 3 * step)
    )


def _passes(generator: Generator, size: int) -> bool:
    try:
        generator.check_size(size)
    except ValueError:
        return False
    return True


def export_onnx(network: Colorizer, path: Path) -> float:
    """Write a network that lies on the CPU as ONNX; returns the largest difference from PyTorch found, in ab / 110.

    Raises `UserError`, and writes nothing, if it is above `TOLERANCE` or colortrain[export] is not installed.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {', '.join(missing)}: pip install 'colortrain[export]'")
    about = network.description
    data = _converted(LightnessToColours(network), size_step(about.generator))
    data = _named(data, {"recipe": about.recipe, "size": str(about.size)})
    difference = largest_difference(network, data)
    if not difference <= TOLERANCE:
        raise UserError(
            f"{path} would differ from PyTorch by {difference:.1e} of ab / 110, more than {TOLERANCE:g}"
        )
    write_atomic(path, data)
    return difference


def _converted(module: nn.Module, step: int) -> bytes:
    """Through TorchScript: the exporter on torch.export takes 4 to 8 s a network, not .5, and its optimizer drops the
    1e-8 that keeps PixelNorm finite.
    """
    free = {0: "batch", 2: "height", 3: "width"}
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated since torch 2.9, and there
        path = Path(folder, "network.onnx")
        torch.onnx.export(
            module,
            (torch.rand(2, 1, 2 * step, 3 * step) * 100,),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=["L"],
            output_names=["ab"],
            dynamic_axes={"L": free, "ab": free},
        )
        return path.read_bytes()


def _named(data: bytes, facts: dict[str, str]) -> bytes:
    import onnx

    model = onnx.load_from_string(data)
    for name, value in facts.items():
        model.metadata_props.add(key=name, value=value)
    named: bytes = model.SerializeToString()
    return named


def largest_difference(network: Colorizer, data: bytes) -> float:
    """How far a file is from PyTorch under onnxruntime, in ab / 110, over three shapes of random lightness."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    module, draw = LightnessToColours(network), np.random.default_rng(0)
    step, size = size_step(network.description.generator), network.description.size
    differences = []
    for count, height, width in ((1, size, size), (2, 2 * step, 3 * step), (3, 3 * step, 2 * step)):
        lightness = (draw.random((count, 1, height, width)) * 100).astype(np.float32)
        with torch.no_grad():
            expected = module(torch.from_numpy(lightness)).numpy()
        (found,) = session.run(None, {"L": lightness})
        differences.append(np.abs(found - expected).max() / 110)
    return float(np.max(differences))  # Python's own max would lose a NaN
