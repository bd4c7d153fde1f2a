"""A keep-alive HTTP/1.1 client that reads no more of a reply than it must: clients and service share cores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

_READ_BUFFER = 4 * 1024 * 1024


def post_request(port: int, path: str, body: object) -> bytes:
    """A whole request, ready to be sent many times."""
    payload = json.dumps(body, ensure_ascii=False).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


def vectors_of(body: bytes) -> Sequence[Sequence[float]]:
    """The vectors in the body of a reply, for either route."""
    reply = json.loads(body)
    return [reply["vector"]] if "vector" in reply else reply["vectors"]


class Connection:
    """One client's connection; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes an open connection; see ``open``."""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connects to this machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=_READ_BUFFER))

    async def send(self, request: bytes) -> bytes:
        """Sends a request and gives the body of its reply.

        Raises:
            RuntimeError: The status is not 200.
        """
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        at = head.find(b"content-length:")
        if at < 0:
            body = await self._chunks()
        else:
            body = await self._reader.readexactly(int(head[at + 15 : head.index(b"\r\n", at)]))
        if head[9:12] != b"200":
            raise RuntimeError(f"status {head[9:12].decode()}: {body[:300].decode(errors='replace')}")
        return body

    async def _chunks(self) -> bytes:
        pieces = []
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            pieces.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)
        await self._reader.readuntil(b"\r\n")
        return b"".join(pieces)

    def close(self) -> None:
        """Drops the connection, whatever is under way."""
        self._writer.transport.abort()
