"""Whatever is sent, the right status comes back and the next request is served as if nothing had been."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.service_process import Service

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client
        reply = client.post("/vectorize", json={"text": "still there?"})
        assert reply.status_code == 200
        assert len(reply.json()["vector"]) == 384


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "body"),
        (b"{", "JSON"),
        (b'{"text": "a"', "JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"text": "\xff\xfe"}', "UTF-8"),
        (b'{"text": "\\ud800"}', "text"),
        (b'{"text": NaN}', "text: input should be a valid string"),
        (b'{"text": ["a"]}', "text: input should be a valid string"),
        (b'{"text": null}', "text"),
        (b'"text"', "body"),
        (b'{"text": "   \\n"}', "text: must not be empty or blank"),
        (b'{"text": "a", "is_query": "yes"}', "is_query"),
        (b'{"text": "a", "Text": "b"}', "Text: extra inputs are not permitted"),
    ],
)
def test_a_malformed_body_is_422_and_says_where(client: httpx.Client, body: bytes, words: str) -> None:
    reply = client.post("/vectorize", content=body, headers=JSON)
    assert reply.status_code == 422
    assert words in reply.json()["detail"]


def test_fifty_thousand_items_are_refused_by_count(client: httpx.Client) -> None:
    reply = client.post("/vectorize-batch", json={"items": ["a"] * 50_000})
    assert reply.status_code == 422
    detail = reply.json()["detail"]
    assert detail.startswith("items: ")
    assert "not 50000" in detail


def test_one_blank_among_many_is_named_by_its_index(client: httpx.Client) -> None:
    reply = client.post("/vectorize-batch", json={"items": ["a", "b", " ", "c"]})
    assert reply.status_code == 422
    assert reply.json()["detail"].startswith("items[2]:")


def test_a_declared_body_of_200_mb_is_refused_before_it_is_sent(service: Service, client: httpx.Client) -> None:
    host, port = urlsplit(service.url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        head = [
            "POST /vectorize HTTP/1.1",
            f"Host: {host}",
            "Content-Type: application/json",
            "Content-Length: 200000000",
        ]
        raw.sendall("\r\n".join([*head, "", '{"text": "']).encode())
        assert raw.recv(200).split(b" ", 2)[1] == b"413"


def test_an_endless_body_without_a_length_is_refused(client: httpx.Client) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"text": "'
        for _ in range(200):
            yield b"x" * 1_000_000

    try:
        status = client.post("/vectorize", content=body(), headers=JSON).status_code
    except httpx.TransportError:  # the service hung up while we still wrote: also a refusal
        status = 413
    assert status == 413


async def test_clients_that_hang_up_leave_no_work_behind(service: Service) -> None:
    """Forty lists of 128 long texts are abandoned; a query right after does not wait for them."""
    long_texts = ["word " * 300 for _ in range(128)]

    async def abandon() -> None:
        async with httpx.AsyncClient(base_url=service.url, timeout=1.0) as client:
            with pytest.raises(httpx.TimeoutException):
                await client.post("/vectorize-batch", json={"items": long_texts})

    await asyncio.gather(*(abandon() for _ in range(40)))
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
        reply = await client.post("/vectorize", json={"text": "a query"})
    assert reply.status_code == 200
    # all abandoned texts together are about 1.5 million tokens, many minutes of work on two cores
    assert time.monotonic() - began < 30


def test_a_deadline_that_can_not_be_kept_is_408_and_frees_the_encoder(client: httpx.Client) -> None:
    body = {"items": ["word " * 300 for _ in range(200)]}
    reply = client.post("/vectorize-batch", json=body, headers={"X-Request-Timeout-Seconds": "0.5"})
    assert reply.status_code == 408
    assert reply.json()["code"] == "deadline_passed"


def test_an_unknown_model_is_404_and_names_the_served_ones(client: httpx.Client) -> None:
    reply = client.post("/vectorize", json={"text": "a", "model": "gpt-9"})
    assert reply.status_code == 404
    assert "multilingual-e5-small" in reply.json()["detail"]


def test_truncate_false_names_the_text_its_tokens_and_the_limit(client: httpx.Client) -> None:
    body = {"items": ["short", "word " * 600], "truncate": False}
    detail = client.post("/vectorize-batch", json=body).json()["detail"]
    assert detail.startswith("items[1]: 60")
    assert "limit is 512" in detail


def test_every_answer_carries_the_request_id_of_the_client(client: httpx.Client) -> None:
    reply = client.post("/vectorize", content=json.dumps({"text": ""}), headers={**JSON, "X-Request-ID": "mine-42"})
    assert reply.status_code == 422
    assert reply.headers["x-request-id"] == "mine-42"


@pytest.mark.parametrize("byte", [b"\x80", b"\xff", b"\xc3\xa9"])
def test_a_byte_in_a_header_is_read_or_refused_by_us(client: httpx.Client, byte: bytes) -> None:
    """Ray Serve reads the first five before the application is called."""
    for name in ("X-Request-Timeout-Seconds", "X-Session-Id", "serve_multiplexed_model_id", "X-Request-ID",
                 "X-Request-Disconnect-Disabled", "Authorization", "X-Input-Type", "Accept", "User-Agent"):  # fmt: skip
        reply = client.post("/v1/embeddings", json={"input": "a"}, headers=[(name.encode(), b"1" + byte)])
        refused = name.lower() in reply.json().get("error", {"message": ""})["message"].lower()
        assert reply.status_code == 200 or refused, (name, reply.status_code, reply.text)
        assert reply.headers["x-request-id"].isascii()


def test_a_request_id_is_cut_before_it_is_logged(service: Service, client: httpx.Client) -> None:
    reply = client.get("/livez", headers={"X-Request-ID": "cut " + "7" * 7000})
    assert reply.headers["x-request-id"] == "cut" + "7" * 125
    assert not any("7" * 126 in log.read_text(errors="replace") for log in service.logs() if "serve" in str(log))


@pytest.mark.parametrize("seconds", ["0.001", "0.05", "inf", "1e300"])
def test_a_deadline_too_short_or_too_long_for_the_machinery_is_answered_by_us(
    client: httpx.Client, seconds: str
) -> None:
    body = {"input": ["word " * 300 for _ in range(40 if seconds.startswith("0") else 1)]}
    reply = client.post("/v1/embeddings", json=body, headers={"X-Request-Timeout-Seconds": seconds})
    if seconds.startswith("0"):
        assert reply.status_code in {400, 408, 422}
        assert reply.json()["error"]["message"]
        assert reply.status_code != 408 or reply.headers["x-should-retry"] == "false"
    else:
        assert reply.status_code == 200


def test_a_compressed_body_is_refused_by_the_name_of_its_encoding(client: httpx.Client) -> None:
    reply = client.post("/vectorize", content=b"\x1f\x8b", headers={**JSON, "Content-Encoding": "gzip"})
    assert (reply.status_code, reply.headers["accept-encoding"]) == (415, "identity")
    assert "'gzip'" in reply.json()["detail"]


def test_a_page_that_makes_its_own_name_lead_here_is_refused(service: Service, client: httpx.Client) -> None:
    port = urlsplit(service.url).port
    for name, status in (("evil.example", 403), ("localhost", 200), ("[::1]", 200)):
        reply = client.get("/models", headers={"Host": f"{name}:{port}"})
        assert reply.status_code == status, name
