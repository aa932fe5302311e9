"""Export a trained network to ONNX, checked against PyTorch before it is written.

Input: `L`, (batch, 1, height, width) float32 in [0, 100]. Output: `ab`, (batch, 2,
height, width) float32 in CIELAB units. Height and width must be multiples of
`size_multiple`.
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
from colortrain.models.registry import GeneratorConfig
from shards.errors import UserError
from shards.files import write_atomic

OPSET = 18
TOLERANCE = 1e-4  # in units of ab / 110, in which L1 is reported
_REQUIRED = ("onnx", "onnxruntime")
_USAGE = (
    "Combine ab with the photograph's own L. Where the colour is outside sRGB, scale ab towards 0 "
    "until it fits: clipping the RGB channels would change the lightness."
)


class LightnessToColours(nn.Module):
    """A module that scales L, runs the generator, and scales its output to ab."""

    def __init__(self, network: Colorizer) -> None:
        super().__init__()
        self.generator, self.codec = network.generator, network.description.codec
        # without dropout, an ONNX file returns the same result every time and can be
        # compared with PyTorch
        self.eval()

    def forward(self, L: Tensor) -> Tensor:
        """Return ab (B, 2, H, W) for L (B, 1, H, W), both in CIELAB units."""
        zeros = torch.zeros_like(L)
        scaled, _ = self.codec.encode(torch.cat([L, zeros, zeros], dim=1))
        return self.codec.decode(scaled, self.generator(scaled))[:, 1:]


def size_multiple(generator: GeneratorConfig) -> int:
    """Return the number by which the height and width of images must be divisible."""
    # found by trying: the smallest number whose double and triple the generator accepts
    return next(
        step
        for step in range(1, 1 << 14)
        if _accepts(generator, 2 * step) and _accepts(generator, 3 * step)
    )


def _accepts(generator: GeneratorConfig, size: int) -> bool:
    try:
        generator.check_size(size)
    except ValueError:
        return False
    return True


def export_onnx(network: Colorizer, path: Path) -> float:
    """Write a network that is on the CPU as ONNX; return its deviation from PyTorch.

    The deviation is the largest difference in ab / 110. Raises UserError, and writes
    nothing, if it is above `TOLERANCE`, or if the extra colortrain[export] is not
    installed.
    """
    missing = [name for name in _REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"ONNX export requires {', '.join(missing)}: pip install 'colortrain[export]'"
        )
    description = network.description
    data = _convert(LightnessToColours(network), size_multiple(description.generator))
    metadata = {"recipe": description.recipe, "size": str(description.size), "usage": _USAGE}
    data = _add_metadata(data, metadata)
    difference = largest_difference(network, data)
    if not difference <= TOLERANCE:
        raise UserError(
            f"{path} would differ from PyTorch by {difference:.1e} of ab / 110, more than "
            f"{TOLERANCE:g}; it was not written"
        )
    write_atomic(path, data)
    return difference


def _convert(module: nn.Module, step: int) -> bytes:
    """Return a module as the bytes of an ONNX file; `step` is its `size_multiple`."""
    # The exporter that is based on torch.export (dynamo=True) takes 4 to 8 s per
    # network instead of 0.5 s, and its optimizer removes the 1e-8 that keeps PixelNorm
    # finite.
    dynamic = {0: "batch", 2: "height", 3: "width"}
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated since torch 2.9
        path = Path(folder, "network.onnx")
        torch.onnx.export(
            module,
            (torch.rand(2, 1, 2 * step, 3 * step) * 100,),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=["L"],
            output_names=["ab"],
            dynamic_axes={"L": dynamic, "ab": dynamic},
        )
        return path.read_bytes()


def _add_metadata(data: bytes, metadata: dict[str, str]) -> bytes:
    import onnx

    model = onnx.load_from_string(data)
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=value)
    serialized: bytes = model.SerializeToString()
    return serialized


def largest_difference(network: Colorizer, data: bytes) -> float:
    """Return the largest difference between the outputs of onnxruntime and PyTorch.

    It is in units of ab / 110. `data` is the content of the ONNX file.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    module, rng = LightnessToColours(network), np.random.default_rng(0)
    step, size = size_multiple(network.description.generator), network.description.size
    differences = []
    for count, height, width in ((1, size, size), (2, 2 * step, 3 * step), (3, 3 * step, 2 * step)):
        lightness = (rng.random((count, 1, height, width)) * 100).astype(np.float32)
        with torch.no_grad():
            expected = module(torch.from_numpy(lightness)).numpy()
        (actual,) = session.run(None, {"L": lightness})
        differences.append(np.abs(actual - expected).max() / 110)
    return float(np.max(differences))  # unlike Python's max, this propagates NaN
