"""A process group for "cuda" tensors in place of NCCL: gloo, on the same memory.

Like NCCL it refuses tensors on the CPU, on another device than the current one, and
tensors that are not contiguous. Unlike NCCL it is synchronous.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C import _distributed_c10d
from torch.distributed import distributed_c10d
from torch.futures import Future

NAME = "gpu_stand_in"
_ProcessGroup: Any = dist.ProcessGroup  # its stubs have overloads that nobody calls here


def install() -> None:
    """Use this process group wherever "nccl" is requested."""

    def make(store: Any, rank: int, size: int, timeout: timedelta) -> dist.ProcessGroup:
        return StandInGroup(store, rank, size, timeout)

    dist.Backend.register_backend(NAME, make, devices=["cuda"])
    dist.Backend.default_device_backend_map["cuda"] = NAME
    distributed_c10d._get_object_coll_device = lambda group=None: "cuda"
    original = dist.init_process_group

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        original(NAME if backend == "nccl" else backend, *args, **kwargs)

    dist.init_process_group = distributed_c10d.init_process_group = init_process_group
    # DDP's logger asks a CUDA timer
    setattr(dist.Logger, "set_runtime_stats_and_log", lambda self: None)  # noqa: B010


def on_host(tensor: Tensor) -> Tensor:
    """Return a CPU tensor that shares the memory of a device tensor."""
    return torch.ops.gpu_stand_in.on_host(tensor)


def _done(result: Any) -> Any:
    future: Future[Any] = Future()
    future.set_result(result)
    return getattr(_distributed_c10d, "_create_work_from_future")(future)  # noqa: B009


def check(operation: str, tensors: list[Tensor]) -> None:
    """Raise RuntimeError if NCCL would refuse one of these tensors."""
    for tensor in tensors:
        if not tensor.is_cuda:
            raise RuntimeError(f"No backend type associated with device type cpu ({operation})")
        if tensor.device.index != torch.cuda.current_device():
            raise RuntimeError(f"{operation}: {tensor.device} is not the current device")
        channels_last = tensor.is_contiguous(memory_format=torch.channels_last)
        if not (tensor.is_contiguous() or channels_last):
            raise RuntimeError(f"{operation}: Tensors must be contiguous")


class StandInGroup(_ProcessGroup):
    """Collectives over "cuda" tensors."""

    def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)
        self.gloo: Any = dist.ProcessGroupGloo(
            dist.PrefixStore("gpu_stand_in", store), rank, size, timeout
        )

    def getBackendName(self) -> str:  # noqa: N802
        """Return the name under which the group is registered."""
        return NAME

    def allreduce(self, tensors: list[Tensor], opts: Any = None) -> Any:
        """Reduce each tensor over all processes, in place."""
        check("allreduce", tensors)
        opts = opts or dist.AllreduceOptions()
        average = opts.reduceOp == dist.ReduceOp.AVG
        if average:
            opts.reduceOp = dist.ReduceOp.SUM
        for tensor in map(on_host, tensors):
            half = tensor.dtype in (torch.bfloat16, torch.float16)
            wide = tensor.float() if half else tensor  # gloo reduces bfloat16 not at all
            self.gloo.allreduce([wide], opts).wait()
            if average:
                wide /= self.size()
            if wide is not tensor:
                tensor.copy_(wide)
        return _done(tensors)

    def allreduce_coalesced(self, tensors: list[Tensor], opts: Any = None) -> Any:
        """Reduce several tensors over all processes, in place."""
        return self.allreduce(tensors)

    def broadcast(self, tensors: list[Tensor], opts: Any = None) -> Any:
        """Copy the tensors of one process to all."""
        check("broadcast", tensors)
        self.gloo.broadcast([on_host(tensor) for tensor in tensors], opts).wait()
        return _done(tensors)

    def allgather(self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any = None) -> Any:
        """Copy the tensors of every process to all."""
        check("allgather", [*inputs, *(tensor for row in outputs for tensor in row)])
        rows = [[on_host(tensor) for tensor in row] for row in outputs]
        self.gloo.allgather(rows, [on_host(tensor) for tensor in inputs]).wait()
        return _done(outputs)

    def gather(self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any = None) -> Any:
        """Copy the tensors of every process to one."""
        check("gather", [*inputs, *(tensor for row in outputs for tensor in row)])
        rows = [[on_host(tensor) for tensor in row] for row in outputs]
        self.gloo.gather(rows, [on_host(tensor) for tensor in inputs], opts).wait()
        return _done(outputs)

    def _allgather_base(self, output: Tensor, local: Tensor, opts: Any = None) -> Any:
        check("allgather_base", [output, local])
        parts = [on_host(part) for part in output.view(-1).chunk(self.size())]
        self.gloo.allgather([parts], [on_host(local).reshape(-1)]).wait()
        return _done([output])

    def all_gather_single(self, output: Tensor, local: Tensor, opts: Any = None) -> Any:
        """Copy the tensor of every process to all, into one tensor."""
        return self._allgather_base(output, local, opts)

    def reduce(self, tensors: list[Tensor], opts: Any = None) -> Any:
        """Reduce to one process; here all of them get the result."""
        return self.allreduce(tensors)

    def reduce_scatter(
        self, outputs: list[Tensor], inputs: list[list[Tensor]], opts: Any = None
    ) -> Any:
        """Reduce lists of tensors; each process gets its own item."""
        check("reduce_scatter", [*outputs, *(tensor for row in inputs for tensor in row)])
        for output, row in zip(outputs, inputs, strict=True):
            for rank, tensor in enumerate(row):
                self.allreduce([tensor])
                if rank == self.rank():
                    output.copy_(tensor)
        return _done(outputs)

    def _reduce_scatter_base(self, output: Tensor, local: Tensor, opts: Any = None) -> Any:
        check("reduce_scatter_base", [output, local])
        whole = local.clone()
        self.allreduce([whole])
        output.copy_(whole.view(-1).chunk(self.size())[self.rank()].view_as(output))
        return _done([output])

    def barrier(self, opts: Any = None) -> Any:
        """Wait for all processes."""
        self.gloo.barrier().wait()
        return _done([])

    def shutdown(self) -> None:
        """Do nothing; the group ends with the process."""

    def abort(self) -> None:
        """Do nothing; the group ends with the process."""
