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


def test_tensors_have_torchvisions_names_and_shapes() -> None:
    """They are those of vgg16's state dict up to features.14."""
    expected: dict[str, tuple[int, ...]] = {}
    for index, (inputs, outputs) in CONVOLUTIONS.items():
        expected |= {
            f"features.{index}.weight": (outputs, inputs, 3, 3),
            f"features.{index}.bias": (outputs,),
        }
    result = VGG16Features().state_dict()
    assert {name: tuple(value.shape) for name, value in result.items()} == expected
    assert sum(value.numel() for value in result.values()) == 1_735_488


def test_features_equal_a_network_written_out_by_hand() -> None:
    """relu1_2, relu2_2 and relu3_3 of normalised RGB."""
    network = load_vgg16("random", "")
    rgb = torch.rand(2, 3, 16, 16)
    x = (rgb - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    tensors, expected = network.state_dict(), []
    for index in CONVOLUTIONS:
        x = F.conv2d(
            x, tensors[f"features.{index}.weight"], tensors[f"features.{index}.bias"], padding=1
        ).relu()
        if index in (2, 7, 14):
            expected.append(x)
            x = F.max_pool2d(x, 2)
    result = network(rgb)
    assert [tuple(one.shape[1:]) for one in result] == [(64, 16, 16), (128, 8, 8), (256, 4, 4)]
    for one, other in zip(result, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_random_weights_are_constant_and_leave_the_random_state() -> None:
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
    assert all(0.05 < each.std().item() < 20 for each in maps)  # He's init keeps the scale


def test_feature_distance_is_a_sum_of_means() -> None:
    """Equation 6: |difference|^2 / (C H W), summed over layers."""
    result = [torch.zeros(2, 3, 4, 4), torch.zeros(2, 6, 2, 2)]
    truth = [
        torch.full((2, 3, 4, 4), 2.0),
        torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).expand(2, 6, 2, 2),
    ]
    assert feature_distance(result, truth).tolist() == [5, 13]


def test_weights_are_loaded_from_a_path(tmp_path: Path) -> None:
    """The classifier and deeper layers in a complete VGG-16 file are ignored."""
    torch.manual_seed(5)
    tensors = {name: torch.rand_like(value) for name, value in VGG16Features().state_dict().items()}
    save_file(tensors | {"classifier.0.bias": torch.zeros(9)}, tmp_path / "vgg.safetensors")
    network = load_vgg16(str(tmp_path / "vgg.safetensors"), "")
    assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())
