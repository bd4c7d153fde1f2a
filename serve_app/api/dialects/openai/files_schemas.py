"""Bodies of /v1/files."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import UploadFile
from pydantic import BaseModel, Field

from serve_app.api.dialects.strict_request import StrictRequest


def _without_type(schema: dict[str, Any]) -> None:
    """As OpenAPI 3.1 describes raw bytes: the parts of a form have no types, so no value is of a wrong one."""
    schema.pop("type", None)


class UploadForm(StrictRequest):
    """A form with a file; the data is validated when a job is created from it."""

    file: UploadFile = Field(
        description='JSON lines `{"query": ..., "pos": [...], "neg": [...]}`, or lines of query, tab, passage; UTF-8.',
        json_schema_extra=_without_type,
    )
    purpose: Literal["fine-tune"] = Field(description="There is no other one here.")


class OpenAIFile(BaseModel):
    """An uploaded file."""

    id: str
    object: Literal["file"]
    bytes: int = Field(description="Its size.")
    created_at: int = Field(description="Unix time in seconds.")
    filename: str = Field(description="As the client called it.")
    purpose: Literal["fine-tune"]
    status: Literal["processed"] = Field(description="It can be used at once.")


class OpenAIFiles(BaseModel):
    """One page of files."""

    object: Literal["list"]
    data: list[OpenAIFile]
    has_more: bool = Field(description="Whether `after` with the id of the last file finds more.")
    first_id: str | None
    last_id: str | None


class OpenAIFileDeleted(BaseModel):
    """The file is gone; jobs that were made from it have their own copy."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]
