"""The clients: ``python -m benchmarks.load`` reads a ``Load`` from its input and writes a ``LoadResult``.

A process of its own, so that its CPU time can be told apart. It writes the line ``go`` when it starts to
measure and the line ``end`` when it stops, so that whoever started it can look at the service's CPU then.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.http_client import Connection, post_request, vectors_of
from benchmarks.texts import Kind, Texts, make_texts

_FINISH_S = 150.0
_LEAST_COSINE = 0.99  # between a reply and the in-process vector; lower means that something is wrong


@dataclass(frozen=True)
class Load:
    """What the clients do.

    Attributes:
        port: Of the service, on this machine.
        kind: Which texts.
        tokens: Tokens of each text of the pool.
        clients: Connections, each with one request under way.
        seconds: How long requests are begun. They are all finished, and the time that counts is until the
            last reply; so the in-process contender does it, too, and replies that come many at a time
            are counted fairly.
        list_size: Texts in a request to /vectorize-batch; 0 is one text to /vectorize.
        spread: Use only the first ``spread`` texts of the pool (0: all).
        reference: A file of in-process vectors of the first texts, which replies are compared with.
    """

    port: int
    kind: Kind
    tokens: tuple[int, ...]
    clients: int
    seconds: float
    list_size: int = 0
    spread: int = 0
    reference: str | None = None


@dataclass(frozen=True)
class LoadResult:
    """What the clients saw.

    Attributes:
        requests: Replies.
        tokens: Tokens of the texts in them.
        seconds: The time.
        p50_ms: Median latency.
        p99_ms: 99th percentile of the latency.
        client_cpu_s: CPU seconds of the clients themselves.
        checked: Vectors compared with in-process ones.
        least_cosine: The worst agreement among them.
    """

    requests: int
    tokens: int
    seconds: float
    p50_ms: float
    p99_ms: float
    client_cpu_s: float
    checked: int
    least_cosine: float


@dataclass
class _Clients:
    load: Load
    texts: Texts
    latencies_s: list[float] = field(default_factory=list)
    tokens: int = 0
    samples: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = max(1, self.load.list_size)
        pool = self.load.spread or len(self.texts.values)
        self.groups = [self.texts.group(start, size) for start in range(0, pool, size)]
        self.requests = [self._request(group) for group in self.groups]
        self.numbers = itertools.count()

    def _request(self, group: list[int]) -> bytes:
        texts = [self.texts.values[i] for i in group]
        if self.load.list_size:
            return post_request(self.load.port, "/vectorize-batch", {"items": texts})
        return post_request(self.load.port, "/vectorize", {"text": texts[0]})

    async def run(self, tell: Callable[[str], None]) -> LoadResult:
        connections = [await Connection.open(self.load.port) for _ in range(self.load.clients)]
        hello = post_request(self.load.port, "/vectorize", {"text": "hello"})
        await asyncio.gather(*(connection.send(hello) for connection in connections))
        tell("go")
        began, cpu = time.perf_counter(), time.process_time()
        self.end = began + self.load.seconds
        tasks = [asyncio.create_task(self._client(connection)) for connection in connections]
        async with asyncio.timeout(self.load.seconds + _FINISH_S):
            await asyncio.gather(*tasks)
        ended, cpu = time.perf_counter(), time.process_time() - cpu
        tell("end")
        for connection in connections:
            connection.close()
        checked, cosine = self._check()
        p50, p99 = (np.percentile(self.latencies_s or [np.nan], [50, 99]) * 1000).tolist()
        return LoadResult(len(self.latencies_s), self.tokens, ended - began, p50, p99, cpu, checked, cosine)

    async def _client(self, connection: Connection) -> None:
        while (began := time.perf_counter()) < self.end:
            number = next(self.numbers) % len(self.requests)
            body = await connection.send(self.requests[number])
            self.latencies_s.append(time.perf_counter() - began)
            self.tokens += sum(self.texts.tokens[i] for i in self.groups[number])
            if number not in self.samples and len(self.samples) < 32:
                self.samples[number] = body

    def _check(self) -> tuple[int, float]:
        """Compares replies with the reference: how many vectors, and the worst cosine."""
        if self.load.reference is None:
            return 0, 1.0
        role = "passage" if self.load.list_size else "query"
        reference = np.load(Path(self.load.reference))[f"{self.load.kind}-{role}"]
        checked, least = 0, 1.0
        for number, body in self.samples.items():
            vectors = np.asarray(vectors_of(body), np.float32)
            if vectors.shape != (len(self.groups[number]), reference.shape[1]):
                raise RuntimeError(f"{vectors.shape} vectors came for {len(self.groups[number])} texts")
            for vector, i in zip(vectors, self.groups[number], strict=True):
                if i < len(reference):
                    checked, least = checked + 1, min(least, float(vector @ reference[i]))
        if least < _LEAST_COSINE:
            raise RuntimeError(f"a vector differs from the in-process one: cosine {least:.4f}")
        return checked, least


def _tell(word: str) -> None:
    print(word, flush=True)


def _run(main: Coroutine[Any, Any, LoadResult]) -> LoadResult:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


if __name__ == "__main__":
    load = Load(**json.loads(sys.stdin.readline()))
    pool = Texts(load.kind, tuple(make_texts(load.kind)), tuple(load.tokens))
    print(json.dumps(asdict(_run(_Clients(load, pool).run(_tell)))), flush=True)
