"""What an open port gets to see: clients that dribble, connections that say nothing, a thousand requests at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx

from tests.keyed import ADMIN, BODY_S, HEAD_S, SILENT_S, USE, bearer
from tests.service_process import Service, processes

DRIBBLERS, IDLE, FLOOD = 40, 500, 1000
LATE_S = 5  # what a busy machine may add to any of these
MOST_GROWTH = 200 * 2**20  # bytes, of all processes together, from one flood to the next
HEAD = f"POST /vectorize HTTP/1.1\r\nHost: service\r\nAuthorization: Bearer {USE}\r\n"
BODY = f'{HEAD}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"text": "'


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def dribble(url: str, beginning: str) -> tuple[int, float]:
    """Sends a beginning and then a letter a second; status of the answer, and seconds until it came."""
    reader, writer = await connect(url)
    began = time.monotonic()
    try:
        writer.write(beginning.encode())
        while True:
            try:
                line = await asyncio.wait_for(reader.readline(), 1.0)
                break
            except TimeoutError:
                writer.write(b"x")
        assert await asyncio.wait_for(reader.read(), SILENT_S + LATE_S)  # to its end: the connection is closed
    finally:
        writer.close()
    return int(line.split(b" ")[1]), time.monotonic() - began


async def flood(url: str) -> tuple[Counter[int], list[str | None]]:
    """A thousand requests at once, each on a connection of its own; their statuses, ``Retry-After`` of the 429s."""
    statuses: Counter[int] = Counter()
    waits: list[str | None] = []

    async def ask(client: aiohttp.ClientSession, number: int) -> None:
        async with client.post(f"{url}/vectorize", json={"text": f"number {number} of many " * 12}) as reply:
            await reply.read()
            statuses[reply.status] += 1
            if reply.status == 429:
                waits.append(reply.headers.get("Retry-After"))

    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(
        headers=bearer(USE), connector=connector, timeout=aiohttp.ClientTimeout(60)
    ) as client:
        await asyncio.gather(*(ask(client, number) for number in range(FLOOD)))
    return statuses, waits


async def seconds_for_one(url: str) -> float:
    """Of a new client with one text; the service is ready."""
    async with httpx.AsyncClient(base_url=url, headers=bearer(USE), timeout=30) as client:
        began = time.monotonic()
        assert (await client.post("/vectorize", json={"text": "a guest"})).status_code == 200
        took = time.monotonic() - began
        assert (await client.get("/readyz")).status_code == 200
    return took


def resident(service: Service) -> dict[int, int]:
    """Bytes of memory of each process."""
    found = {}
    for pid, _ in processes(service.environment):
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        found[pid] = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
    return found


def staff(service: Service) -> set[int]:
    """Process ids of what must not die; Ray starts and ends idle workers as it likes."""
    return {pid for pid, title in processes(service.environment) if not title.startswith("ray::IDLE")}


@asynccontextmanager
async def crowd(url: str) -> AsyncIterator[None]:
    """Five hundred new connections that say nothing; after the seconds of a head they are closed from the other end."""
    places = [await connect(url) for _ in range(IDLE)]
    assert not any(reader.at_eof() for reader, _ in places), "all of them are open"
    yield
    for _, writer in places:
        writer.close()


async def test_dribbled_requests_are_cut_after_seconds_while_others_are_served(exposed: Service) -> None:
    async with crowd(exposed.url):
        heads = [asyncio.create_task(dribble(exposed.url, HEAD + "X-Slow: ")) for _ in range(DRIBBLERS)]
        bodies = [asyncio.create_task(dribble(exposed.url, BODY)) for _ in range(DRIBBLERS)]
        await asyncio.sleep(1)
        guests = [await seconds_for_one(exposed.url) for _ in range(5)]
    cut_heads, cut_bodies = await asyncio.gather(*heads), await asyncio.gather(*bodies)
    slowest = max(took for _, took in cut_heads), max(took for _, took in cut_bodies)
    print(f"beside {IDLE} idle connections a guest waits {max(guests):.2f} s; cut after {slowest} s")
    assert max(guests) < LATE_S
    assert {status for status, _ in cut_heads} == {408}
    assert min(took for _, took in cut_heads) > HEAD_S - 1
    assert slowest[0] < HEAD_S + LATE_S
    assert {status for status, _ in cut_bodies} == {408}
    assert min(took for _, took in cut_bodies) > BODY_S - 1
    assert slowest[1] < BODY_S + LATE_S


async def test_a_thousand_requests_at_once_are_answered_or_told_when_to_come_back(exposed: Service) -> None:
    await flood(exposed.url)  # buffers and threads that stay are made in the first
    before, served_by = resident(exposed), staff(exposed)
    statuses: Counter[int] = Counter()
    for _ in range(3):
        async with crowd(exposed.url):
            seen, waits = await flood(exposed.url)
        statuses += seen
        assert all(wait is not None and int(wait) >= 1 for wait in waits)
    after = resident(exposed)
    growth = sum(after.values()) - sum(before.values())
    print(f"{dict(statuses)}; memory grew by {growth / 2**20:.0f} MB of {sum(before.values()) / 2**20:.0f}")
    assert statuses.total() == 3 * FLOOD
    assert set(statuses) == {200, 429}
    assert served_by <= after.keys()  # nobody died
    assert growth < MOST_GROWTH
    assert await seconds_for_one(exposed.url) < LATE_S


async def test_a_client_that_waits_for_a_long_list_is_not_cut(exposed: Service) -> None:
    texts, took = 200, 0.0
    async with httpx.AsyncClient(base_url=exposed.url, headers=bearer(USE), timeout=110) as client:
        while took < SILENT_S + 1:  # a list that is long enough for this machine
            texts *= 2
            began = time.monotonic()
            reply = await client.post("/vectorize-batch", json={"items": ["word " * 250] * texts})
            took = time.monotonic() - began
            print(f"{texts} texts in {took:.1f} s")
            assert reply.status_code == 200
            assert len(reply.json()["vectors"]) == texts


async def test_a_client_that_reads_a_silent_stream_is_not_cut(exposed: Service) -> None:
    order: dict[str, Any] = {"model_name": "never", "text_content": "a\tone passage\nb\tanother passage"}
    async with httpx.AsyncClient(base_url=exposed.url, headers=bearer(ADMIN), timeout=60) as client:
        job = (await client.post("/fine-tune", json=order)).json()["job_id"]  # it waits for workers that never come
        began = time.monotonic()
        last = began
        async with client.stream("GET", f"/jobs/{job}/events", headers={"Accept": "text/event-stream"}) as stream:
            assert stream.status_code == 200
            async for _ in stream.aiter_lines():
                last = time.monotonic()
                if last - began > SILENT_S + 2:
                    break
        assert (await client.post(f"/jobs/{job}/cancel")).status_code == 200
    assert last - began > SILENT_S + 2
