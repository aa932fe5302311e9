"""The page of `colortrain serve` in Chromium, with real uploads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.launch.serve.client import Site, pixels, serving
from tests.launch.serve.proxy import PREFIX, proxy
from tests.support.browser import PHONE
from tests.support.photographs import encode
from tests.support.small_shard_set import photograph


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


@pytest.mark.parametrize("keeps_host", [True, False], ids=["jupyter", "apache"])
def test_the_page_works_below_a_prefix(page: Page, site: Site, keeps_host: bool) -> None:
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    cat = photograph("chelsea")
    with (
        proxy(keeps_host=keeps_host) as server,
        serving(site.networks, allowed=[server.host]) as behind,
    ):
        server.target = behind.port
        below = f"http://{server.host}{PREFIX}/"
        page.goto(below)
        send(page, "cat.png", encode(cat))
        wait_for_results(page, 2)
        expect(page.locator(".after").first).to_have_js_property("naturalWidth", cat.shape[1])
        background = page.eval_on_selector("#drop", "one => getComputedStyle(one).borderTopStyle")
        assert background == "dashed", "the stylesheet is loaded"
    assert {url for url in requested if not url.startswith(("blob:", "data:"))} == {
        below + path for path in ("", "page.css", "page.js", "colorize/0", "colorize/1")
    }


def test_a_missing_slash_after_the_prefix_is_added(
    page: Page, site: Site, script_errors: list[str]
) -> None:
    with proxy(keeps_host=False) as server, serving(site.networks) as behind:
        server.target = behind.port
        page.goto(f"http://{server.host}{PREFIX}?token=t")
        page.wait_for_url(f"http://{server.host}{PREFIX}/?token=t")
        expect(page.locator("#drop")).to_have_css("border-top-style", "dashed")
    script_errors.clear()  # of the style and the script, requested before the slash was added


def test_a_proxy_that_is_not_allowed_cannot_send_photographs(
    page: Page, site: Site, script_errors: list[str]
) -> None:
    with proxy(keeps_host=False) as server, serving(site.networks) as behind:
        server.target = behind.port
        page.goto(f"http://{server.host}{PREFIX}/")
        send(page, "cat.png", encode(photograph("chelsea")))
        page.wait_for_selector("[role=alert]")
        assert "only from this server's own page" in page.inner_text("[role=alert]")
    assert len(script_errors) == 1
    script_errors.clear()  # browsers report every rejected request


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
