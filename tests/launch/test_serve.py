"""The page that colours photographs, in Chromium with real uploads, and its server against hostile ones."""

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

pytest.importorskip("starlette", reason="the page needs colortrain[serve]")
from playwright.sync_api import FilePayload, Page, expect
from uvicorn import Config, Server

from launch.serve.app import Limits, make_app

LIMITS = Limits(bytes=2 << 20, pixels=1_000_000)


@dataclass(frozen=True)
class Site:
    """A server in a thread of this process, and the networks behind it."""

    port: int
    networks: dict[str, Colorizer]

    @property
    def address(self) -> str:
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
    """A request's body and headers, as browsers make them."""
    head = f'--x\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
    return head.encode() + data + b"\r\n--x--\r\n", {
        "Content-Type": "multipart/form-data; boundary=x"
    }


def ask(
    site: Site, path: str, method: str = "GET", body: Any = None, **how: Any
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    try:
        connection.request(method, path, body, **how)
        answer = connection.getresponse()
        return (
            answer.status,
            answer.read(),
            {name.lower(): value for name, value in answer.getheaders()},
        )
    finally:
        connection.close()


def post(
    site: Site, data: bytes, number: int = 0, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    body, own = upload(data)
    return ask(site, f"/colorize/{number}", "POST", body, headers={**own, **headers})


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has that many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    made = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def test_a_photograph_comes_back_as_each_network_colours_it(site: Site) -> None:
    cat = photograph("chelsea")
    for number, network in enumerate(site.networks.values()):
        status, png, headers = post(site, encode(cat), number)
        assert (status, headers["content-type"]) == (200, "image/png")
        assert np.array_equal(pixels(png), network.colorize(cat))


def test_a_photograph_of_megabytes_never_reaches_the_disk(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tempfile.SpooledTemporaryFile.rollover", lambda self: pytest.fail("written")
    )
    noise = encode(np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8))
    assert 1.4e6 < len(noise) < LIMITS.bytes
    assert post(site, noise)[0] == 200


def test_every_answer_is_locked_up(site: Site) -> None:
    for path, method in (
        ("/", "GET"),
        ("/page.js", "GET"),
        ("/nowhere", "GET"),
        ("/colorize/0", "POST"),
    ):
        headers = ask(site, path, method)[2]
        policy = headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)
        assert not any(
            word in headers["content-security-policy"] for word in ("unsafe", "http", "*")
        )
        assert (headers["x-content-type-options"], headers["cache-control"]) == (
            "nosniff",
            "no-store",
        )


