"""/v1/files of the OpenAI API: training data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Form, Query
from fastapi import Request as HttpRequest
from fastapi.responses import Response, StreamingResponse

from serve_app.api.dialects.documented_errors import Responses, documented
from serve_app.api.dialects.openai.files_schemas import OpenAIFile, OpenAIFileDeleted, OpenAIFiles, UploadForm
from serve_app.api.dialects.openai.openai_errors import OpenAIErrorBody
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.route_services import ServicesDep
from serve_app.domain.errors import InvalidInputError
from serve_app.domain.unicode import is_unicode
from serve_app.jobs.upload_record import FINE_TUNE, Upload

_MAX_PAGE = 10_000  # of a page, and OpenAI's default
_MAX_NAME = 255
_CHUNK_BYTES = 256 * 1024
_BYTES = "application/octet-stream"
_ERRORS = documented(
    OpenAIErrorBody,
    {400: "The form or a parameter breaks the schema or a limit.", 503: "The folder of the files cannot be used."},
)
_NOT_FOUND = documented(OpenAIErrorBody, {404: "No file has this id."})
_TOO_LARGE = documented(OpenAIErrorBody, {413: "The body, or all files together, are larger than the limit."})
_CONTENT: Responses = {200: {"content": {_BYTES: {"schema": {"type": "string", "format": "binary"}}}}}


router = APIRouter(tags=["OpenAI"], responses=_ERRORS)


@router.post("/v1/files", response_model=OpenAIFile, responses=_TOO_LARGE, summary="Upload a file")
async def create(
    services: ServicesDep, form: Annotated[UploadForm, Form(media_type="multipart/form-data")], http: HttpRequest
) -> Response:
    """Stores a file for fine-tunes. Its lines are validated when a job is created from it."""
    await _require_once(http)
    name = form.file.filename or ""
    if len(name) > _MAX_NAME:
        raise InvalidInputError(f"file: its name has {len(name)} characters, the limit is {_MAX_NAME}")
    if not is_unicode(name):  # no reply could contain it, so no list of files either
        raise InvalidInputError("file: its name is not Unicode text")
    return json_reply(_body(await asyncio.to_thread(services.jobs.uploads.create, form.file.file, name)))


@router.get("/v1/files", response_model=OpenAIFiles, responses=_NOT_FOUND, summary="List files")
async def page(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = _MAX_PAGE,
    after: Annotated[str | None, Query(description="Id of the last file of the page before.")] = None,
    order: Annotated[Literal["asc", "desc"], Query(description="By the time of their upload.")] = "desc",
    purpose: Annotated[str | None, Query(description="Only files for this; all are for fine-tune.")] = None,
) -> Response:
    """One page of files."""
    if purpose not in (None, FINE_TUNE):
        return json_reply(_listed([], has_more=False))
    files = await asyncio.to_thread(
        services.jobs.uploads.page, limit=limit + 1, after=after, newest_first=order == "desc"
    )
    return json_reply(_listed(files[:limit], has_more=len(files) > limit))


@router.get("/v1/files/{file_id}", response_model=OpenAIFile, responses=_NOT_FOUND, summary="Get a file")
async def get(services: ServicesDep, file_id: str) -> Response:
    """Metadata of a file."""
    return json_reply(_body(await asyncio.to_thread(services.jobs.uploads.get, file_id)))


@router.get(
    "/v1/files/{file_id}/content",
    response_class=StreamingResponse,
    responses=_NOT_FOUND | _CONTENT,
    summary="Content of a file",
)
async def content(services: ServicesDep, file_id: str) -> StreamingResponse:
    """The bytes of the file, unchanged."""
    file = await asyncio.to_thread(services.jobs.uploads.open, file_id)
    headers = {"X-Content-Type-Options": "nosniff"}
    return StreamingResponse(_chunks(file), media_type=_BYTES, headers=headers)


@router.delete("/v1/files/{file_id}", response_model=OpenAIFileDeleted, responses=_NOT_FOUND, summary="Delete a file")
async def delete(services: ServicesDep, file_id: str) -> Response:
    """Jobs made from the file have their own copy."""
    await asyncio.to_thread(services.jobs.uploads.delete, file_id)
    return json_reply({"id": file_id, "object": "file", "deleted": True})


async def _require_once(http: HttpRequest) -> None:
    """Refuses two form fields with one name, because the last would win in silence."""
    names = [name for name, _ in (await http.form()).multi_items()]  # read before, so nothing is read again
    if len(names) > len(set(names)):
        raise InvalidInputError("body: the form names a field twice; send one file at a time")


def _body(upload: Upload) -> dict[str, Any]:
    return {
        "id": upload.id,
        "object": "file",
        "bytes": upload.bytes,
        "created_at": int(upload.created_at),
        "filename": upload.filename,
        "purpose": FINE_TUNE,
        "status": "processed",
    }


def _listed(files: Any, *, has_more: bool) -> dict[str, Any]:
    data = [_body(upload) for upload in files]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, "has_more": has_more, **ends}


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield chunk
