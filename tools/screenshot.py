"""The picture of the README: ``python -m tools.screenshot [URL]`` takes it from the playground of a running service.

Needs the packages of ``make unit`` and a Chromium on the machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Browser, ViewportSize, expect

from tests.browser import chromium

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "playground.png"
_SIZE: ViewportSize = {"width": 1120, "height": 600}
_QUERY = "rotate a log file"
_CANDIDATES = (
    "cron runs jobs at fixed times.",
    "logrotate rotates log files.",
    "tar packs files into one archive.",
    "Rotate the crops, and the soil recovers.",
)


def take(browser: Browser, url: str, target: Path = TARGET) -> None:
    """Reranks an example, opens the explanation of the best candidate, and writes a PNG."""
    with browser.new_context(viewport=_SIZE, device_scale_factor=1.5, color_scheme="light") as profile:
        page = profile.new_page()
        page.goto(f"{url}/#rerank")
        page.locator("#query").fill(_QUERY)
        page.locator("#candidates").fill("\n".join(_CANDIDATES))
        page.locator("#rerank-model").select_option("bge-m3-small")
        page.get_by_role("button", name="Rerank", exact=True).click()
        expect(page.locator("#rerank-said")).to_contain_text("candidates", timeout=30_000)
        page.locator(".rank").first.click()
        expect(page.locator(".matches tbody tr").first).to_be_visible(timeout=30_000)
        page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
        page.screenshot(path=target, full_page=True)


if __name__ == "__main__":
    with chromium() as chrome:
        take(chrome, sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://localhost:8000")
