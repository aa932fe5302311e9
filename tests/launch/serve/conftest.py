"""The server that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import colortrain
from tests.launch.serve.client import Site, serving
from tests.support.small_run import small_run


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with two networks, and small limits for uploads."""
    pytest.importorskip("starlette", reason="needs colortrain[serve]")
    folder = tmp_path_factory.mktemp("serve")
    for seed, name in enumerate(("first", "second")):
        small_run(folder / name, seed=seed)
    with serving({name: colortrain.load(folder / name) for name in ("first", "second")}) as site:
        yield site
