"""The block that ends the start log: where the service is, what it serves, where to look."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ray._private.worker import get_dashboard_url  # no public way exists in Ray 2.60
from ray.serve.context import _get_global_client

from serve_app.api.gateway import Gateway, ModelState
from serve_app.deployments.console import say
from serve_app.domain.errors import ServiceError


async def announce(gateway: Gateway) -> None:
    """Waits until a forward succeeds, then prints the block once."""
    while True:
        try:
            await gateway.check(timeout_s=5.0)
            break
        except ServiceError:
            await asyncio.sleep(0.2)
    await asyncio.sleep(0.5)  # let Ray Serve's own start messages go first
    say(text(await gateway.models(), base_url(), dashboard_url()))


def text(models: Sequence[ModelState], base: str, dashboard: str) -> str:
    """The block, ending without a line break."""
    lines = [
        "The service is ready.",
        f"  address    {base}",
        *(f"  model      {_line(model)}" for model in models if model.base is None),
        *([f"  fine-tunes {', '.join(tuned)}"] if (tuned := [m.name for m in models if m.base]) else []),
        f"  docs       {base}/docs",
        f"  dashboard  {dashboard}   (its token: ray get-auth-token)",
        f"  try        curl {base}/vectorize -H 'Content-Type: application/json' -d '{{\"text\": \"hello\"}}'",
        "  stop       Ctrl-C",
    ]
    return "\n" + "\n".join(lines)


def _line(model: ModelState) -> str:
    place = f"{model.device}, {model.dtype}" if model.device else "still loading"
    uses = " + ".join(model.serves)
    return f"{model.name} ({model.family}, {model.dimension} dimensions, {model.max_tokens} tokens, {place}): {uses}"


def base_url() -> str:
    """The address of this node's HTTP proxy, as Serve knows it."""
    client = _get_global_client()
    assert client is not None, "only a replica knows the address"
    options = client.http_config
    host = "127.0.0.1" if options.host in {None, "", "0.0.0.0", "::"} else options.host
    return f"http://{host}:{options.port}"


def dashboard_url() -> str:
    """The address of the Ray dashboard."""
    return f"http://{get_dashboard_url()}"
