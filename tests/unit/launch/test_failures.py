"""Why a start failed, in one message."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.launch.failures import explain, startup_timeout

SESSIONS = Path("/tmp/ray")


def test_an_equal_reason_of_several_replicas_is_reported_once_as_the_models() -> None:
    reported = {"the ingress": "no model 'x'", "the encoder of 'x'": "no model 'x'"}
    assert explain(reported, ["ignored"]) == "the encoder of 'x' cannot start: no model 'x'"


def test_different_reasons_are_all_reported() -> None:
    reported = {"the ingress": "no keys", "the encoder of 'x'": "no model 'x'"}
    assert explain(reported, []).splitlines() == [
        "the encoder of 'x' cannot start: no model 'x'", "the ingress cannot start: no keys",
    ]  # fmt: skip


def test_a_failure_without_a_report_is_the_last_line_of_serves_message() -> None:
    messages = [
        "Encoder: failed 2 times\nTraceback\n  x\nThe actor died: out of memory.\n",
        "",
        "The actor died: out of memory.",
    ]
    assert explain({}, messages) == "the service cannot start: The actor died: out of memory."
    assert explain({}, [""]) == "the service cannot start: Ray Serve gives no reason"


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out during startup. This could happen because some of the raylet failed"),
        RuntimeError("Failed to connect to GCS within 20 seconds\nmore"),
        TimeoutError(),
    ],
)
def test_a_slow_start_of_ray_is_explained_in_one_line(error: Exception) -> None:
    text = startup_timeout(error, SESSIONS)
    assert "did not start in time" in text
    assert "start again" in text
    assert "\n" not in text


def test_any_other_failure_of_ray_is_named_with_the_place_of_its_logs() -> None:
    text = startup_timeout(ValueError("no such address\nmore"), SESSIONS)
    assert text == "Ray cannot start (ValueError: no such address); its logs are in /tmp/ray/session_latest/logs"
