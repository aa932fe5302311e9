"""A fake Hugging Face Hub on this machine that accepts uploads of small files."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class FakeHub(ThreadingHTTPServer):
    """Listens on a free port and records what it receives.

    files: contents by name; created: requests to create repositories; tokens: the
    authorization headers.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.tokens: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._respond({"id": "me/old-photos", "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        self.server.tokens.add(self.headers.get("authorization", ""))
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        url = self.server.url
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self._respond({"url": f"{url}/me/old-photos", "id": "me/old-photos"})
        elif self.path == "/api/validate-yaml":  # of the model card
            self._respond({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            requested = json.loads(body)["files"]
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in requested
            ]
            self._respond({"files": files})
        elif "/commit/" in self.path:
            self._store(body)
            self._respond(
                {"commitUrl": f"{url}/me/old-photos/commit/{'1' * 40}", "commitOid": "1" * 40}
            )
        else:
            self.send_error(404)

    def _store(self, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.files[line["value"]["path"]] = base64.b64decode(
                    line["value"]["content"]
                )

    def _respond(self, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Run a hub for the duration of the block."""
    with FakeHub() as hub:
        thread = Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
