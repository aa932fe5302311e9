"""An HTTP server for tests: serves a folder, counts requests, injects faults.

Range requests are supported.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import zlib
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
    "wrong" (a changed byte), "short" (half of the data with a matching length),
    "stall" (half of the data, then nothing until `resume` is set), "trickle" (four
    bytes a second until `resume` is set), "endless" (64 MB of zeros), "stated" (the
    same, with its length) or "gzip" (64 MB of zeros, compressed).
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.requests: Counter[str] = Counter()
        self.faults: defaultdict[str, deque[str]] = defaultdict(deque)
        self.resume = threading.Event()
        self.lock = threading.Lock()
        self.sent_megabytes = 0

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
        if fault in ("endless", "stated", "gzip"):
            self._send_zeros(fault)
            return
        data = self._requested_range(file.read_bytes())
        if fault == "wrong":
            data = bytes([data[0] ^ 1]) + data[1:]
        half = data[: len(data) // 2]
        self._head(206 if "Range" in self.headers else 200, len(half if fault == "short" else data))
        if fault == "trickle":
            self._trickle(data)
            return
        self.wfile.write(half if fault in ("cut", "short", "stall") else data)
        if fault == "cut":
            # A linger time of zero makes closing the connection a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
        if fault == "stall":
            self.server.resume.wait(60)
            self.close_connection = True

    def _trickle(self, data: bytes) -> None:
        for byte in data:
            self.wfile.write(bytes([byte]))
            if self.server.resume.wait(0.25):
                break
        self.close_connection = True

    def _send_zeros(self, fault: str) -> None:
        """Send 64 MB of zeros in 64 pieces, without a length or compressed."""
        self.close_connection = True
        self.send_response(200)
        if fault == "stated":
            self.send_header("Content-Length", str(64_000_000))
        if fault == "gzip":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        packer = zlib.compressobj(wbits=31)
        for _ in range(64):
            piece = bytes(1_000_000)
            self.wfile.write(packer.compress(piece) if fault == "gzip" else piece)
            self.server.sent_megabytes += 1
        self.wfile.write(packer.flush() if fault == "gzip" else b"")

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
