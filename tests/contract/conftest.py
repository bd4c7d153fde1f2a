"""What the tests of clients share: a fence around this machine, and what the native routes say."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # haystack reads it when it is imported
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # litellm loads its list of prices from the network otherwise

import httpx
import numpy as np
import pytest
from huggingface_hub import constants
from numpy.typing import NDArray

from tests.conftest import M3
from tests.service_process import STARTER, Service

PASSAGES = [
    "logrotate rotates log files.",
    "cron runs jobs at fixed times.",
    "tar packs files.",
    "今日はとても良い天気ですね。",
]
MANY = [f"{PASSAGES[i % 4]} No. {i}" for i in range(25)]  # more than the batches of some clients
QUERY = "how do I rotate a log file?"

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Native:
    """The same questions on the service's own routes."""

    http: httpx.Client

    def vectors(self, texts: list[str], *, is_query: bool = False, model: str = STARTER) -> Vectors:
        """float32 ``[len(texts), dimension]``, L2-normalised."""
        body = {"items": texts, "is_query": is_query, "model": model}
        return np.array(self._told("/vectorize-batch", body)["vectors"], np.float32)

    def scores(self, query: str, candidates: list[str], *, model: str = M3) -> list[float]:
        """One for each candidate, in their order."""
        return list(self._told("/rerank", {"query": query, "candidates": candidates, "model": model})["scores"])

    def token_ids(self, text: str) -> list[int]:
        """Special tokens included."""
        body = {"inputs": text, "prompt_name": "passage", "model": STARTER}
        return [token["id"] for token in self._told("/tokenize", body)[0]]

    def _told(self, path: str, body: dict[str, Any]) -> Any:
        reply = self.http.post(path, json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()


@pytest.fixture(scope="session")
def native(service: Service) -> Iterator[Native]:
    with httpx.Client(base_url=service.url, timeout=60) as http:
        yield Native(http)


def same(got: Any, expected: Vectors) -> bool:
    """Whether vectors, one by one, point where the expected ones do, and are as long."""
    vectors = np.array(got, np.float32)
    assert vectors.shape == expected.shape
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    return bool((vectors * expected).sum(axis=1).min() > 0.9999)


@pytest.fixture(autouse=True)
def _fence(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test in which a client looks for something beyond this machine, even if it swallows the error.

    Hugging Face's client asks the hub for something to put into a header and goes on without; its offline mode would
    stop all requests.
    """
    strays: list[object] = []
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(socket.socket, "connect", _fenced(socket.socket.connect, strays))
    monkeypatch.setattr(socket, "getaddrinfo", _fenced_names(socket.getaddrinfo, strays))
    yield
    assert strays == []


def _fenced(connect: Callable[..., Any], strays: list[object]) -> Callable[..., Any]:
    def fenced(self: socket.socket, address: Any) -> Any:
        if self.family == socket.AF_UNIX or address[0] in {"127.0.0.1", "::1"}:
            return connect(self, address)
        strays.append(address)
        raise OSError("there is no network in a test")

    return fenced


def _fenced_names(run_io: Callable[..., Any], strays: list[object]) -> Callable[..., Any]:
    def fenced(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host in {None, "localhost", "127.0.0.1", "::1", b"127.0.0.1", b"localhost"}:
            return run_io(host, *args, **kwargs)
        strays.append(host)
        raise socket.gaierror("there is no network in a test")

    return fenced
