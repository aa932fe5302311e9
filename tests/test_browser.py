"""The browser fixture: it runs scripts and reports their errors."""

from __future__ import annotations

from playwright.sync_api import Page


def test_scripts_run(page: Page) -> None:
    page.set_content(
        "<p>before</p><script>document.querySelector('p').textContent = 'after'</script>"
    )
    assert page.inner_text("p") == "after"


def test_errors_of_scripts_are_collected(page: Page, script_errors: list[str]) -> None:
    with page.expect_event("pageerror"):
        page.set_content(
            "<script>console.error('logged');"
            "setTimeout(() => { throw new Error('thrown') })</script>"
        )
    assert script_errors == ["logged", "thrown"]
    script_errors.clear()
