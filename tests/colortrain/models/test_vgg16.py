"""VGG-16 features against torchvision's layout and a network written out by hand."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from colortrain.models.vgg16 import VGG16Features, feature_distance, load_vgg16

CONVOLUTIONS = {
    0: (3, 64),
    2: (64, 64),
    5: (64, 128),
    7: (128, 128),
    10: (128, 256),
    12: (256, 256),
    14: (256, 256),
}


def test_names_and_shapes_are_torchvisions() -> None:
    """Those of vgg16's state dict up to features.14; all else in the file is left."""
    expected: dict[str, tuple[int, ...]] = {}
    for place, (inputs, outputs) in CONVOLUTIONS.items():
        expected |= {
            f"features.{place}.weight": (outputs, inputs, 3, 3),
            f"features.{place}.bias": (outputs,),
        }
    found = VGG16Features().state_dict()
    assert {name: tuple(value.shape) for name, value in found.items()} == expected
    assert sum(value.numel() for value in found.values()) == 1_735_488


def test_features_are_relu_1_2_2_2_3_3_of_normalised_rgb() -> None:
    """Against the same network written out by hand."""
    network = load_vgg16("random", "")
    rgb = torch.rand(2, 3, 16, 16)
    x = (rgb - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    tensors, expected = network.state_dict(), []
    for place in CONVOLUTIONS:
        x = F.conv2d(
            x, tensors[f"features.{place}.weight"], tensors[f"features.{place}.bias"], padding=1
        ).relu()
        if place in (2, 7, 14):
            expected.append(x)
            x = F.max_pool2d(x, 2)
    found = network(rgb)
    assert [tuple(one.shape[1:]) for one in found] == [(64, 16, 16), (128, 8, 8), (256, 4, 4)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_random_weights_are_always_the_same_and_disturb_no_draw() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one = load_vgg16("random", "")
    assert torch.equal(torch.rand(2), expected)
    other = load_vgg16("random", "")
    assert all(
        torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items()
    )
    maps = one(torch.rand(1, 3, 16, 16))
    assert all(0.05 < found.std().item() < 20 for found in maps)  # He's start keeps the scale


def test_distance_is_the_mean_over_each_layer_summed() -> None:
    """Equation 6: |difference|^2 / (C H W), summed over layers."""
    found = [torch.zeros(2, 3, 4, 4), torch.zeros(2, 6, 2, 2)]
    truth = [
        torch.full((2, 3, 4, 4), 2.0),
        torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).expand(2, 6, 2, 2),
    ]
    assert feature_distance(found, truth).tolist() == [5, 13]


def test_weights_from_a_path(tmp_path: Path) -> None:
    """A whole VGG-16 file: the classifier and the deeper layers in it are left."""
    torch.manual_seed(5)
    tensors = {name: torch.rand_like(value) for name, value in VGG16Features().state_dict().items()}
    save_file(tensors | {"classifier.0.bias": torch.zeros(9)}, tmp_path / "vgg.safetensors")
    network = load_vgg16(str(tmp_path / "vgg.safetensors"), "")
    assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())
