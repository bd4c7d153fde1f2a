"""The documentation pages load nothing from other hosts."""

from __future__ import annotations

import re

import httpx
import pytest

# What a browser would fetch: attributes of tags, imports of style sheets, addresses in scripts.
FETCHED = re.compile(
    r"""(?:src|href|spec-url)\s*=\s*["']([^"']*)|url\s*[:(]\s*["']?([^"')\s]+)|@import\s+["']([^"']+)"""
)

# In a script: the address of something that a browser loads.
LOADED = re.compile(r"""(?:src|href)\s*[:=]\s*["']https?://[\w.-]+/[^"']*\.(?:svg|png|css|js|woff2?)""")


def fetched_by(page: str) -> list[str]:
    return [next(filter(None, groups)) for groups in FETCHED.findall(page) if any(groups)]


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_a_page_fetches_nothing_from_another_host_and_everything_it_fetches_is_there(
    client: httpx.AsyncClient, path: str
) -> None:
    page = await client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert not re.search(r"(?:https?:)?//[\w.-]+\.\w+/", page.text)
    addresses = fetched_by(page.text)
    assert "/openapi.json" in addresses
    assert any(address.endswith(".js") for address in addresses)
    for address in addresses:
        assert address.startswith("/")
        assert not address.startswith("//")
        assert (await client.get(address)).status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/"])
async def test_no_script_loads_a_picture_of_another_host_and_the_policy_forbids_it(
    client: httpx.AsyncClient, path: str
) -> None:
    page = await client.get(path)
    policy = page.headers["content-security-policy"]
    assert policy.startswith(("default-src 'self'", "default-src 'none'"))
    assert not re.search(r"https?:", policy)
    for address in fetched_by(page.text):
        if address.endswith(".js"):
            script = (await client.get(address)).text
            assert not LOADED.search(script)


def test_an_address_of_another_host_would_be_found() -> None:
    page = """<script src="https://cdn.x/a.js"></script><link href='//fonts.x/b'> url: '/c' @import "d" """
    assert fetched_by(page) == ["https://cdn.x/a.js", "//fonts.x/b", "/c", "d"]


async def test_the_schema_has_the_routes_and_their_errors(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    assert {"/vectorize", "/vectorize-batch", "/health", "/livez", "/readyz"} <= set(schema["paths"])
    for path in ("/vectorize", "/vectorize-batch"):
        received = set(schema["paths"][path]["post"]["responses"])
        assert {"200", "404", "408", "413", "422", "429", "500", "503"} <= received


async def test_the_schema_shows_all_forms_of_items(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    items = schema["components"]["schemas"]["VectorizeBatchRequest"]["properties"]["items"]
    forms = items.get("anyOf") or items["oneOf"]
    assert sorted(form["type"] for form in forms) == ["array", "array", "object"]
