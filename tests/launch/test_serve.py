"""The `colortrain serve` page in Chromium, and its server with malicious requests."""

from __future__ import annotations

import http.client
import io
import re
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import colortrain
from colortrain.inference.colorizer import Colorizer
from launch.serve import LOOPBACK, listen, main
from shards.errors import UserError
from tests.support.browser import PHONE
from tests.support.photographs import encode
from tests.support.processes import ROOT
from tests.support.small_run import small_run
from tests.support.small_shard_set import photograph

pytest.importorskip("starlette", reason="needs colortrain[serve]")
from playwright.sync_api import FilePayload, Page, expect
from uvicorn import Config, Server

from launch.serve.app import Limits, make_app

LIMITS = Limits(bytes=2 << 20, pixels=1_000_000)


@dataclass(frozen=True)
class Site:
    """A server in a thread of this process, and its networks."""

    port: int
    networks: dict[str, Colorizer]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("serve")
    for seed, name in enumerate(("first", "second")):
        small_run(folder / name, seed=seed)
    networks = {name: colortrain.load(folder / name) for name in ("first", "second")}
    with listen("127.0.0.1", 0) as listening:
        server = Server(Config(make_app(networks, LIMITS, LOOPBACK), log_level="critical"))
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
    assert 1.4e6 < len(noise) < LIMITS.bytes
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
        assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)
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