@pytest.mark.parametrize(
    ("data", "status", "sentence"),
    [
        (b"\xff\xd8\xff\xe0 no more", 422, "no picture that can be read"),
        (b"", 422, "no picture that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", 422, "no picture that can be read"),
        (encode(photograph("chelsea"))[:-4000], 422, "damaged"),
        (bomb(50_000, 50_000), 413, "more than 1 megapixels"),
        (bytes(3 << 20), 413, "larger than 2 MB"),
    ],
    ids=["broken", "empty", "PostScript", "cut short", "bomb", "big"],
)
def test_what_cannot_be_coloured_is_refused_in_one_sentence(
    site: Site, data: bytes, status: int, sentence: str
) -> None:
    found, said, headers = post(site, data)
    assert (found, headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert sentence in said.decode()
    assert b"\n" not in said.strip()
    assert post(site, encode(photograph("chelsea")))[0] == 200, "and the server goes on"


def test_an_upload_that_hides_its_size_is_cut_off(site: Site) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield upload(b"")[0][:-9]
        while sent < 200 << 20:
            sent += 1 << 16
            yield bytes(1 << 16)

    try:
        status, said, _ = ask(
            site, "/colorize/0", "POST", endless(), headers=upload(b"")[1], encode_chunked=True
        )
        assert (status, b"larger than 2 MB" in said) == (413, True)
    except (BrokenPipeError, ConnectionResetError):  # it hung up while we were still talking
        pass
    assert sent < 100 << 20


@pytest.mark.parametrize(
    ("told", "status"), [(10, (400,)), (4000, (400, None))], ids=["too short", "too long"]
)
def test_a_wrong_content_length_harms_nobody(
    site: Site, told: int, status: tuple[int | None, ...]
) -> None:
    body, headers = upload(b"x" * 100)
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    connection.request(
        "POST", "/colorize/0", body, headers={**headers, "Content-Length": str(told)}
    )
    assert connection.sock
    connection.sock.shutdown(1)  # no more will come
    try:
        found: int | None = connection.getresponse().status
    except (http.client.HTTPException, ConnectionError):
        found = None
    connection.close()
    assert found in status
    assert post(site, encode(photograph("chelsea")))[0] == 200


def test_names_of_uploads_are_not_looked_at(
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
        status, png, answered = ask(site, "/colorize/0", "POST", body, headers=headers)
        assert status == 200
        assert answered["content-disposition"] == 'inline; filename="coloured.png"'
        assert pixels(png).shape == photograph("chelsea").shape
    assert list(tmp_path.iterdir()) == []
    for path in ("/../app.py", "/page/../app.py", "/..%2fapp.py", "/page.html"):
        assert ask(site, path)[0] == 404


def test_other_requests_are_refused(site: Site) -> None:
    cat = encode(photograph("chelsea"))
    assert post(site, cat, Origin="https://elsewhere.example")[0] == 403
    assert post(site, cat, Origin="null")[0] == 403
    assert post(site, cat, Origin=site.address.rstrip("/"))[0] == 200
    assert post(site, cat, Host="elsewhere.example")[0] == 400, "a name that was made to point here"
    assert post(site, cat, number=2)[0] == 404
    body, headers = upload(cat, field="other")
    assert ask(site, "/colorize/0", "POST", body, headers=headers)[0] == 400
    assert ask(site, "/colorize/0", "POST", body[:60], headers=headers)[0] == 400
    assert (
        ask(site, "/colorize/0", "POST", body, headers={"Content-Type": "multipart/form-data"})[0]
        == 400
    )
    assert ask(site, "/colorize/0", "POST", cat, headers={"Content-Type": "image/png"})[0] == 415
    assert ask(site, "/colorize/0")[0] == 405
    two = body[:-9] + b"\r\n" + upload(cat)[0]
    assert ask(site, "/colorize/0", "POST", two, headers=headers)[0] == 400


def test_the_doors_mistakes_are_one_line(site: Site, tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    small_run(tmp_path / "a" / "run")
    run = ["--run", str(tmp_path / "run")]
    with pytest.raises(UserError, match=f"cannot listen at 127.0.0.1:{site.port} .*another --port"):
        main([*run, "--port", str(site.port)])
    with pytest.raises(UserError, match=r"cannot listen at 203\.0\.113\.9"):
        main([*run, "--host", "203.0.113.9", "--port", "0"])
    with pytest.raises(UserError, match="is given twice"):
        main([*run, *run])
    with pytest.raises(UserError, match="holds no network"):
        main(["--run", str(tmp_path)])


def test_the_door_says_where_it_is_and_ends_when_interrupted(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    line = [sys.executable, "-m", "launch.serve", "--run", str(tmp_path / "run"), "--port", "0"]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as door:
        try:
            assert door.stdout
            found = re.match(r"http://127\.0\.0\.1:(\d+)  ", door.stdout.readline())
            assert found
            assert ask(Site(int(found[1]), {}), "/")[0] == 200
            door.send_signal(signal.SIGINT)
            assert door.wait(30) == 0
        finally:
            door.kill()


# In Chromium


def payload(name: str, data: bytes) -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": data}


def opened(page: Page, site: Site) -> Page:
    page.goto(site.address)
    return page


def send(page: Page, name: str, data: bytes) -> None:
    page.set_input_files("#photo", [payload(name, data)])


def wait_for_results(page: Page, count: int) -> None:
    expect(page.locator("[aria-busy=false]")).to_have_count(
        count
    )  # its policy forbids Playwright's polling scripts


def cut(page: Page) -> list[str]:
    """How much of each grey picture is cut off at the right."""
    return page.eval_on_selector_all(".before", "all => all.map(one => one.style.clipPath)")


def test_a_photograph_is_coloured_compared_and_downloaded(
    page: Page, site: Site, tmp_path: Path
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    opened(page, site)
    cat = photograph("chelsea")
    send(page, "my.cat.png", encode(cat))
    wait_for_results(page, 2)
    assert page.inner_text("#status") == "my.cat.png is coloured. Move the slider to compare."
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
        "both networks' pictures are divided alike"
    )
    assert cut(page) == ["inset(0px 40% 0px 0px)"] * 2
    assert page.eval_on_selector(".before", "one => getComputedStyle(one).filter") == "grayscale(1)"
    page.check(".own input")
    assert page.eval_on_selector(".before", "one => getComputedStyle(one).filter") == "none"
    for number, (name, network) in enumerate(site.networks.items()):
        with page.expect_download() as started:
            page.locator(".download").nth(number).click()
        assert started.value.suggested_filename == f"my.cat-{name}.png"
        started.value.save_as(tmp_path / name)
        assert np.array_equal(pixels((tmp_path / name).read_bytes()), network.colorize(cat))
    assert {url.partition("?")[0] for url in asked if not url.startswith(("blob:", "data:"))} == {
        site.address + path for path in ("", "page.css", "page.js", "colorize/0", "colorize/1")
    }


def test_photographs_are_dropped_several_at_once(page: Page, site: Site) -> None:
    opened(page, site)
    script = """async address => {
        const transfer = new DataTransfer();
        for (const name of ["one.png", "two.png"]) {
            const canvas = new OffscreenCanvas(40, 30);
            canvas.getContext("2d").fillRect(5, 5, 20, 10);
            transfer.items.add(new File([await canvas.convertToBlob()], name, { type: "image/png" }));
        }
        return transfer;
    }"""
    transfer = page.evaluate_handle(script)
    page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    assert page.get_attribute("body", "class") == "over"
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    wait_for_results(page, 4)
    assert page.locator(".photo h2").all_inner_texts() == ["two.png", "one.png"]


def test_a_format_that_browsers_lack_is_shown_all_the_same(page: Page, site: Site) -> None:
    opened(page, site)
    send(page, "scan.tif", encode(photograph("coffee")[::2, ::2], "TIFF"))
    wait_for_results(page, 2)
    for number in (0, 1):
        expect(page.locator(".before").nth(number)).to_have_js_property("naturalWidth", 300)


def test_refusals_are_polite_and_the_next_photograph_works(
    page: Page, site: Site, complaints: list[str]
) -> None:
    opened(page, site)
    send(page, "broken.jpg", b"\xff\xd8\xff\xe0 no more")
    page.wait_for_selector("[role=alert]")
    assert (
        page.inner_text("[role=alert]")
        == "This file is no picture that can be read here, or it is damaged."
    )
    send(page, "large.png", bytes(3 << 20))
    expect(page.locator("[role=alert]")).to_have_count(2)
    assert "larger than 2 MB" in page.locator("[role=alert]").first.inner_text()
    assert len(complaints) == 1, "the large one was not even sent"
    complaints.clear()  # browsers report every refusal
    send(page, "cat.png", encode(photograph("chelsea")))
    wait_for_results(page, 2)


def test_a_hostile_name_is_only_text(page: Page, site: Site) -> None:
    opened(page, site)
    name = "<img src=x onerror=document.title='owned'>.png"
    send(page, name, encode(photograph("chelsea")))
    wait_for_results(page, 2)
    assert page.inner_text(".photo h2") == name
    assert page.title() == "Colour a photograph – colortrain"
    assert page.locator("h2 img").count() == 0


def test_the_keyboard_alone_is_enough(page: Page, site: Site) -> None:
    # Asked for before the page opens: `expect_file_chooser` does not wait until Chromium intercepts its dialogs, and
    # headless Chromium cancels one that nobody intercepts.
    page.on("filechooser", lambda _: None)
    opened(page, site)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "photo"
    outline = page.eval_on_selector("#drop", "one => getComputedStyle(one).outlineStyle")
    assert outline == "solid", "one sees where one is"
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
def test_a_phone_shows_it_without_sideways_scrolling(page: Page, site: Site, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE)
    opened(page, site)
    send(page, "a" * 80 + ".png", encode(np.tile(photograph("chelsea"), (1, 2, 1))))
    wait_for_results(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    boxes = [page.locator(".stage").nth(number).bounding_box() for number in (0, 1)]
    assert boxes[0]
    assert boxes[1]
    assert boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"], "one below the other"
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) > 600) == (scheme == "light")


def test_without_scripts_the_form_works(site: Site, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    opened(page, site)
    send(page, "cat.png", encode(photograph("chelsea")))
    with page.expect_response("**/colorize/0") as answer:
        page.click("button")
    assert answer.value.status == 200
    assert answer.value.headers["content-type"] == "image/png"
    context.close()
