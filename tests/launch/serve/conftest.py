"""The server that the tests of this folder share."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import colortrain
from launch.serve import LOOPBACK, listen
from tests.launch.serve.client import LIMIT_BYTES, LIMIT_PIXELS, Site
from tests.support.small_run import small_run


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with two networks, and small limits for uploads."""
    pytest.importorskip("starlette", reason="needs colortrain[serve]")
    from uvicorn import Config, Server

    from launch.serve.app import Limits, make_app

    folder = tmp_path_factory.mktemp("serve")
    for seed, name in enumerate(("first", "second")):
        small_run(folder / name, seed=seed)
    networks = {name: colortrain.load(folder / name) for name in ("first", "second")}
    limits = Limits(bytes=LIMIT_BYTES, pixels=LIMIT_PIXELS)
    with listen("127.0.0.1", 0) as listening:
        server = Server(Config(make_app(networks, limits, LOOPBACK), log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield Site(listening.getsockname()[1], networks)
        server.should_exit = True
        thread.join(20)
