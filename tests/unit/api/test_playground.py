"""The playground's page as it is sent; ``tests/contract/test_playground.py`` uses it in a browser."""

from __future__ import annotations

import base64
import hashlib
import re
import tomllib
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path

import httpx
import pytest

from serve_app.api import playground
from serve_app.api.playground.page import SCRIPTS, assembled
from tests.unit.api.test_documentation_pages import fetched_by

MOST_BYTES = 50_000
MARKUP = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc")


def directives(policy: str) -> dict[str, list[str]]:
    parts = (part.split() for part in policy.split("; "))
    return {name: values for name, *values in parts}


async def test_the_root_is_a_page_under_a_policy_that_lets_it_load_nothing(client: httpx.AsyncClient) -> None:
    reply = await client.get("/")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert len(reply.content) < MOST_BYTES
    policy = directives(reply.headers["content-security-policy"])
    assert (
        policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == ["'none'"]
    )
    assert policy["connect-src"] == ["'self'"]
    assert policy["require-trusted-types-for"] == ["'script'"]
    assert not {"'unsafe-inline'", "'unsafe-eval'", "*"} & {value for values in policy.values() for value in values}


async def test_head_has_the_status_and_headers_of_get(client: httpx.AsyncClient) -> None:
    get, head = await client.get("/"), await client.head("/")
    assert head.status_code == 200
    assert head.headers == get.headers


@pytest.mark.parametrize(("tag", "directive"), [("style", "style-src"), ("script", "script-src")])
async def test_the_policy_allows_only_the_content_of_the_page(
    client: httpx.AsyncClient, tag: str, directive: str
) -> None:
    reply = await client.get("/")
    (content,) = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", reply.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert directives(reply.headers["content-security-policy"])[directive] == [f"'sha256-{digest}'"]
    assert not re.search(r"<[^>]*\s(style|on\w+)\s*=", re.sub(r"(?s)<(script|style).*?</\1>", "", reply.text))


async def test_the_page_fetches_nothing_and_leads_only_to_this_service(client: httpx.AsyncClient) -> None:
    page = (await client.get("/")).text
    addresses = [address for address in fetched_by(page) if not address.startswith("data:")]
    assert set(addresses) == {"docs"}
    named = set(re.findall(r"https?:[^\s\"'`)]*", page))
    assert named == {"http://www.w3.org/2000/svg"}, "a namespace, which nobody fetches"


async def test_only_a_post_to_the_root_is_a_request_for_vectors(client: httpx.AsyncClient) -> None:
    assert (await client.post("/", json={"inputs": "cats"})).json()[0]
    assert (await client.put("/")).status_code == 405


def test_every_file_is_on_the_page_and_in_an_installed_package() -> None:
    names = {f.name for f in resources.files(playground).iterdir() if f.name.endswith((".html", ".css", ".js"))}
    assert names == {*SCRIPTS, "index.html", "style.css"}
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["serve_app.api.playground"]
    assert all(any(fnmatch(name, pattern) for pattern in patterns) for name in names)


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_markup_or_code_from_text(name: str) -> None:
    assert not MARKUP.search(resources.files(playground).joinpath(name).read_text(encoding="utf-8"))


def test_the_parts_are_put_in_whole() -> None:
    html = assembled().html.decode()
    assert "/* style.css */" not in html
    assert "/* scripts */" not in html
    assert html.count("</script>") == html.count("</style>") == 1
