"""The block that ends the start log: what it says about keys."""

from __future__ import annotations

import pytest

from serve_app.deployments import address, banner
from tests.unit.api.fake_gateway import FakeGateway


async def told(monkeypatch: pytest.MonkeyPatch, host: str | None, *, needs_key: bool) -> str:
    """What is printed by a service that listens on ``host``."""
    lines: list[str] = []
    monkeypatch.setattr(address, "_http_options", lambda: type("Options", (), {"host": host, "port": 8000}))
    monkeypatch.setattr(banner, "dashboard_url", lambda: "http://127.0.0.1:8265")
    monkeypatch.setattr(banner, "_AFTER_SERVE_S", 0)
    monkeypatch.setattr(banner, "say", lines.append)
    await banner.announce(FakeGateway(), needs_key=needs_key)
    (block,) = lines
    return block


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", None, "192.0.2.7", "service.example"])
async def test_who_listens_to_everybody_without_keys_is_warned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, host: str | None
) -> None:
    block = await told(monkeypatch, host, needs_key=False)
    assert "WARNING    everybody who reaches this port" in block
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize(
    ("host", "needs_key"),
    [("127.0.0.1", False), ("127.0.0.2", False), ("::1", False), ("localhost", False), ("0.0.0.0", True)],
)
async def test_with_keys_or_on_this_machine_alone_there_is_nothing_to_warn_about(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, host: str, needs_key: bool
) -> None:
    block = await told(monkeypatch, host, needs_key=needs_key)
    assert "WARNING" not in block
    assert caplog.records == []
    assert ("-H 'Authorization: Bearer KEY'" in block) == needs_key
