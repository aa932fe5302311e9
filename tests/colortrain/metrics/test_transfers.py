"""Copies on a CPU share memory; tests/gpu/test_scoring.py has copies from a GPU."""

from __future__ import annotations

import numpy as np
import torch

from colortrain.metrics.transfers import HostCopy, upload


def test_nothing_is_copied_on_a_cpu() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    tensor = upload(array, torch.device("cpu"))
    tensor[0, 0] = 9
    assert array[0, 0] == 9
    copy = HostCopy({"maps": tensor > 3, "bytes": tensor}).wait()
    assert copy["maps"].tolist() == [[True, False, False], [False, True, True]]
    array[1, 2] = 8
    assert copy["bytes"][1, 2] == 8
