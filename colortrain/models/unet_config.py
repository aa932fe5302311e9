"""The base class of U-Net configurations: number of channels, depth, valid sizes."""

from __future__ import annotations

from dataclasses import dataclass

_MOST_LEVELS = 11  # largest depth that an error message suggests: 2048 px


@dataclass(frozen=True, kw_only=True)
class UNetConfigBase:
    """Base class of U-Net configurations; a subclass adds a field for the depth.

    The field holds the number of halvings, which is at least `min_halvings`.
    `depth_field` is the field's name. `min_bottleneck` is the smallest side of the
    bottleneck's feature map, in pixels. Raises ValueError for values that are too
    small.
    """

    base_channels: int = 64

    # no annotations, so no dataclass fields: neither saved with a recipe nor settable
    depth_field = "levels"
    min_halvings = 1
    min_bottleneck = 1

    def __post_init__(self) -> None:
        self.check_at_least(1, "base_channels")
        self.check_at_least(self.min_halvings, self.depth_field)

    @property
    def num_halvings(self) -> int:
        """Number of stride-2 levels: how often the encoder halves height and width."""
        return int(getattr(self, self.depth_field))

    @property
    def outputs(self) -> int:
        """Number of output channels: a and b."""
        return 2

    def check_at_least(self, least: int, *fields: str) -> None:
        """Raise ValueError if one of the named fields has a value below `least`."""
        for field in fields:
            if getattr(self, field) < least:
                raise ValueError(f"{field} must be at least {least}, got {getattr(self, field)}")

    def check_size(self, size: int) -> None:
        """Raise ValueError if the network does not accept `size` x `size` images."""
        if self._fits(size, self.num_halvings):
            return
        step = 2**self.num_halvings
        least = f" and at least {self.min_bottleneck * step}" if self.min_bottleneck > 1 else ""
        raise ValueError(
            f"{self.depth_field}={self.num_halvings} requires a size divisible by {step}{least}, "
            f"got {size}: {self._hint(size)}"
        )

    def _fits(self, size: int, halvings: int) -> bool:
        return size % 2**halvings == 0 and size >> halvings >= self.min_bottleneck

    def _hint(self, size: int) -> str:
        depths = range(self.min_halvings, _MOST_LEVELS + 1)
        fitting = [depth for depth in depths if self._fits(size, depth)]
        if not fitting:
            return "choose a size that is a power of two"
        return f"set generator.{self.depth_field}={fitting[-1]}"

    def doubling_channels(self, count: int, largest: int | None = None) -> list[int]:
        """Return the numbers of channels of `count` levels, which double at each level.

        They start at `base_channels` and do not exceed `largest` x `base_channels`.
        """
        factors = [2**level for level in range(count)]
        if largest is not None:
            factors = [min(factor, largest) for factor in factors]
        return [self.base_channels * factor for factor in factors]


def check_dropout(rate: float) -> None:
    """Raise ValueError unless `rate`, a dropout probability, is in [0, 1)."""
    if not 0 <= rate < 1:
        raise ValueError(f"dropout must be in [0, 1), got {rate}")
