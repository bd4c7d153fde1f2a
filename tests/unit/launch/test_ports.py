"""Two services of one machine share neither ports nor files, and outgoing connections take none of their ports."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.launch import ports
from serve_app.launch.isolated_ray_env import isolated_ray_env, without_overrides
from serve_app.launch.ports import BLOCK_PORTS, PortBlock, client_ports, free_port, is_free, reserve_block

_HOLD = "import sys; from serve_app.launch.ports import reserve_block; print(reserve_block().first, flush=True); "


def test_two_services_have_no_file_and_no_port_of_the_same_name_in_common(tmp_path: Path) -> None:
    blocks = [reserve_block(), reserve_block()]
    one, other = isolated_ray_env(tmp_path / "one", blocks[0]), isolated_ray_env(tmp_path / "other", blocks[1])
    for block in blocks:
        block.release()
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] == other[name]] == []
    numbers = [int(value) for value in one.values() if value.isdigit()]
    assert all(blocks[0].first <= number <= blocks[0].last for number in numbers)
    assert len(set(numbers)) == len(numbers)


def test_the_operators_variables_stay() -> None:
    places = {"RAY_SERVE_HAPROXY_STATS_PORT": "1234", "RAY_SERVE_HAPROXY_METRICS_PORT": "1235"}
    assert without_overrides(places, {"RAY_SERVE_HAPROXY_STATS_PORT": "8404"}) == {
        "RAY_SERVE_HAPROXY_METRICS_PORT": "1235"
    }


def test_ports_are_outside_the_range_of_outgoing_connections_and_given_out_once() -> None:
    given = [free_port() for _ in range(BLOCK_PORTS + 10)]  # more than one block
    assert len(set(given)) == len(given)
    assert not set(given) & set(client_ports())


@pytest.mark.skipif(sys.platform != "linux", reason="ports are reserved on Linux only")
def test_a_block_is_reserved_for_all_processes_until_its_owner_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = subprocess.Popen([sys.executable, "-c", _HOLD + "sys.stdin.read()"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])  # fmt: skip
    try:
        assert owner.stdout is not None
        first = int(owner.stdout.readline())
        monkeypatch.setattr(ports, "_candidates", lambda clients: iter([first]))
        with pytest.raises(OSError, match="consecutive ports are free"):
            reserve_block()
    finally:
        owner.kill()
        owner.wait()
    block = reserve_block()
    block.release()
    assert block.first == first


def test_a_block_with_a_port_in_use_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_candidates", lambda clients: iter([20_224, 20_480]))
    monkeypatch.setattr(ports, "_reserve", lambda first: None)
    monkeypatch.setattr(ports, "is_free", lambda port: port != 20_300)
    block = reserve_block()
    block.release()
    assert block.first == 20_480


def test_a_block_gives_each_port_out_once_and_is_then_used_up() -> None:
    block = PortBlock(20_224, None)
    assert [block.take(200), block.take(), block.take(55)] == [20_224, 20_424, 20_425]
    with pytest.raises(OSError, match="used up"):
        block.take()


@pytest.mark.parametrize("clients", [range(32_768, 61_000), range(15_000, 65_536), range(1_024, 29_000)])
def test_blocks_lie_outside_any_range_that_leaves_one(clients: range) -> None:
    firsts = list(ports._candidates(clients))
    assert firsts
    assert not any(set(range(first, first + BLOCK_PORTS)) & set(clients) for first in firsts)
    assert all(1_024 <= first <= 65_536 - BLOCK_PORTS for first in firsts)


def test_a_range_that_leaves_none_is_shared() -> None:
    assert all(20_000 <= first < 30_000 for first in ports._candidates(range(1, 65_536)))


@pytest.mark.parametrize(("text", "expected"), [("1024\t2000\n", range(1024, 2001)), ("?", range(32_768, 61_000))])
def test_the_range_is_the_kernels(tmp_path: Path, text: str, expected: range) -> None:
    (tmp_path / "range").write_text(text)
    assert client_ports(tmp_path / "range") == expected
    assert client_ports(tmp_path / "absent") == range(32_768, 61_000)


def test_a_port_is_not_free_when_a_program_listens_that_would_share_it() -> None:
    port = free_port()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        assert not is_free(port)
        assert not is_free(port, "127.0.0.1")
    assert is_free(port)
