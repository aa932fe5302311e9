"""The web application of `colortrain serve`, with valid and malicious requests."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.requests import ClientDisconnect

from colortrain.inference.colorizer import Colorizer
from launch.serve.app import colorize_image
from tests.launch.serve.client import (
    LIMIT_BYTES,
    Site,
    bomb,
    pixels,
    post,
    request,
    serving,
    upload,
)
from tests.support.photographs import encode
from tests.support.small_shard_set import photograph


def test_each_network_colorizes_an_upload(site: Site) -> None:
    cat = photograph("chelsea")
    for number, network in enumerate(site.networks.values()):
        status, png, headers = post(site, encode(cat), number)
        assert (status, headers["content-type"]) == (200, "image/png")
        assert np.array_equal(pixels(png), network.colorize(cat))


def test_a_large_upload_is_not_written_to_disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tempfile.SpooledTemporaryFile.rollover", lambda self: pytest.fail("written")
    )
    noise = encode(np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8))
    assert 1.4e6 < len(noise) < LIMIT_BYTES
    assert post(site, noise)[0] == 200


def test_every_response_has_security_headers(site: Site) -> None:
    for path, method in (
        ("/", "GET"),
        ("/page.js", "GET"),
        ("/nowhere", "GET"),
        ("/colorize/0", "POST"),
    ):
        headers = request(site, path, method)[2]
        policy = headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "style-src 'self'", "frame-ancestors 'none'"} <= set(policy)
        (scripts,) = (rule for rule in policy if rule.startswith("script-src "))
        assert re.fullmatch(r"script-src 'self' 'sha256-[\w+/]{43}='", scripts)
        assert not any(
            source in headers["content-security-policy"] for source in ("unsafe", "http", "*")
        )
        assert (headers["x-content-type-options"], headers["cache-control"]) == (
            "nosniff",
            "no-store",
        )


@pytest.mark.parametrize(
    ("data", "status", "sentence"),
    [
        (b"\xff\xd8\xff\xe0 no more", 422, "damaged or not a supported image"),
        (b"", 422, "damaged or not a supported image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", 422, "damaged or not a supported image"),
        (encode(photograph("chelsea"))[:-4000], 422, "damaged or not"),
        (bomb(50_000, 50_000), 413, "The maximum is 1 megapixels"),
        (bytes(3 << 20), 413, "The maximum is 2 MB"),
    ],
    ids=["broken", "empty", "PostScript", "truncated", "bomb", "large"],
)
def test_invalid_uploads_are_rejected_with_one_sentence(
    site: Site, data: bytes, status: int, sentence: str
) -> None:
    found, body, headers = post(site, data)
    assert (found, headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert sentence in body.decode()
    assert b"\n" not in body.strip()
    assert post(site, encode(photograph("chelsea")))[0] == 200, "the server keeps working"


def test_an_upload_without_content_length_is_cut_off(site: Site) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield upload(b"")[0][:-9]
        while sent < 200 << 20:
            sent += 1 << 16
            yield bytes(1 << 16)

    try:
        status, body, _ = request(
            site, "/colorize/0", "POST", endless(), headers=upload(b"")[1], encode_chunked=True
        )
        assert (status, b"The maximum is 2 MB" in body) == (413, True)
    except (BrokenPipeError, ConnectionResetError):  # the server closed the connection first
        pass
    assert sent < 100 << 20


@pytest.mark.parametrize(
    ("length", "status"), [(10, (400,)), (4000, (400, None))], ids=["too short", "too long"]
)
def test_a_wrong_content_length_does_not_harm_the_server(
    site: Site, length: int, status: tuple[int | None, ...]
) -> None:
    body, headers = upload(b"x" * 100)
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    connection.request(
        "POST", "/colorize/0", body, headers={**headers, "Content-Length": str(length)}
    )
    assert connection.sock
    connection.sock.shutdown(1)  # end of the request
    try:
        found: int | None = connection.getresponse().status
    except (http.client.HTTPException, ConnectionError):
        found = None
    connection.close()
    assert found in status
    assert post(site, encode(photograph("chelsea")))[0] == 200


def test_file_names_of_uploads_are_ignored(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "../../../etc/passwd",
        "/etc/passwd",
        "C:\\boot.ini",
        "a\x00b.png",
        "x" * 300,
        "<script>.png",
    ):
        body, headers = upload(encode(photograph("chelsea")), name)
        status, png, received = request(site, "/colorize/0", "POST", body, headers=headers)
        assert status == 200
        assert received["content-disposition"] == 'inline; filename="coloured.png"'
        assert pixels(png).shape == photograph("chelsea").shape
    assert list(tmp_path.iterdir()) == []
    for path in ("/../app.py", "/page/../app.py", "/..%2fapp.py", "/page.html"):
        assert request(site, path)[0] == 404


def test_an_upload_whose_client_is_gone_is_not_colorized(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, colorized = threading.Event(), list[int]()

    def record(network: Colorizer, data: bytes, *options: Any) -> bytes:
        colorized.append(len(data))
        assert release.wait(20)
        return colorize_image(network, data, *options)

    monkeypatch.setattr("launch.serve.app.colorize_image", record)
    images = [encode(photograph("chelsea")[: 40 + row]) for row in range(5)]
    for image in images[:4]:
        leave(site, image)
    with ThreadPoolExecutor() as pool:
        last = pool.submit(post, site, images[4])
        time.sleep(0.3)  # until it waits for its turn
        assert colorized == [len(images[0])], "one image at a time, although its client is gone"
        release.set()
        assert last.result()[0] == 200
    assert colorized == [len(images[0]), len(images[4])]


def leave(site: Site, image: bytes) -> None:
    """Send an upload, wait until it is in the queue, and close the connection."""
    body, headers = upload(image)
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    connection.request("POST", "/colorize/0", body, headers=headers)
    time.sleep(0.3)
    connection.close()


def test_colorizing_ends_at_the_next_step_if_the_client_is_gone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, gone = site.networks["first"], threading.Event()
    image = encode(photograph("chelsea"))
    assert pixels(colorize_image(network, image, 10**6, gone)).shape == (300, 451, 3)
    monkeypatch.setattr("PIL.Image.Image.save", lambda *_: pytest.fail("encoded"))

    def leave_while_colorizing(image: Image.Image) -> Image.Image:
        gone.set()
        return image

    monkeypatch.setattr(network, "colorize", leave_while_colorizing)
    with pytest.raises(ClientDisconnect):
        colorize_image(network, image, 10**6, gone)
    monkeypatch.setattr(network, "colorize", lambda _: pytest.fail("colorized"))
    with pytest.raises(ClientDisconnect):
        colorize_image(network, image, 10**6, gone)


def test_a_photograph_that_does_not_fit_into_memory_is_rejected(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def colorize(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("colortrain.inference.colorizer.Colorizer.colorize", colorize)
    status, body, _ = post(site, encode(photograph("chelsea")))
    assert status == 503
    assert "not enough free memory" in body.decode()


def test_only_allowed_hosts_may_serve_the_page_and_send_photographs(site: Site) -> None:
    cat = encode(photograph("chelsea"))
    with serving(site.networks, ["hub.example.org", "hub.example.org:8443"]) as allowing:

        def status(host: str | None, origin: str | None) -> int:
            headers = {"Host": host, "Origin": origin}
            given = {name: value for name, value in headers.items() if value is not None}
            body, own = upload(cat)
            return request(allowing, "/colorize/0", "POST", body, headers={**own, **given})[0]

        assert status("hub.example.org", "https://hub.example.org") == 200
        assert status("hub.example.org:8443", "https://hub.example.org:8443") == 200
        assert status(None, "https://hub.example.org") == 200, "the proxy sent its own Host"
        assert status(None, "https://hub.example.org:8443") == 200
        assert status(None, allowing.url.rstrip("/")) == 200
        assert status(None, None) == 200
        for origin in (
            "https://elsewhere.example",
            "https://hub.example.org:9999",
            "https://hub.example.org.elsewhere.example",
            "https://elsewhere.example/hub.example.org",
            "https://not-hub.example.org",
            "hub.example.org",
            "null",
            "",
        ):
            assert status(None, origin) == 403, origin
            assert status("hub.example.org", origin) == 403, origin
        for host in ("elsewhere.example", "hub.example.org.elsewhere.example", "x.hub.example.org"):
            assert status(host, None) == 400, "DNS rebinding"
            assert status(host, f"https://{host}") == 400
            assert request(allowing, "/", headers={"Host": host})[0] == 400
    assert post(site, cat, Origin="https://hub.example.org")[0] == 403
    assert post(site, cat, Host="hub.example.org")[0] == 400


def test_other_requests_are_rejected(site: Site) -> None:
    cat = encode(photograph("chelsea"))
    assert post(site, cat, Origin="https://elsewhere.example")[0] == 403
    assert post(site, cat, Origin="null")[0] == 403
    assert post(site, cat, Origin=site.url.rstrip("/"))[0] == 200
    assert post(site, cat, Host="elsewhere.example")[0] == 400, "DNS rebinding"
    assert post(site, cat, number=2)[0] == 404
    body, headers = upload(cat, field="other")
    assert request(site, "/colorize/0", "POST", body, headers=headers)[0] == 400
    assert request(site, "/colorize/0", "POST", body[:60], headers=headers)[0] == 400
    assert (
        request(site, "/colorize/0", "POST", body, headers={"Content-Type": "multipart/form-data"})[
            0
        ]
        == 400
    )
    assert (
        request(site, "/colorize/0", "POST", cat, headers={"Content-Type": "image/png"})[0] == 415
    )
    assert request(site, "/colorize/0")[0] == 405
    two = body[:-9] + b"\r\n" + upload(cat)[0]
    assert request(site, "/colorize/0", "POST", two, headers=headers)[0] == 400
