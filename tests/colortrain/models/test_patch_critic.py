"""The patch critic: parameter count, shapes, receptive field, valid sizes."""

from __future__ import annotations

import pytest
import torch

from colortrain.models.initialise import num_parameters
from colortrain.models.patch_critic import PatchCriticConfig
from colortrain.models.pix2pix import UNetConfig


def on_meta(config: UNetConfig | PatchCriticConfig) -> torch.nn.Module:
    with torch.device("meta"):
        return config.build()


def test_parameter_count_and_map_size() -> None:
    network = on_meta(PatchCriticConfig())
    assert num_parameters(network) == 2_765_633
    images = (
        torch.empty(2, 1, 256, 256, device="meta"),
        torch.empty(2, 2, 256, 256, device="meta"),
    )
    assert network(*images).shape == (2, 1, 30, 30)


def test_layers_at_256() -> None:
    """Nampouri figure 15, parameters and shapes.

    The strides 2, 2, 2, 1, 1 give 31 px before the last map of 30.
    """
    network = on_meta(PatchCriticConfig())
    rows: list[tuple[int, int, int]] = []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.BatchNorm2d):
            count = num_parameters(layer)
            layer.register_forward_hook(
                lambda _, __, out, n=count: rows.append((out.shape[1], out.shape[2], n))
            )
    network(torch.empty(2, 1, 256, 256, device="meta"), torch.empty(2, 2, 256, 256, device="meta"))
    assert rows == [
        (64, 128, 3_136),
        *[(128, 64, 131_072), (128, 64, 256)],
        *[(256, 32, 524_288), (256, 32, 512)],
        *[(512, 31, 2_097_152), (512, 31, 1_024)],
        (1, 30, 8_193),
    ]


@pytest.mark.parametrize(
    ("strided_layers", "patch"), [(0, 1), (1, 16), (2, 34), (3, 70), (4, 142), (5, 286)]
)
def test_patches_have_the_sizes_of_isola_et_al(strided_layers: int, patch: int) -> None:
    """Section 6.1.2: 1, 16, 70 and 286 pixels."""
    torch.manual_seed(0)
    network = PatchCriticConfig(base_channels=2, strided_layers=strided_layers).build().eval()
    L = torch.randn(1, 1, 512, 512, requires_grad=True)
    scores = network(L, torch.randn(1, 2, 512, 512))
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    assert L.grad is not None
    rows = L.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert int(rows.max() - rows.min() + 1) == patch


def test_the_critic_of_single_pixels_is_isolas() -> None:
    """C64-C128 of 1x1 convolutions: a network on the values of each pixel."""
    config = PatchCriticConfig(strided_layers=0)
    assert num_parameters(on_meta(config)) == (3 * 64 + 64) + 64 * 128 + 2 * 128 + (128 + 1) == 8833
    torch.manual_seed(0)
    network = PatchCriticConfig(strided_layers=0, base_channels=4, norm="none").build()
    w = [tensor.flatten(1) if tensor.ndim > 1 else tensor for tensor in network.parameters()]
    L, colour = torch.randn(2, 1, 4, 4), torch.randn(2, 2, 4, 4)
    x = torch.cat([L, colour], 1).permute(0, 2, 3, 1)
    for weight, bias in ((w[0], w[1]), (w[2], w[3])):
        x = torch.nn.functional.leaky_relu(x @ weight.T + bias, 0.2)
    expected = (x @ w[4].T + w[5]).permute(0, 3, 1, 2)
    torch.testing.assert_close(network(L, colour), expected)
    config.check_size(1)


@pytest.mark.parametrize(("size", "fits"), [(16, False), (24, True), (32, True), (256, True)])
def test_check_size_rejects_images_smaller_than_a_patch(size: int, fits: bool) -> None:
    config = PatchCriticConfig(base_channels=2)
    if fits:
        config.check_size(size)
        assert (
            on_meta(config)(*(torch.empty(1, c, size, size, device="meta") for c in (1, 2))).numel()
            > 0
        )
    else:
        with pytest.raises(ValueError, match="leaves no patch"):
            config.check_size(size)


def test_layers_before_a_norm_without_shift_have_biases() -> None:
    shifts = {"batch": True, "instance": True, "pixel": False, "none": False}
    for norm, has_shift in shifts.items():
        network = on_meta(PatchCriticConfig(norm=norm))  # type: ignore[arg-type]
        second = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)][1]
        assert (second.bias is None) == has_shift, norm
