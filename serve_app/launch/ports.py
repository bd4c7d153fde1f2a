"""TCP ports that no other service of this machine takes between their choice and their use.

The kernel gives outgoing connections ports of ``ip_local_port_range``, so a port in it that is free now may be taken
when a server binds it seconds later. Ports are therefore chosen outside that range, in blocks. A block is reserved by
a name in Linux's abstract socket namespace, which belongs to the same network namespace as the ports and is freed by
the kernel when the process ends, however it ends.
"""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

BLOCK_PORTS = 256
"""Ports of a block; enough for one service with 200 HTTP replicas."""

_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LINUX_DEFAULT = range(32_768, 61_000)
_PREFERRED = range(20_000, 30_000)  # above the ports of Ray's workers, below those of Kubernetes and of Ray Serve
_UNPRIVILEGED = range(1_024, 65_536)


class PortBlock:
    """Consecutive ports reserved for this process until it ends; all were free at the reservation.

    Attributes:
        first: The lowest port.
        last: The highest port, inclusive.
    """

    def __init__(self, first: int, reservation: socket.socket | None) -> None:
        """Holds a reservation; ``reserve_block`` makes one."""
        self.first, self.last = first, first + BLOCK_PORTS - 1
        self._reservation = reservation
        self._next = first

    @property
    def left(self) -> int:
        """Ports that can still be taken."""
        return self.last - self._next + 1

    def take(self, count: int = 1) -> int:
        """The first of ``count`` consecutive ports, which are not given out again.

        Raises:
            OSError: The block has fewer ports left.
        """
        if count > self.left:
            raise OSError(f"a block of {BLOCK_PORTS} ports is used up")
        taken, self._next = self._next, self._next + count
        return taken

    def release(self) -> None:
        """Lets other processes reserve the block."""
        if self._reservation is not None:
            self._reservation.close()
        _held.discard(self)


_held: set[PortBlock] = set()  # keeps blocks without another reference reserved


def reserve_block() -> PortBlock:
    """Reserves a block of free ports.

    Raises:
        OSError: No such block is free.
    """
    for first in _candidates(client_ports()):
        try:
            reservation = _reserve(first)
        except OSError:  # another service has it
            continue
        if all(map(is_free, range(first, first + BLOCK_PORTS))):
            block = PortBlock(first, reservation)
            _held.add(block)
            return block
        if reservation is not None:
            reservation.close()
    raise OSError(f"no {BLOCK_PORTS} consecutive ports are free on this machine; stop services that are not needed")


_blocks: list[PortBlock] = []


def free_port() -> int:
    """A free port, reserved for this process until it ends and never given out twice.

    For tests and benchmarks; a service takes its ports from its own block.

    Raises:
        OSError: No port is free.
    """
    while True:
        if not _blocks or not _blocks[-1].left:
            _blocks.append(reserve_block())
        port = _blocks[-1].take()
        if is_free(port):
            return port


def is_free(port: int, host: str = "") -> bool:
    """Whether no program listens on a port, not even one that would share it (``SO_REUSEPORT``)."""
    return bind_error(port, host) is None


def bind_error(port: int, host: str = "") -> OSError | None:
    """The error of a server that listens there; None if it could."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are closing do not count
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def client_ports(file: Path = _RANGE_FILE) -> range:
    """The ports that the kernel gives to outgoing connections; Linux's default if unknown."""
    try:
        low, high = map(int, file.read_text().split())
    except (OSError, ValueError):
        return _LINUX_DEFAULT
    return range(low, high + 1)


def _candidates(clients: range) -> Iterator[int]:
    """First ports of blocks: those outside the clients' range, the preferred ones first, each group in random order.

    Where the clients' range leaves no block, the preferred ones are used all the same.
    """
    outside = [
        [first for first in _starts(ports) if first + BLOCK_PORTS <= clients.start or first >= clients.stop]
        for ports in (_PREFERRED, _UNPRIVILEGED)
    ]
    for group in outside if any(outside) else [_starts(_PREFERRED)]:
        yield from random.sample(group, len(group))


def _starts(ports: range) -> Sequence[int]:
    """First ports of the blocks within a range. Every process counts the same blocks, so they never overlap."""
    lowest = -(-ports.start // BLOCK_PORTS) * BLOCK_PORTS
    return range(lowest, ports.stop - BLOCK_PORTS + 1, BLOCK_PORTS)


def _reserve(first: int) -> socket.socket | None:
    if sys.platform != "linux":  # no abstract sockets: only the random order keeps services apart
        return None
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        reservation.bind(f"\0retrieval-model-server-ports-{first}")
    except OSError:
        reservation.close()
        raise
    return reservation
