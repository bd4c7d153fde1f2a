"""The last block of the start log: addresses and keys."""

from __future__ import annotations

import pytest

from serve_app.deployments import banner, http_address
from tests.unit.api.fake_inference import FakeInference


async def reported(monkeypatch: pytest.MonkeyPatch, host: str | None, *, needs_key: bool) -> str:
    """What is printed by a service that listens on ``host``."""
    lines: list[str] = []
    monkeypatch.setattr(http_address, "_http_options", lambda: type("Options", (), {"host": host, "port": 8000}))
    monkeypatch.setattr(http_address, "node_ip", lambda: "192.0.2.9")
    monkeypatch.setattr(banner, "dashboard_url", lambda: "http://127.0.0.1:8265")
    monkeypatch.setattr(banner, "_AFTER_SERVE_S", 0)
    monkeypatch.setattr(banner, "print_to_terminal", lines.append)
    await banner.announce(FakeInference(), needs_key=needs_key)
    (block,) = lines
    return block


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", None, "192.0.2.7", "service.example"])
async def test_an_open_service_without_keys_prints_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, host: str | None
) -> None:
    block = await reported(monkeypatch, host, needs_key=False)
    assert "WARNING    any client that reaches this port" in block
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize(
    ("host", "needs_key"),
    [("127.0.0.1", False), ("127.0.0.2", False), ("::1", False), ("localhost", False), ("0.0.0.0", True)],
)
async def test_with_keys_or_on_loopback_no_warning_is_printed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, host: str, needs_key: bool
) -> None:
    block = await reported(monkeypatch, host, needs_key=needs_key)
    assert "WARNING" not in block
    assert caplog.records == []
    assert ("-H 'Authorization: Bearer KEY'" in block) == needs_key


@pytest.mark.parametrize("needs_key", [True, False])
@pytest.mark.parametrize(
    ("host", "base", "network"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000", None),
        ("localhost", "http://localhost:8000", None),
        ("::1", "http://[::1]:8000", None),
        ("0.0.0.0", "http://127.0.0.1:8000", "http://192.0.2.9:8000"),
        ("::", "http://127.0.0.1:8000", "http://192.0.2.9:8000"),
        (None, "http://127.0.0.1:8000", "http://192.0.2.9:8000"),
        ("192.0.2.7", "http://192.0.2.7:8000", "http://192.0.2.7:8000"),
        ("2001:db8::7", "http://[2001:db8::7]:8000", "http://[2001:db8::7]:8000"),
    ],
)
async def test_the_block_shows_both_addresses_and_whether_keys_are_required(
    monkeypatch: pytest.MonkeyPatch, host: str | None, base: str, network: str | None, needs_key: bool
) -> None:
    lines = [line.split(maxsplit=1) for line in (await reported(monkeypatch, host, needs_key=needs_key)).splitlines()]
    said = {words[0]: words[1] for words in lines if len(words) == 2}
    assert said["address"].split()[0] == base
    assert said["network"] == (f"{network}   (for other machines)" if network else "this machine only")
    assert said["API"] == f"keys   {'required' if needs_key else 'off'}"
    assert f" {base}/vectorize " in said["try"]
