"""ResNet-18 as a generator: torchvision's tensor names and shapes, skip connections."""

from __future__ import annotations

import pytest
import torch

from colortrain.models.initialise import num_parameters
from colortrain.models.resnet18 import BasicBlock, ResNet18, ResNet18UNet, ResNet18UNetConfig


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{kind}": (channels,) for kind in kinds} | {f"{name}.num_batches_tracked": ()}


def block(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}.conv1.weight": (outputs, inputs, 3, 3),
        **norm(f"{name}.bn1", outputs),
    }
    shapes |= {f"{name}.conv2.weight": (outputs, outputs, 3, 3), **norm(f"{name}.bn2", outputs)}
    if inputs != outputs:
        shapes |= {
            f"{name}.downsample.0.weight": (outputs, inputs, 1, 1),
            **norm(f"{name}.downsample.1", outputs),
        }
    return shapes


def published_layout() -> dict[str, tuple[int, ...]]:
    """Return torchvision's resnet18 state dict shapes without fc.weight and fc.bias."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    for layer, (inputs, outputs) in enumerate(
        [(64, 64), (64, 128), (128, 256), (256, 512)], start=1
    ):
        shapes |= block(f"layer{layer}.0", inputs, outputs) | block(
            f"layer{layer}.1", outputs, outputs
        )
    return shapes


def on_meta() -> ResNet18UNet:
    with torch.device("meta"):
        return ResNet18UNetConfig().build()


def test_encoder_tensors_have_torchvisions_names_and_shapes() -> None:
    assert {
        name: tuple(value.shape) for name, value in on_meta().encoder.state_dict().items()
    } == published_layout()


def test_parameter_counts() -> None:
    network = on_meta()
    assert num_parameters(network) == 14_720_578
    assert num_parameters(network.encoder) == 11_176_512
    assert num_parameters(network.head) == 4_098
    assert [num_parameters(block) for block in network.encoder.layer2] == [
        230_144,
        295_424,
    ]  # figure 12


def test_shapes_at_256() -> None:
    """Figures 12 and 13."""
    network = on_meta()
    shapes = []
    for part in [network.encoder.layer1, network.encoder.layer4, *network.decoder]:
        part.register_forward_hook(
            lambda _, __, output: shapes.append((output.shape[1], output.shape[2]))
        )
    assert network(torch.empty(2, 1, 256, 256, device="meta")).shape == (2, 2, 256, 256)
    assert shapes == [(64, 64), (512, 8), (256, 16), (128, 32), (64, 64), (64, 128)]


def test_residual_block_adds_its_input() -> None:
    """With its second norm's weights at zero, a block is the identity above zero."""
    network = ResNet18(base_channels=2).eval()
    block = network.layer1[0]
    assert isinstance(block, BasicBlock)
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.rand(1, 2, 5, 5)
    assert torch.equal(block(x), x)


def test_output_depends_on_each_skip() -> None:
    torch.manual_seed(0)
    network = ResNet18UNetConfig(base_channels=2, pretrained=None).build().eval()
    L = torch.randn(1, 1, 32, 32)
    plain = network(L)
    encoder = network.encoder
    for part in (encoder.bn1, encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4):
        handle = part.register_forward_hook(lambda _, __, output: output + 1)
        assert not torch.equal(network(L), plain)
        handle.remove()


def test_build_does_not_load_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colortrain.models.resnet18.load_weights", None)
    on_meta()
    torch.manual_seed(0)
    weight = ResNet18UNetConfig().build().state_dict()["encoder.layer4.1.conv2.weight"]
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)  # He, fan out
