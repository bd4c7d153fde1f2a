"""What one user who asks now and then notices of everything else that goes on: latencies of single requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import numpy as np

_PAUSE_S = 0.1  # between two questions: enough of them in a minute for a 99th percentile, too few to be a load
_WARM_UP = 5


@dataclass
class Latencies:
    """What the client saw.

    Attributes:
        seconds: Of each answer.
        failures: One line for everything that was no answer.
    """

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, float]:
        """Numbers for a results file; percentiles are NaN-free only if there was an answer."""
        p50, p99 = (np.percentile(self.seconds, [50, 99]) * 1000).tolist() if self.seconds else (0.0, 0.0)
        return {
            "requests": len(self.seconds),
            "failures": len(self.failures),
            "p50_ms": round(p50, 1),
            "p99_ms": round(p99, 1),
        }


@contextmanager
def quiet_client(url: str) -> Iterator[Latencies]:
    """Asks ``/vectorize`` from one connection until the block ends; nothing is asked twice."""
    seen = Latencies()
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=60) as service:
            for number in range(_WARM_UP):
                service.post("/vectorize", json={"text": f"warm up {number}"})
            number = 0
            while not over.wait(_PAUSE_S):
                number += 1
                began = time.perf_counter()
                try:
                    reply = service.post("/vectorize", json={"text": f"what does term number {number} mean?"})
                except httpx.HTTPError as error:
                    seen.failures.append(repr(error))
                    continue
                if reply.status_code == 200:
                    seen.seconds.append(time.perf_counter() - began)
                else:
                    seen.failures.append(f"{reply.status_code} {reply.text[:200]}")

    client = threading.Thread(target=ask)
    client.start()
    try:
        yield seen
    finally:
        over.set()
        client.join()
