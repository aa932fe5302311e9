"""An HTTP server for tests: serves a folder, counts requests, injects faults.

Range requests are supported.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import fsspec
import pytest

from shards.read.store import Remote


class Server(ThreadingHTTPServer):
    """Serves `root`; `faults[path]` are the faults of a path's next requests.

    A fault is a status ("500"), "cut" (half of the data, then a connection reset),
    "wrong" (a changed byte), "short" (half of the data with a matching length) or
    "stall" (half of the data, then nothing until `resume` is set).
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.requests: Counter[str] = Counter()
        self.faults: defaultdict[str, deque[str]] = defaultdict(deque)
        self.resume = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self, path: str) -> str | None:
        """Count a request and return its fault, None for a normal response."""
        with self.lock:
            self.requests[path] += 1
            return self.faults[path].popleft() if self.faults[path] else None

    def handle_error(self, request: object, address: object) -> None:
        """Ignore errors: tests kill clients on purpose."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        fault = self.server.fault(path)
        file = self.server.root / path
        if (fault and fault.isdigit()) or not file.is_file():
            self._head(int(fault or 404), 0)
            return
        data = self._requested_range(file.read_bytes())
        if fault == "wrong":
            data = bytes([data[0] ^ 1]) + data[1:]
        half = data[: len(data) // 2]
        self._head(206 if "Range" in self.headers else 200, len(half if fault == "short" else data))
        self.wfile.write(half if fault in ("cut", "short", "stall") else data)
        if fault == "cut":
            # A linger time of zero makes closing the connection a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
        if fault == "stall":
            self.server.resume.wait(60)
            self.close_connection = True

    def _requested_range(self, data: bytes) -> bytes:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        return data[int(match[1]) : int(match[2] or len(data)) + 1] if match else data

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def do_HEAD(self) -> None:
        file = self.server.root / unquote(urlsplit(self.path).path).lstrip("/")
        exists = file.is_file()
        self._head(200 if exists else 404, file.stat().st_size if exists else 0)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(root: Path) -> Iterator[Server]:
    """Run a server of `root` in the `with` block.

    It stops after running prefetches have ended, and closes the connections of fsspec.
    """
    pytest.importorskip("aiohttp", reason="colortrain[remote] is not installed")
    server = Server(root)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.resume.set()
        for other in threading.enumerate():
            # A prefetch that outlives the server would print warnings in the next test.
            if Remote._fetch_pending.__name__ in other.name:
                other.join(20)
        fsspec.get_filesystem_class("http").clear_instance_cache()
        server.shutdown()
        server.server_close()
        thread.join()
