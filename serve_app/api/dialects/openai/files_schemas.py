"""Schemas of /v1/files."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import UploadFile
from pydantic import BaseModel, Field

from serve_app.api.dialects.strict_request import StrictRequest


def _without_type(schema: dict[str, Any]) -> None:
    """Removes the type, as OpenAPI 3.1 describes raw bytes."""
    schema.pop("type", None)


class UploadForm(StrictRequest):
    """A form with a file; its data is validated when a job is created from it."""

    file: UploadFile = Field(
        description='JSON lines `{"query": ..., "pos": [...], "neg": [...]}`, or lines of query, tab, passage; UTF-8.',
        json_schema_extra=_without_type,
    )
    purpose: Literal["fine-tune"] = Field(description="The only purpose here.")


class OpenAIFile(BaseModel):
    """An uploaded file."""

    id: str
    object: Literal["file"]
    bytes: int = Field(description="Its size.")
    created_at: int = Field(description="Unix time in seconds.")
    filename: str = Field(description="Name given by the client.")
    purpose: Literal["fine-tune"]
    status: Literal["processed"] = Field(description="Usable at once.")


class OpenAIFiles(BaseModel):
    """One page of files."""

    object: Literal["list"]
    data: list[OpenAIFile]
    has_more: bool = Field(description="Whether `after` with the id of the last file finds more.")
    first_id: str | None
    last_id: str | None


class OpenAIFileDeleted(BaseModel):
    """The file is deleted; jobs created from it have their own copy."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]
