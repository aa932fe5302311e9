"""The browser that tests of pages look through: it runs scripts, and tells of those that fail."""

from __future__ import annotations

from playwright.sync_api import Page


def test_scripts_run(page: Page) -> None:
    page.set_content(
        "<p>before</p><script>document.querySelector('p').textContent = 'after'</script>"
    )
    assert page.inner_text("p") == "after"


def test_complaints_are_heard(page: Page, complaints: list[str]) -> None:
    with page.expect_event("pageerror"):
        page.set_content(
            "<script>console.error('said'); setTimeout(() => { throw new Error('thrown') })</script>"
        )
    assert complaints == ["said", "thrown"]
    complaints.clear()
