"""Two services of one machine share neither ports nor files."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from serve_app import apart
from serve_app.__main__ import http_options
from serve_app.apart import free_ports, is_free, own_places, unset


def test_two_services_have_no_file_and_no_port_of_the_same_name_in_common(tmp_path: Path) -> None:
    one, other = own_places(tmp_path / "one"), own_places(tmp_path / "other")
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] == other[name]] == []


def test_what_an_operator_has_set_stays() -> None:
    places = {"RAY_SERVE_HAPROXY_STATS_PORT": "1234", "RAY_SERVE_HAPROXY_METRICS_PORT": "1235"}
    assert unset(places, {"RAY_SERVE_HAPROXY_STATS_PORT": "8404"}) == {"RAY_SERVE_HAPROXY_METRICS_PORT": "1235"}


def test_a_port_is_not_free_when_somebody_listens_who_would_share_it() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert not is_free(port)
        assert not is_free(port, "127.0.0.1")
    assert is_free(port)


def test_neighbouring_ports_are_drawn_again_until_all_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_draws", lambda count: iter([100, 200, 300]))
    monkeypatch.setattr(apart, "is_free", lambda port: port not in {103, 200})
    assert free_ports(5) == 300


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http_options: {host: 0.0.0.0, port: 8001}", {"host": "0.0.0.0", "port": 8001}),
        ("applications: []", {}),
        ("http_options: 8001", {}),
        ("- a list", {}),
        ("{", {}),
    ],
)
def test_the_port_is_read_from_the_config_and_rubbish_is_left_to_serve(
    tmp_path: Path, text: str, expected: dict[str, object]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    assert http_options(["--blocking", str(config)]) == expected
    assert http_options([str(tmp_path / "absent.yaml")]) == {}