def test_errors_of_the_command_are_one_line(site: Site, tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    small_run(tmp_path / "a" / "run")
    run = ["--run", str(tmp_path / "run")]
    with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{site.port} .*another --port"):
        main([*run, "--port", str(site.port)])
    with pytest.raises(UserError, match=r"cannot listen on 203\.0\.113\.9"):
        main([*run, "--host", "203.0.113.9", "--port", "0"])
    with pytest.raises(UserError, match="is given twice"):
        main([*run, *run])
    with pytest.raises(UserError, match="holds no network"):
        main(["--run", str(tmp_path)])


def test_the_server_prints_its_address_and_stops_when_interrupted(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    line = [sys.executable, "-m", "launch.serve", "--run", str(tmp_path / "run"), "--port", "0"]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            found = re.match(r"http://127\.0\.0\.1:(\d+)  ", server.stdout.readline())
            assert found
            assert request(Site(int(found[1]), {}), "/")[0] == 200
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0
        finally:
            server.kill()


# In Chromium


def payload(name: str, data: bytes) -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": data}


def opened(page: Page, site: Site) -> Page:
    page.goto(site.url)
    return page


def send(page: Page, name: str, data: bytes) -> None:
    page.set_input_files("#photo", [payload(name, data)])


def wait_for_results(page: Page, count: int) -> None:
    expect(page.locator("[aria-busy=false]")).to_have_count(
        count
    )  # the page's policy forbids the scripts of `wait_for_function`


def cut(page: Page) -> list[str]:
    """Return the clip path of each original image."""
    return page.eval_on_selector_all(".before", "all => all.map(one => one.style.clipPath)")


def test_a_photograph_is_colorized_compared_and_downloaded(
    page: Page, site: Site, tmp_path: Path
) -> None:
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    opened(page, site)
    cat = photograph("chelsea")
    send(page, "my.cat.png", encode(cat))
    wait_for_results(page, 2)
    assert page.inner_text("#status") == "my.cat.png is colorized. Move the slider to compare."
    for number in range(4):
        expect(page.locator(".stage img").nth(number)).to_have_js_property("naturalWidth", 451)
    sizes = page.eval_on_selector_all(
        ".stage img", "all => all.map(one => [one.naturalWidth, one.naturalHeight])"
    )
    assert sizes == [[451, 300]] * 4
    page.focus(".result:nth-child(2) input")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert page.input_value(".result:nth-child(1) input") == "60", (
        "all results are divided at the same position"
    )
    assert cut(page) == ["inset(0px 40% 0px 0px)"] * 2
    assert page.eval_on_selector(".before", "one => getComputedStyle(one).filter") == "grayscale(1)"
    page.check(".original input")
    assert page.eval_on_selector(".before", "one => getComputedStyle(one).filter") == "none"
    for number, (name, network) in enumerate(site.networks.items()):
        with page.expect_download() as started:
            page.locator(".download").nth(number).click()
        assert started.value.suggested_filename == f"my.cat-{name}.png"
        started.value.save_as(tmp_path / name)
        assert np.array_equal(pixels((tmp_path / name).read_bytes()), network.colorize(cat))
    assert {
        url.partition("?")[0] for url in requested if not url.startswith(("blob:", "data:"))
    } == {site.url + path for path in ("", "page.css", "page.js", "colorize/0", "colorize/1")}


def test_several_photographs_can_be_dropped_at_once(page: Page, site: Site) -> None:
    opened(page, site)
    script = """async address => {
        const transfer = new DataTransfer();
        for (const name of ["one.png", "two.png"]) {
            const canvas = new OffscreenCanvas(40, 30);
            canvas.getContext("2d").fillRect(5, 5, 20, 10);
            const blob = await canvas.convertToBlob();
            transfer.items.add(new File([blob], name, { type: "image/png" }));
        }
        return transfer;
    }"""
    transfer = page.evaluate_handle(script)
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    assert page.get_attribute("body", "class") == "over"
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    wait_for_results(page, 4)
    assert page.locator(".photo h2").all_inner_texts() == ["two.png", "one.png"]


def test_an_image_format_without_browser_support_is_shown(page: Page, site: Site) -> None:
    opened(page, site)
    send(page, "scan.tif", encode(photograph("coffee")[::2, ::2], "TIFF"))
    wait_for_results(page, 2)
    for number in (0, 1):
        expect(page.locator(".before").nth(number)).to_have_js_property("naturalWidth", 300)


def test_the_page_shows_rejections_and_accepts_the_next_photograph(
    page: Page, site: Site, script_errors: list[str]
) -> None:
    opened(page, site)
    send(page, "broken.jpg", b"\xff\xd8\xff\xe0 no more")
    page.wait_for_selector("[role=alert]")
    assert page.inner_text("[role=alert]") == "This file is damaged or not a supported image."
    send(page, "large.png", bytes(3 << 20))
    expect(page.locator("[role=alert]")).to_have_count(2)
    assert "The maximum is 2 MB" in page.locator("[role=alert]").first.inner_text()
    assert len(script_errors) == 1, "the large file is not uploaded"
    script_errors.clear()  # browsers report every rejected request
    send(page, "cat.png", encode(photograph("chelsea")))
    wait_for_results(page, 2)


def test_html_in_a_file_name_is_shown_as_text(page: Page, site: Site) -> None:
    opened(page, site)
    name = "<img src=x onerror=document.title='owned'>.png"
    send(page, name, encode(photograph("chelsea")))
    wait_for_results(page, 2)
    assert page.inner_text(".photo h2") == name
    assert page.title() == "Colorize a photograph – colortrain"
    assert page.locator("h2 img").count() == 0


def test_the_page_works_with_the_keyboard_alone(page: Page, site: Site) -> None:
    # A handler before the page opens: `expect_file_chooser` does not wait until
    # Chromium intercepts its dialogs, and headless Chromium cancels a dialog that is
    # not intercepted.
    page.on("filechooser", lambda _: None)
    opened(page, site)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "photo"
    outline = page.eval_on_selector("#drop", "one => getComputedStyle(one).outlineStyle")
    assert outline == "solid", "the focus is visible"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files([payload("cat.png", encode(photograph("chelsea")))])
    wait_for_results(page, 2)
    reached = []
    for _ in range(5):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.className || document.activeElement.type")
        )
    assert reached == ["checkbox", "range", "download", "range", "download"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_horizontal_scrolling(page: Page, site: Site, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE)
    opened(page, site)
    send(page, "a" * 80 + ".png", encode(np.tile(photograph("chelsea"), (1, 2, 1))))
    wait_for_results(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    boxes = [page.locator(".stage").nth(number).bounding_box() for number in (0, 1)]
    assert boxes[0]
    assert boxes[1]
    assert boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"], "results are below each other"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) > 600) == (scheme == "light")


def test_the_form_works_without_javascript(site: Site, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    opened(page, site)
    send(page, "cat.png", encode(photograph("chelsea")))
    with page.expect_response("**/colorize/0") as response:
        page.click("button")
    assert response.value.status == 200
    assert response.value.headers["content-type"] == "image/png"
    context.close()
