"""A reverse proxy that serves a site below a prefix, as proxies of clusters do."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREFIX = "/user/me/proxy/8765"
_NOT_COPIED = ("connection", "keep-alive", "transfer-encoding", "content-length")


class Proxy(ThreadingHTTPServer):
    """Forwards PREFIX/PATH to /PATH of the server at port `target`.

    jupyter-server-proxy keeps the browser's header Host; Apache, as Open OnDemand
    configures it, sends the address of the target instead.
    """

    daemon_threads = True
    target = 0

    def __init__(self, *, keeps_host: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.keeps_host = keeps_host

    @property
    def host(self) -> str:
        """Host and port of the page's address; browsers resolve *.localhost."""
        return f"hub.localhost:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self.path.startswith(PREFIX):
            self.send_error(404)
            return
        response, content = self._forward()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _NOT_COPIED:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.do_GET()

    def _forward(self) -> tuple[http.client.HTTPResponse, bytes]:
        address = f"127.0.0.1:{self.server.target}"
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = dict(self.headers.items())
        if not self.server.keeps_host:
            headers["Host"] = address
        connection = http.client.HTTPConnection(address, timeout=30)
        path = self.path.removeprefix(PREFIX)
        path = path if path.startswith("/") else f"/{path}"
        connection.request(self.command, path, body or None, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response, content

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@contextmanager
def proxy(*, keeps_host: bool) -> Iterator[Proxy]:
    """Run a proxy in a thread; set its `target` before the first request."""
    with Proxy(keeps_host=keeps_host) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(20)
