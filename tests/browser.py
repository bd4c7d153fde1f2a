"""A real browser for tests of pages, and what it noticed on them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

PHONE = {"width": 375, "height": 720}
_PROGRAMS = ("chromium", "google-chrome", "chromium-browser")
_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
_REFUSED = "Failed to load resource: the server responded with a status of 4"


@dataclass
class Noticed:
    """What a page did beside showing itself.

    Attributes:
        faults: Errors of its scripts, what its policy forbade, warnings of the browser.
        refusals: Replies with a status of 4xx, which a browser tells as errors, too.
        requests: The addresses that it asked.
    """

    faults: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def listen(self, page: Page) -> None:
        """Begins."""
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def _said(self, message: ConsoleMessage) -> None:
        if message.text.startswith(_REFUSED):
            self.refusals.append(message.text)
        elif message.type in {"error", "warning"}:
            self.faults.append(message.text)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Starts the machine's Chromium, headless; without one the test is skipped."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        pytest.skip("there is no Chromium on this machine: install the package 'chromium' (or Google Chrome)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, **context: Any) -> Iterator[tuple[Page, Noticed]]:
    """A page in a profile of its own; in the end it must have kept to its origin and made no fault.

    Args:
        browser: Where.
        url: Of the service, without a slash at the end.
        context: How playwright is to set the profile up, such as ``color_scheme``.
    """
    noticed = Noticed()
    with browser.new_context(**context) as profile:
        page = profile.new_page()
        page.set_default_timeout(15_000)
        noticed.listen(page)
        page.goto(url)
        yield page, noticed
    assert noticed.faults == []
    assert [
        address for address in noticed.requests if not address.startswith((f"{url}/", "data:", f"blob:{url}"))
    ] == []


LEAST_CONTRAST = """() => {
  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const painted = (...colours) => {
    for (const colour of colours) { pixel.fillStyle = colour; pixel.fillRect(0, 0, 1, 1); }
    return [...pixel.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  };
  const linear = (part) => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const luminance = (rgb) => rgb.map(linear).reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const grounds = (node) => node ? [...grounds(node.parentElement), getComputedStyle(node).backgroundColor] : ["white"];
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const says = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!says || !node.checkVisibility() || node.disabled) continue;
    const [a, b] = [painted(...grounds(node)), painted(...grounds(node), getComputedStyle(node).color)].map(luminance);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, `${node.tagName} ${node.className}: ${node.textContent.slice(0, 40)}`]);
  }
  return found.sort(([a], [b]) => a - b)[0];
}"""
"""For ``Page.evaluate``: the WCAG contrast of the visible text that has the least of it, and which text it is."""
