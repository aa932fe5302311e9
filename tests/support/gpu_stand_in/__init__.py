"""A GPU stand-in: "cuda" tensors on a machine without a GPU, for tests.

    python -m tests.support.gpu_stand_in --gpus 2 colortrain train --recipe ...

runs a command, and all Python processes that it starts, as if the machine had GPUs.
The parts:

- `stand_in.cpp` gives torch device memory and kernels: ordinary memory, the CPU's
  kernels. It refuses operations that mix devices.
- `build` compiles it, and says why it cannot be used on this machine.
- `activate` loads it before torch; `site/sitecustomize.py` imports that when Python
  starts.
- `torch_cuda` replaces the functions of `torch.cuda` that need a driver.
- `nccl` replaces NCCL by gloo; `sync_batch_norm` has kernels that only GPUs have.
- `events` records what makes the host wait for the device, and copies between them.

Numbers are the CPU's. The stand-in cannot show what depends on CUDA itself: TF32,
cuDNN, Triton (`torch.compile` runs the backend aot_eager), streams and races, NCCL,
CUDA graphs, or speed. GPU_STAND_IN_MEMORY, a number of bytes, limits each GPU's memory.
"""
