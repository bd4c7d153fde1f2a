"""The last block of the start log: addresses, served models, an example."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from ray._private.services import get_webui_url_from_internal_kv  # no public way exists in Ray 2.60

from serve_app.api.inference_protocol import InferenceProtocol
from serve_app.api.model_states import ModelState
from serve_app.deployments.http_address import base_url, host, is_loopback, network_url
from serve_app.deployments.operator_log import print_to_terminal
from serve_app.domain.errors import ServiceError

logger = logging.getLogger(__name__)

_AFTER_SERVE_S = 0.5
_WARNING = "any client that reaches this port may use, train and delete models: it needs no API key (docs/security.md)"


async def announce(service: InferenceProtocol, *, needs_key: bool) -> None:
    """Waits until a forward succeeds, then prints the block once.

    Args:
        service: The inference service.
        needs_key: Whether API keys are required; if not, a service that other machines reach prints a warning.
    """
    while True:
        try:
            await service.check(timeout_s=5.0)
            break
        except ServiceError:
            await asyncio.sleep(0.2)
    await asyncio.sleep(_AFTER_SERVE_S)  # let Ray Serve's own start messages go first
    warning = None if needs_key or is_loopback(host()) else _WARNING
    if warning:
        logger.warning(warning)
    models = await service.models()
    print_to_terminal(
        banner_text(models, base_url(), network_url(), dashboard_url(), needs_key=needs_key, warning=warning)
    )


def banner_text(
    models: Sequence[ModelState],
    base: str,
    network: str | None,
    dashboard: str,
    *,
    needs_key: bool = False,
    warning: str | None = None,
) -> str:
    """The block, ending without a line break.

    Args:
        models: The served models.
        base: Address for this machine.
        network: Address for other machines, if they reach the service.
        dashboard: Address of the dashboard.
        needs_key: Whether API keys are required.
        warning: A warning for the operator.
    """
    key = " -H 'Authorization: Bearer KEY'" if needs_key else ""
    lines = [
        "The service is ready.",
        f"  address    {base}   (in a browser: a playground)",
        f"  network    {network or 'this machine only'}" + ("   (for other machines)" if network else ""),
        f"  API keys   {'required' if needs_key else 'off'}",
        *(f"  model      {_line(model)}" for model in models if model.base is None),
        *([f"  fine-tunes {', '.join(tuned)}"] if (tuned := [m.name for m in models if m.base]) else []),
        f"  docs       {base}/docs",
        f"  dashboard  {dashboard}   (its token: {ray_command()} get-auth-token)",
        f"  try        curl {base}/vectorize{key} -H 'Content-Type: application/json' -d '{{\"text\": \"hello\"}}'",
        "  stop       Ctrl-C",
        *([f"  WARNING    {warning}"] if warning else []),
    ]
    return "\n" + "\n".join(lines)


def _line(model: ModelState) -> str:
    place = f"{model.device}, {model.dtype}" if model.device else "still loading"
    uses = " + ".join(model.serves)
    return f"{model.name} ({model.family}, {model.dimension} dimensions, {model.max_tokens} tokens, {place}): {uses}"


def dashboard_url() -> str:
    """The address of the Ray dashboard."""
    return f"http://{get_webui_url_from_internal_kv()}"


def ray_command() -> str:
    """Path of Ray's command line, which is beside the interpreter and perhaps not on the PATH."""
    beside = Path(sys.executable).with_name("ray")
    try:
        return str(beside.relative_to(Path.cwd()))
    except ValueError:
        return str(beside)
