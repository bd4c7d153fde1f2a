"""Regular expressions of request fields, with the sentences that errors use in their place."""

from __future__ import annotations

MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
EVENT_PREFIX = "ftevent-"
EVENT_ID = rf"^{EVENT_PREFIX}[0-9]{{1,16}}$"

IN_WORDS = {
    MODEL_NAME: "must be 1 to 100 letters, digits, '.', '_' or '-', and begin with a letter or a digit",
    EVENT_ID: f"must be the id of an event as the page before has it, such as {EVENT_PREFIX}7",
}
