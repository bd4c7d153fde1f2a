"""Messages for the terminal about a start that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

_LATE = ("timed out", "timeout", "deadline", "overloaded", "failed to start", "failed to connect")


def explain(reported: Mapping[str, str], messages: Sequence[str]) -> str:
    """The message for applications that cannot start.

    Args:
        reported: Reason for each replica that cannot start, as the replicas reported them; equal reasons count once, as
            that of the model rather than of the ingress, which reads the same folders.
        messages: Messages of Serve, for failures that no replica could report, such as a killed process.
    """
    by_reason: dict[str, str] = {}
    for what, reason in sorted(reported.items(), key=lambda item: item[0] == "the ingress"):
        by_reason.setdefault(reason, what)
    if by_reason:
        return "\n".join(f"{what} cannot start: {reason}" for reason, what in by_reason.items())
    last_lines = [message.strip().splitlines()[-1].strip() for message in messages if message.strip()]
    reasons = list(dict.fromkeys(last_lines))
    return "the service cannot start: " + ("; ".join(reasons) or "Ray Serve gives no reason")


def startup_timeout(error: Exception, sessions: Path) -> str:
    """The message for Ray's own failures to start.

    Args:
        error: The exception of Ray.
        sessions: The folder of Ray's sessions.
    """
    reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    if isinstance(error, TimeoutError) or any(word in reason.lower() for word in _LATE):
        return (
            f"Ray did not start in time ({reason}): the machine is slow, busy or short of memory; "
            "stop other programs, see that some gigabytes of memory are free, and start again"
        )
    return f"Ray cannot start ({type(error).__name__}: {reason}); its logs are in {sessions}/session_latest/logs"
