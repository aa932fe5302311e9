"""Give this process its GPUs, when imported, which must be before torch is."""

from __future__ import annotations

import ctypes
import os
import sys

from tests.support.gpu_stand_in.build import LIBRARY_VARIABLE

assert "torch" not in sys.modules, "torch asks only once, when it is loaded, whether it has a GPU"
LIBRARY = ctypes.CDLL(os.environ[LIBRARY_VARIABLE], mode=ctypes.RTLD_GLOBAL)
for function in ("memory", "peak_memory", "total_memory"):
    getattr(LIBRARY, f"stand_in_{function}").restype = ctypes.c_int64

import torch  # noqa: E402

# With a GPU this module would import parts that a torch without CUDA does not have.
import torch._dynamo  # noqa: E402, F401

from tests.support.gpu_stand_in import nccl, sync_batch_norm, torch_cuda  # noqa: E402

torch_cuda.install(LIBRARY)
sync_batch_norm.install()
nccl.install()
