"""The playground in a real browser, over the real service."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser import LEAST_CONTRAST, PHONE, Noticed, chromium, opened
from tests.conftest import CROSS_ENCODER, E5_TINY, M3, M3_TINY
from tests.fine_tuning import forget
from tests.service_process import STARTER, Service

TEXTS = ["how do I rotate a log file?", "logrotate rotates log files.", "bread is made with yeast."]
CANDIDATES = ["bread is made with yeast.", "logrotate rotates log files.", "cron runs jobs."]
HOSTILE = '<img src=x onerror="window.hurt = 1"><script>window.hurt = 1</script>\'"&amp;'
TABS = ("Similarity", "Rerank", "Fine-tune")
READABLE = 4.5  # WCAG 2.2, 1.4.3 (AA)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for this file: while playwright runs, no test beside may have an event loop."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def opening(browser: Browser, service: Service) -> Iterator[tuple[Page, Noticed]]:
    with opened(browser, service.url) as found:
        yield found


@pytest.fixture
def page(opening: tuple[Page, Noticed]) -> Page:
    return opening[0]


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_documentation_asks_nothing_of_another_host(browser: Browser, service: Service, path: str) -> None:
    noticed = Noticed()
    with browser.new_context() as profile:
        page = profile.new_page()
        noticed.listen(page)
        page.goto(service.url + path)
        shown = page.get_by_text("/vectorize-batch-hybrid").filter(visible=True).first
        expect(shown).to_be_visible(timeout=60_000)  # Redoc renders all routes at once
        page.wait_for_load_state("networkidle")
    assert [fault for fault in noticed.faults if "OpenAPI Sampler" not in fault] == []  # Redoc about our examples
    assert [asked for asked in noticed.requests if not asked.startswith((f"{service.url}/", "data:", "blob:"))] == []


def compare(page: Page, texts: list[str], model: str, role: str = "passages") -> None:
    page.get_by_label("Texts, one a line").fill("\n".join(texts))
    page.locator("#similarity-model").select_option(model)
    page.get_by_label(role).check()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#similarity-said")).to_contain_text(f"{len(texts)} texts, {model}")


def rerank(page: Page, query: str, candidates: list[str], model: str) -> None:
    open_tab(page, "Rerank")
    page.get_by_label("Query", exact=True).fill(query)
    page.get_by_label("Candidates, one a line").fill("\n".join(candidates))
    page.locator("#rerank-model").select_option(model)
    page.get_by_role("button", name="Rerank", exact=True).click()
    expect(page.locator("#rerank-said")).to_contain_text(f"{len(candidates)} candidates, {model}")


def order(page: Page, name: str, *, epochs: int) -> None:
    """Orders a fine-tune of the tiny E5 by the example pairs."""
    open_tab(page, "Fine-tune")
    page.get_by_role("button", name="Use example pairs").click()
    page.get_by_label("Name of the result").fill(name)
    page.get_by_label("Base", exact=True).select_option(E5_TINY)
    page.get_by_label("Epochs").fill(str(epochs))
    page.get_by_label("Batch size").fill("2")
    page.get_by_role("button", name="Fine-tune", exact=True).click()
    expect(page.locator("#job h3")).to_contain_text(name)


def job_id(page: Page) -> str:
    return str(page.locator("#job").get_attribute("data-job"))


@pytest.mark.parametrize(("role", "is_query"), [("passages", False), ("queries", True)])
def test_texts_are_compared_in_a_table_of_their_cosines(
    page: Page, client: httpx.Client, role: str, is_query: bool
) -> None:
    compare(page, TEXTS, STARTER, role)
    reply = client.post("/vectorize-batch", json={"items": TEXTS, "is_query": is_query, "model": STARTER})
    vectors = np.array(reply.json()["vectors"])
    shown = page.locator(".heat tbody td").all_inner_texts()
    np.testing.assert_allclose(np.array(shown, float).reshape(3, 3), vectors @ vectors.T, atol=0.0051)
    assert [head.get_attribute("title") for head in page.locator(".heat tbody th").all()] == TEXTS
    colours = page.locator(".heat tbody td").evaluate_all("all => all.map(x => getComputedStyle(x).backgroundColor)")
    assert colours[1] == colours[3] != colours[2]


def test_candidates_are_sorted_and_the_keyboard_reaches_what_explains_a_score(page: Page, client: httpx.Client) -> None:
    rerank(page, TEXTS[0], CANDIDATES, M3)
    scores = client.post("/rerank", json={"query": TEXTS[0], "candidates": CANDIDATES, "model": M3}).json()["scores"]
    best = CANDIDATES[int(np.argmax(scores))]
    assert page.locator(".rank .score").all_inner_texts() == [f"{score:.3f}" for score in sorted(scores, reverse=True)]
    first = page.locator(".rank").first
    expect(first).to_contain_text(best)
    first.focus()
    page.keyboard.press("Enter")
    expect(first).to_have_attribute("aria-expanded", "true")
    body = {"query": TEXTS[0], "candidate": best, "model": M3}
    explained = client.post("/rerank/explain", json=body).json()
    expect(page.locator(".matches tbody tr")).to_have_count(len(explained["matches"]))
    shown = page.locator(".matches tbody td:nth-child(2)").evaluate_all("all => all.map(x => x.textContent)")
    assert shown == [match["candidate_token"].strip() for match in explained["matches"]]
    assert page.locator(".tokens").evaluate("x => x.textContent") == "".join(explained["candidate_tokens"])
    assert page.locator(".tokens mark").count() == len({match["candidate_index"] for match in explained["matches"]})
    page.keyboard.press("Tab")
    assert page.locator(".tokens .pointed").evaluate("x => x.textContent") == explained["matches"][0]["candidate_token"]


def test_a_cross_encoder_offers_no_explanation_and_says_why(page: Page) -> None:
    rerank(page, TEXTS[0], CANDIDATES, CROSS_ENCODER)
    expect(page.locator("#rerank-result")).to_contain_text("cross-encoder")
    assert page.locator(".ranks button").count() == 0


def test_markup_in_a_text_stays_text(page: Page) -> None:
    compare(page, [HOSTILE, "harmless"], E5_TINY)
    rerank(page, HOSTILE, [HOSTILE, "harmless"], M3_TINY)
    hostile = page.locator(".rank", has_text=HOSTILE)
    expect(hostile).to_have_count(1)
    hostile.click()
    expect(page.locator(".matches tbody tr").first).to_be_visible()
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.hurt") is None


def test_a_refused_fine_tune_names_the_field_and_marks_it(opening: tuple[Page, Noticed]) -> None:
    page, noticed = opening
    open_tab(page, "Fine-tune")
    page.get_by_label("Name of the result").fill("not a name")
    page.get_by_label("Epochs").fill("0")
    page.get_by_role("button", name="Fine-tune", exact=True).click()
    alert = page.locator("#tune-form .error")
    expect(alert).to_contain_text("422 invalid input")
    assert alert.locator("code").all_inner_texts() == ["model_name", "epochs"]
    marked = page.locator("[aria-invalid]").evaluate_all("all => all.map(x => x.name)")
    assert marked == ["model_name", "epochs"]
    page.get_by_label("Name of the result").fill(STARTER)
    page.get_by_label("Epochs").fill("1")
    page.get_by_role("button", name="Use example pairs").click()
    page.get_by_role("button", name="Fine-tune", exact=True).click()
    expect(alert).to_contain_text("409")
    assert page.locator("[aria-invalid]").count() <= 1
    assert len(noticed.refusals) == 2


def test_a_fine_tune_is_followed_to_its_end_and_its_result_is_used(page: Page, client: httpx.Client) -> None:
    order(page, "from-the-page", epochs=4)
    expect(page.locator("#tune-accepted")).to_contain_text("56 pairs are used")
    points = page.locator("#job polyline")
    expect(page.locator("#job .pill")).to_have_text("completed", timeout=120_000)
    assert len(str(points.get_attribute("points")).split()) > 1, "the curve was drawn while the training went on"
    assert page.locator("#job progress").evaluate("bar => bar.value") == 100
    after = client.get(f"/jobs/{job_id(page)}").json()["metrics_after"]
    row = page.locator(".metrics tbody tr").first.locator("td").all_inner_texts()
    assert row[1] == f"{after['ndcg@10']:.3f}"
    page.get_by_role("button", name="Try it").click()
    expect(page.locator("#similarity-said")).to_contain_text("from-the-page")
    assert page.locator("#similarity-model").input_value() == "from-the-page"
    open_tab(page, "Fine-tune")
    page.reload()
    expect(page.locator("#job h3")).to_contain_text("from-the-page")
    picture = page.locator("#job img")
    expect(picture).to_be_visible()
    assert picture.evaluate("async image => { await image.decode(); return image.naturalWidth }") > 0
    forget(client, "from-the-page", job_id(page))


def test_a_page_that_is_loaded_again_finds_the_running_job_and_can_cancel_it(page: Page, client: httpx.Client) -> None:
    order(page, "not-to-be", epochs=100)
    page.reload()
    expect(page.locator("#job h3")).to_contain_text("not-to-be")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#job .pill")).to_have_text("cancelled", timeout=30_000)
    expect(page.locator("#jobs li").first).to_contain_text("cancelled")
    forget(client, "not-to-be", job_id(page))


def test_a_key_is_asked_for_when_it_is_needed_and_stays_in_the_tab(opening: tuple[Page, Noticed]) -> None:
    page, _ = opening
    expect(page.locator("#key-form")).to_be_hidden()

    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer rk_right":
            route.continue_()
        else:
            route.fulfill(status=401, json={"detail": "send a valid API key", "code": "unauthenticated"})

    page.route("**/models", guard)
    page.reload()
    expect(page.locator("#similarity-form .error")).to_contain_text("send a valid API key")
    page.get_by_label("This needs an API key").fill("rk_right")
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#similarity-model option").first).to_be_attached()
    expect(page.locator("#key-form, #similarity-form .error")).to_have_count(2)
    assert page.locator("#key-form, #similarity-form .error").evaluate_all("all => all.every(x => x.hidden)")
    page.locator("#similarity-form summary").click()
    expect(page.locator("#similarity-form pre")).to_contain_text("Authorization: Bearer KEY")
    kept = page.evaluate("[Object.values(sessionStorage), Object.values(localStorage), document.cookie, location.href]")
    assert [("rk_right" in str(place)) for place in kept] == [True, False, False, False]


def test_the_command_to_take_away_does_what_the_page_did(page: Page, client: httpx.Client) -> None:
    texts = ["it's a log", 'she said "rotate"']
    compare(page, texts, STARTER)
    page.locator("#similarity-form summary").click()
    shown = page.locator("#similarity-form pre")
    expect(shown).to_contain_text("curl ")  # written when the page hears that it was opened
    command = shown.inner_text()
    body = re.search(r"-d '(.*)'$", command, re.DOTALL)
    assert body
    assert client.post("/vectorize-batch", content=body[1].replace("'\\''", "'")).status_code == 422  # no content type
    headers = {"Content-Type": "application/json"}
    reply = client.post("/vectorize-batch", content=body[1].replace("'\\''", "'"), headers=headers)
    assert len(reply.json()["vectors"]) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_and_nothing_is_wider_than_a_phone(
    browser: Browser, service: Service, scheme: str
) -> None:
    with opened(browser, service.url, color_scheme=scheme, viewport=PHONE) as (page, _):
        compare(page, [*TEXTS, "an endless word: " + "x" * 200, *CANDIDATES], E5_TINY)
        rerank(page, TEXTS[0], [*CANDIDATES, "x" * 300], M3_TINY)
        page.locator(".rank").first.click()
        expect(page.locator(".matches tbody tr").first).to_be_visible()
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert all((int(part) > 128) == (scheme == "light") for part in re.findall(r"\d+", ground))
        for tab in TABS:
            open_tab(page, tab)
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], tab
            contrast, where = page.evaluate(LEAST_CONTRAST)
            assert contrast >= READABLE, (tab, where)


def test_the_arrow_keys_move_between_the_sections(page: Page) -> None:
    page.get_by_role("tab", name="Similarity").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Rerank")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Rerank")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("tabpanel", name="Fine-tune")).to_be_visible()
    page.reload()
    expect(page.get_by_role("tabpanel", name="Fine-tune")).to_be_visible()
