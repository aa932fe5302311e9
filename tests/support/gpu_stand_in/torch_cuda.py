"""Replace the functions of `torch.cuda` that need a CUDA driver."""

from __future__ import annotations

import ctypes
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from tests.support.gpu_stand_in import events
from tests.support.gpu_stand_in.build import GPUS_VARIABLE

_GIGABYTE = 2**30
PROPERTIES = SimpleNamespace(
    name="GPU stand-in",
    major=9,
    minor=0,
    total_memory=80 * _GIGABYTE,
    multi_processor_count=132,
    warp_size=32,
    max_threads_per_multi_processor=2048,
    regs_per_multiprocessor=65536,
    shared_memory_per_multiprocessor=233472,
    L2_cache_size=50 * 2**20,
    gcnArchName="",
    uuid="GPU-stand-in",
)


class CudaEvent:
    """`torch.cuda.Event`; nothing runs asynchronously here, so it does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        """Do nothing."""

    def wait(self, stream: Any = None) -> None:
        """Do nothing."""

    def query(self) -> bool:
        """Return that the work before the event is done."""
        return True

    def synchronize(self) -> None:
        """Report that the host waits for this event, not for the whole device."""
        events.report("event.synchronize")

    def elapsed_time(self, other: Any) -> float:
        """Return one millisecond."""
        return 1.0


class Stream:
    """`torch.cuda.Stream`: there is only one, and it does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device())
        self.stream_id = self.cuda_stream = 0

    def wait_stream(self, stream: Any) -> None:
        """Do nothing."""

    def wait_event(self, event: Any) -> None:
        """Do nothing."""

    def record_event(self, event: Any = None) -> Any:
        """Return the event, or a new one."""
        return event or CudaEvent()

    def query(self) -> bool:
        """Return that all work is done."""
        return True

    def synchronize(self) -> None:
        """Report that the host waits."""
        events.report("wait: stream.synchronize")


def num_gpus() -> int:
    """Return the number of GPUs that this process sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = int(os.environ[GPUS_VARIABLE])
    if visible is None:
        return count
    # a negative number hides itself and what follows
    shown = itertools.takewhile(lambda number: not number.startswith("-"), visible.split(","))
    return min(count, len([number for number in shown if number]))


class SyncDebugMode:
    """`torch.cuda.set_sync_debug_mode`; "error" raises when the mode is set back.

    On a GPU the operation itself raises, which the library's listener cannot do.
    """

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.waits: list[str] = []

    def set(self, mode: str) -> None:
        """Start to record what waits ("error"), or to warn of it ("warn"), or stop."""
        self.stack.close()
        waits, self.waits = self.waits, []
        if waits and mode == "default":
            raise RuntimeError(_sync_message(waits[:5]))
        if mode != "default":
            listen = self._record if mode == "error" else _warn_of_wait
            self.stack.enter_context(events.listening(listen))

    def _record(self, what: str, size: int) -> None:
        if what.startswith("wait"):
            self.waits.append(f"{what} in {' < '.join(events.running_functions()[:3])}")


def _sync_message(waits: list[str]) -> str:
    return f"called a synchronizing CUDA operation: {waits}"


def _warn_of_wait(what: str, size: int) -> None:
    if what.startswith("wait"):
        warnings.warn(_sync_message([what]), stacklevel=2)


def install(library: ctypes.CDLL) -> None:
    """Replace the functions, so that all of them use the library's device."""
    events.connect(library)
    for name, value in _replacements(library).items():
        setattr(torch.cuda, name, value)
        if hasattr(torch.cuda.random, name):
            setattr(torch.cuda.random, name, value)
    _replace_conversions()
    _replace_compile()
    for name in ("range_push", "range_pop", "mark"):
        setattr(torch.cuda.nvtx, name, _make_nothing())


def _make_nothing() -> Callable[..., None]:
    """Return a function that does nothing; torch.compile needs different ones."""

    def nothing(*_: Any, **__: Any) -> None:
        pass

    return nothing


def _index(device: Any = None) -> int:
    index = device if isinstance(device, int) else None
    if index is None and device is not None:
        index = torch.device(device).index
    return torch.cuda.current_device() if index is None else index


def _device_context(library: ctypes.CDLL) -> type:
    class DeviceContext:
        def __init__(self, device: Any) -> None:
            self.index = _index(device)

        def __enter__(self) -> None:
            self.previous = library.stand_in_get_device()
            library.stand_in_set_device(self.index)

        def __exit__(self, *_: object) -> None:
            library.stand_in_set_device(self.previous)

    return DeviceContext


@contextmanager
def _stream_context(stream: Any) -> Iterator[None]:
    yield


def _replacements(library: ctypes.CDLL) -> dict[str, Any]:
    do_nothing = (
        *("_lazy_init", "init", "set_stream", "empty_cache", "ipc_collect", "seed_all"),
        *("manual_seed", "manual_seed_all", "reset_accumulated_memory_stats"),
    )
    now, peak, total = (
        library.stand_in_memory,
        library.stand_in_peak_memory,
        library.stand_in_total_memory(),
    )
    return {
        **{name: _make_nothing() for name in do_nothing},
        **_devices(library),
        "Event": CudaEvent,
        "Stream": Stream,
        "stream": _stream_context,
        "current_stream": lambda device=None: Stream(),
        "default_stream": lambda device=None: Stream(),
        "is_current_stream_capturing": lambda: False,
        "synchronize": lambda device=None: events.report("wait: synchronize"),
        "set_sync_debug_mode": SyncDebugMode().set,
        "memory_allocated": lambda device=None: now(),
        "memory_reserved": lambda device=None: now(),
        "max_memory_allocated": lambda device=None: peak(),
        "max_memory_reserved": lambda device=None: peak(),
        "reset_peak_memory_stats": lambda device=None: library.stand_in_reset_peak_memory(),
        "memory_stats": lambda device=None: {},
        "mem_get_info": lambda device=None: (total - now(), total),
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
    }


def _devices(library: ctypes.CDLL) -> dict[str, Any]:
    return {
        "is_available": lambda: num_gpus() > 0,
        "is_initialized": lambda: True,
        "_is_compiled": lambda: True,
        "device_count": num_gpus,
        "current_device": lambda: library.stand_in_get_device(),
        "set_device": lambda device: library.stand_in_set_device(_index(device)),
        "device": _device_context(library),
        "get_device_name": lambda device=None: PROPERTIES.name,
        "get_device_capability": lambda device=None: (PROPERTIES.major, PROPERTIES.minor),
        "get_device_properties": lambda device=None: PROPERTIES,
        "is_bf16_supported": lambda *_, **__: True,
    }


def _replace_conversions() -> None:
    def tensor_cuda(
        self: torch.Tensor, device: Any = None, non_blocking: bool = False, **kwargs: Any
    ) -> torch.Tensor:
        return self.to(torch.device("cuda", _index(device)), non_blocking=non_blocking, **kwargs)

    def module_cuda(self: torch.nn.Module, device: Any = None) -> torch.nn.Module:
        return self.to(torch.device("cuda", _index(device)))

    setattr(torch.Tensor, "cuda", tensor_cuda)  # noqa: B010
    setattr(torch.nn.Module, "cuda", module_cuda)  # noqa: B010


def _replace_compile() -> None:
    """Let `nn.Module.compile` use a backend that does not generate code for a GPU."""
    original = torch.nn.Module.compile

    def compile_module(self: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{**kwargs, "backend": "aot_eager", "mode": None})

    setattr(torch.nn.Module, "compile", compile_module)  # noqa: B010
