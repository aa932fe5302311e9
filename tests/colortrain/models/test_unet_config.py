"""What all U-Net configurations share: field order, checks, sizes and suggestions."""

from __future__ import annotations

import dataclasses

import pytest

from colortrain.models.deep_unet import DeepUNetConfig
from colortrain.models.fully_convolutional import FullyConvolutionalConfig
from colortrain.models.pix2pix import UNetConfig
from colortrain.models.res_unet import ResUNetConfig
from colortrain.models.residual_unet import ResidualUNetConfig
from colortrain.models.shallow_unet import ShallowUNetConfig
from colortrain.models.unet_config import UNetConfigBase, check_dropout

CONFIGS = (
    UNetConfig,
    ResUNetConfig,
    DeepUNetConfig,
    ResidualUNetConfig,
    ShallowUNetConfig,
    FullyConvolutionalConfig,
)
NEEDS_TWO_PIXELS = (ResUNetConfig, ShallowUNetConfig, FullyConvolutionalConfig)


@pytest.mark.parametrize("kind", CONFIGS)
def test_saved_recipes_start_with_width_and_depth(kind: type[UNetConfigBase]) -> None:
    """Attributes that are not fields must not appear in a recipe's JSON."""
    names = [field.name for field in dataclasses.fields(kind)]
    assert names[:2] == ["base_channels", kind.depth_field]
    assert not {"depth_field", "min_halvings", "min_bottleneck"} & set(names)


@pytest.mark.parametrize("kind", CONFIGS)
def test_width_and_depth_have_a_minimum(kind: type[UNetConfigBase]) -> None:
    config = kind()
    least = 2 if kind is UNetConfig else 1
    with pytest.raises(ValueError, match="base_channels must be at least 1, got 0"):
        dataclasses.replace(config, base_channels=0)
    with pytest.raises(ValueError, match=f"{kind.depth_field} must be at least {least}"):
        dataclasses.replace(config, **{kind.depth_field: least - 1})
    assert dataclasses.replace(config, **{kind.depth_field: least}).num_halvings == least


@pytest.mark.parametrize("kind", CONFIGS)
def test_check_size_accepts_exactly_the_multiples(kind: type[UNetConfigBase]) -> None:
    """At three halvings: multiples of 8, from 16 where BatchNorm needs two pixels."""
    config = dataclasses.replace(kind(), **{kind.depth_field: 3})
    expected = [8, 16, 24, 32, 40][1 if kind in NEEDS_TWO_PIXELS else 0 :]
    assert [size for size in range(1, 41) if _accepts(config, size)] == expected


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("size", [16, 36, 40, 48, 96])
def test_suggested_depth_is_the_largest_that_fits(kind: type[UNetConfigBase], size: int) -> None:
    field = kind.depth_field
    with pytest.raises(ValueError, match=rf"got {size}: set generator\.{field}=\d$") as error:
        dataclasses.replace(kind(), **{field: 6}).check_size(size)
    depth = int(str(error.value)[-1])
    assert _accepts(dataclasses.replace(kind(), **{field: depth}), size)
    assert not _accepts(dataclasses.replace(kind(), **{field: depth + 1}), size)


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_odd_size_has_no_suggested_depth(kind: type[UNetConfigBase]) -> None:
    with pytest.raises(ValueError, match="choose a size that is a power of two"):
        kind().check_size(33)


def test_channels_double_up_to_the_largest() -> None:
    config = UNetConfig(base_channels=3)
    assert config.doubling_channels(4) == [3, 6, 12, 24]
    assert config.doubling_channels(4, largest=3) == [3, 6, 9, 9]


@pytest.mark.parametrize(
    ("rate", "valid"), [(0.0, True), (0.99, True), (1.0, False), (-0.1, False)]
)
def test_check_dropout(rate: float, valid: bool) -> None:
    if valid:
        check_dropout(rate)
    else:
        with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\)"):
            check_dropout(rate)


def _accepts(config: UNetConfigBase, size: int) -> bool:
    try:
        config.check_size(size)
    except ValueError:
        return False
    return True
