"""Compile the stand-in's library; say why it cannot be used. Does not import torch."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent.parent
SOURCE = FOLDER / "stand_in.cpp"
CACHE = ROOT / ".pytest_cache" / "d" / "gpu_stand_in"  # where pytest's own cache keeps files
TORCH_VERSION = "2.13.0"  # the C++ interfaces that the source uses change between versions
MEMORY_VARIABLE = "GPU_STAND_IN_MEMORY"  # the bytes of memory of each GPU (default: 80 GiB)
LIBRARY_VARIABLE, GPUS_VARIABLE = "GPU_STAND_IN_LIBRARY", "GPU_STAND_IN_GPUS"


def why_unavailable() -> str | None:
    """Return the reason for which this machine cannot use the stand-in, or None."""
    installed = version("torch")
    if installed.partition("+")[0] != TORCH_VERSION:
        return f"the GPU stand-in is made for torch {TORCH_VERSION}, not {installed}"
    if (_torch_folder() / "lib" / "libtorch_cuda.so").exists():
        return "the GPU stand-in needs a torch that was built without CUDA"
    if shutil.which("g++") is None:
        return "the GPU stand-in needs the C++ compiler g++ (Debian's package g++)"
    return None


def library() -> Path:
    """Return the path of the compiled library; compile it if this is the first use.

    Compiling takes about 15 seconds. The library is kept in pytest's cache folder,
    under a name that depends on the source and on torch's version.
    """
    digest = hashlib.sha256(SOURCE.read_bytes() + version("torch").encode()).hexdigest()[:16]
    path = CACHE / f"stand_in-{digest}.so"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _compile(path)
    return path


def environment(gpus: int = 1) -> dict[str, str]:
    """Return the environment variables with which Python sees `gpus` GPUs.

    They also hold for the processes that such a process starts.
    """
    paths = [str(FOLDER / "site"), str(ROOT)]
    return {
        LIBRARY_VARIABLE: str(library()),
        GPUS_VARIABLE: str(gpus),
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(gpus))),
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
    }


def _compile(path: Path) -> None:
    torch = _torch_folder()
    includes = [torch / "include", torch / "include" / "torch" / "csrc" / "api" / "include"]
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        made = Path(folder) / path.name
        subprocess.run(
            ["g++", "-std=c++20", "-O0", "-w", "-shared", "-fPIC", str(SOURCE), "-o", str(made)]
            + [f"-I{include}" for include in includes]
            + [f"-L{torch / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{torch / 'lib'}"],
            check=True,
        )
        made.rename(path)


def _torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])
