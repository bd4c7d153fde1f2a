"""A file that a client has uploaded to train on later."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import asdict, dataclass
from typing import Literal

FINE_TUNE: Literal["fine-tune"] = "fine-tune"
"""The only purpose that a file can have here."""

_ID = re.compile(r"file-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Upload:
    """The record of an uploaded file; its data is a file of its own.

    Attributes:
        id: ``file-`` and a UUID; also the name of its folder.
        filename: What the client calls it. Never a path here.
        bytes: Its size.
        created_at: Unix time in seconds.
    """

    id: str
    filename: str
    bytes: int
    created_at: float

    def to_json(self) -> str:
        """The text of ``upload.json``."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Upload:
        """Reads ``upload.json``.

        Raises:
            ValueError: It is not a JSON object.
            TypeError: It does not hold the fields of an upload.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("an upload is a JSON object")
        return cls(**values)


def new_upload_id() -> str:
    """An id that no file has had."""
    return f"file-{uuid.uuid4()}"


def is_upload_id(text: str) -> bool:
    """True for the form of a file's id; nothing else may become part of a path."""
    return _ID.fullmatch(text) is not None
