"""The report's page in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from launch.report.__main__ import main
from launch.report.render import _script_safe
from tests.support.browser import PHONE


def test_the_slider_steps_through_the_sample_grids(
    open_page: Callable[[Path], Page], folder: Path
) -> None:
    page = open_page(folder / "report.html")
    samples = page.locator(".samples").first
    assert samples.locator("img:visible").count() == 1
    assert "step 6" in samples.locator("output").inner_text()
    samples.locator("input").focus()
    page.keyboard.press("Home")
    assert "step 2, 8 images" in samples.locator("output").inner_text()
    assert samples.locator("img").nth(0).is_visible()
    assert samples.locator("img:visible").count() == 1


def test_the_time_line_shows_every_session(open_page: Callable[[Path], Page], folder: Path) -> None:
    page = open_page(folder / "both" / "report.html")
    assert page.locator("#timeline rect.session.finished").count() == 3
    titles = page.locator("#timeline title").all_text_contents()
    assert [title.partition("UTC: ")[2] for title in titles] == [
        "finished at 12 images",
        "finished at 24 images",
        "finished at 24 images",
    ]


@pytest.mark.parametrize("report", ["report.html", "both/report.html"])
def test_a_phone_shows_it_without_horizontal_scrolling(
    open_page: Callable[[Path], Page], page: Page, folder: Path, report: str
) -> None:
    page.set_viewport_size(PHONE)
    open_page(folder / report)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_dark_and_light_colour_schemes_differ(
    open_page: Callable[[Path], Page], folder: Path
) -> None:
    page = open_page(folder / "report.html")
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(253, 252, 250)", "rgb(22, 21, 19)"]


def test_a_run_with_html_in_its_name_is_shown_as_text(
    open_page: Callable[[Path], Page], folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "<img src=x onerror=alert(1)><!-- &lt;script>"
    run.symlink_to(folder / "one")
    assert main([str(run), str(folder / "two"), "--out", str(tmp_path / "out")]) == 0
    page = open_page(tmp_path / "out" / "report.html")
    assert page.locator("#runs tbody th", has_text="<img src=x").count() == 1


def test_data_cannot_close_the_script_element() -> None:
    assert str(_script_safe({"a": "</script>"})) == '{"a":"\\u003c/script>"}'
