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
    """Return `load` or `Colorizer`; raise AttributeError for any other name."""
    if name in __all__:
        # This import also imports torch, which `import colortrain` alone does not.
        return getattr(importlib.import_module("colortrain.inference.colorizer"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
