"""Train colorization networks on shards, evaluate them, and colorize photographs.

network = colortrain.load("runs/first")  # a run or an exported folder
coloured = network.colorize(photograph)  # uint8 array or PIL image
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colortrain.inference.colorizer import Colorizer, load

__all__ = ["Colorizer", "load"]


def __getattr__(name: str) -> Any:
    """Import torch only when `load` or `Colorizer` is first used, not with the package.

    Raises AttributeError for any other name.
    """
    if name in __all__:
        return getattr(importlib.import_module("colortrain.inference.colorizer"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
