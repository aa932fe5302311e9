"""Recipes, networks, training and evaluation: shards in, trained colorization networks out.

network = colortrain.load("runs/first")     # a run, or what launch.export wrote
coloured = network.colorize(photograph)     # uint8 (H, W, 3) or (H, W), or a PIL image; the same kind back
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colortrain.inference.colorizer import Colorizer, load

__all__ = ["Colorizer", "load"]


def __getattr__(name: str) -> Any:
    """Torch is imported when a network is first asked for, not with the package's name."""
    if name in __all__:
        return getattr(importlib.import_module("colortrain.inference.colorizer"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
