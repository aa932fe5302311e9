"""SqueezeNet 1.1: torchvision's names and sizes, and its published structure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from colortrain.models.squeezenet import MIN_SIZE, load_squeezenet

FIRES = {3: 16, 4: 16, 6: 32, 7: 32, 9: 48, 10: 48, 11: 64, 12: 64}  # "squeeze" channels
WIDTHS = [64, 128, 256, 384, 384, 512, 512]


def reference(tensors: dict[str, Tensor], rgb: Tensor) -> list[Tensor]:
    """Return the outputs of layers 1, 4, 7 and 9 to 12, written as torch functions."""

    def conv(name: str, x: Tensor, **options: int) -> Tensor:
        return F.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], **options)

    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    outputs = {1: F.relu(conv("features.0", (rgb - mean) / std, stride=2))}
    for layer in range(2, 13):
        x = outputs[layer - 1]
        if layer in FIRES:
            squeezed = F.relu(conv(f"features.{layer}.squeeze", x))
            halves = (
                conv(f"features.{layer}.expand1x1", squeezed),
                conv(f"features.{layer}.expand3x3", squeezed, padding=1),
            )
            outputs[layer] = F.relu(torch.cat(halves, dim=1))
        else:
            outputs[layer] = F.max_pool2d(x, 3, 2, ceil_mode=True)
    return [outputs[layer] for layer in (1, 4, 7, 9, 10, 11, 12)]


def test_parameters_are_those_of_torchvision_without_the_classifier() -> None:
    """torchvision documents 1,235,496 parameters; the classifier has 513,000."""
    network = load_squeezenet("random", "")
    assert sum(each.numel() for each in network.parameters()) == 1_235_496 - 513_000
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert len(shapes) == 50
    assert shapes["features.0.weight"] == (64, 3, 3, 3)
    for layer, squeezed in FIRES.items():
        assert shapes[f"features.{layer}.squeeze.weight"][0] == squeezed
        assert shapes[f"features.{layer}.expand3x3.weight"] == (4 * squeezed, squeezed, 3, 3)
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("size", [17, 64, 97])
def test_feature_maps_equal_the_published_structure(size: int) -> None:
    network = load_squeezenet("random", "")
    rgb = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    maps = network(rgb)
    assert [each.shape[1] for each in maps] == WIDTHS
    for result, expected in zip(maps, reference(network.state_dict(), rgb), strict=True):
        torch.testing.assert_close(result, expected)
        assert result.std() > 0


def test_smaller_images_have_no_feature_maps() -> None:
    assert MIN_SIZE == 17
    with pytest.raises(RuntimeError, match="Output size is too small"):
        load_squeezenet("random", "")(torch.rand(1, 3, 16, 16))


def test_weights_in_half_precision_are_computed_in_single(tmp_path: Path) -> None:
    network = load_squeezenet("random", "")
    state = network.state_dict()
    weights = {name: tensor.half().contiguous() for name, tensor in state.items()}
    classifier = {"classifier.1.weight": torch.zeros(1000, 512, 1, 1)}
    save_file(weights | classifier, tmp_path / "w.safetensors")
    loaded = load_squeezenet(str(tmp_path / "w.safetensors"), "").state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in loaded.values())
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in weights.items())
    assert torch.equal(
        torch.cat([t.flatten() for t in load_squeezenet("random", "").state_dict().values()]),
        torch.cat([t.flatten() for t in network.state_dict().values()]),
    )
