"""Run commands on GPU stand-ins, from tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pytest

from tests.support.gpu_stand_in import build
from tests.support.processes import ROOT, environment, gpu_command

_REASON = build.why_unavailable()
needs_stand_in = pytest.mark.skipif(_REASON is not None, reason=_REASON or "")


def run_on_gpus(
    module: str,
    arguments: Sequence[object],
    gpus: int = 1,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    """Run a module to its end on stand-ins; return status and output.

    With several GPUs `accelerate launch` starts one process for each. `variables` are
    added to the environment.
    """
    alone = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(
        alone if gpus == 1 else gpu_command(module, arguments, gpus),
        env={**environment(), **build.environment(gpus), **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
