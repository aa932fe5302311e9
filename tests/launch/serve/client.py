"""A server of `colortrain serve` in this process, and requests to it, for tests."""

from __future__ import annotations

import http.client
import io
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from colortrain.inference.colorizer import Colorizer
from launch.serve import LOOPBACK, host_name, listen

LIMIT_BYTES = 2 << 20
LIMIT_PIXELS = 1_000_000


@dataclass(frozen=True)
class Site:
    """A server in a thread of this process, and its networks."""

    port: int
    networks: dict[str, Colorizer]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@contextmanager
def serving(networks: dict[str, Colorizer], allowed: Sequence[str] = ()) -> Iterator[Site]:
    """Serve networks in a thread; `allowed` are values of --allow-host."""
    from uvicorn import Config, Server

    from launch.serve.app import Limits, make_app

    limits = Limits(bytes=LIMIT_BYTES, pixels=LIMIT_PIXELS)
    hosts = (*LOOPBACK, *map(host_name, allowed))
    app = make_app(networks, limits, hosts, origins=allowed)
    with listen("127.0.0.1", 0) as listening:
        server = Server(Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield Site(listening.getsockname()[1], networks)
        server.should_exit = True
        thread.join(20)


def upload(
    data: bytes, name: str = "cat.png", field: str = "photo"
) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of an upload, as browsers send it."""
    head = (
        f'--x\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    return head.encode() + data + b"\r\n--x--\r\n", {
        "Content-Type": "multipart/form-data; boundary=x"
    }


def request(
    site: Site, path: str, method: str = "GET", body: Any = None, **options: Any
) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    try:
        connection.request(method, path, body, **options)
        response = connection.getresponse()
        return (
            response.status,
            response.read(),
            {name.lower(): value for name, value in response.getheaders()},
        )
    finally:
        connection.close()


def post(
    site: Site, data: bytes, number: int = 0, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    body, own = upload(data)
    return request(site, f"/colorize/{number}", "POST", body, headers={**own, **headers})


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes whose header claims this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    encoded = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(encoded)


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image)
