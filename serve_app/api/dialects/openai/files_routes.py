"""/v1/files: data for fine-tunes, as OpenAI's clients upload it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Form, Query
from fastapi import Request as HttpRequest
from fastapi.responses import Response, StreamingResponse

from serve_app.api.dialects.openai.files_schemas import OpenAIFile, OpenAIFileDeleted, OpenAIFiles, UploadForm
from serve_app.api.encoding.json_stream import json_reply
from serve_app.api.error_responses import OpenAIProblem, Responses
from serve_app.api.jobs_service import JobsProtocol
from serve_app.domain.errors import InvalidInputError
from serve_app.domain.unicode import is_unicode
from serve_app.jobs.upload_record import FINE_TUNE, Upload

_MOST = 10_000  # of a page, and OpenAI's default
_LONGEST_NAME = 255
_PIECE_BYTES = 256 * 1024
_BYTES = "application/octet-stream"
_ERRORS: Responses = {
    status: {"model": OpenAIProblem, "description": text}
    for status, text in {
        400: "The form or a parameter breaks the schema or a limit.",
        503: "The folder of the files can not be used.",
    }.items()
}
_NOT_FOUND: Responses = {404: {"model": OpenAIProblem, "description": "No file has this id."}}
_TOO_LARGE: Responses = {
    413: {"model": OpenAIProblem, "description": "The body, or all files together, are larger than the limit."}
}
_CONTENT: Responses = {200: {"content": {_BYTES: {"schema": {"type": "string", "format": "binary"}}}}}


def openai_files_router(jobs: JobsProtocol) -> APIRouter:
    """The routes over a gateway."""
    router = APIRouter(tags=["OpenAI"], responses=_ERRORS)

    @router.post("/v1/files", response_model=OpenAIFile, responses=_TOO_LARGE, summary="Upload training data")
    async def create(
        form: Annotated[UploadForm, Form(media_type="multipart/form-data")], http: HttpRequest
    ) -> Response:
        """Keeps a file for fine-tunes. Its lines are read, and reported, when a job is made from it."""
        await _require_once(http)
        name = form.file.filename or ""
        if len(name) > _LONGEST_NAME:
            raise InvalidInputError(f"file: its name has {len(name)} characters, the limit is {_LONGEST_NAME}")
        if not is_unicode(name):  # no reply could tell it, and so none that lists files
            raise InvalidInputError("file: its name is no Unicode text")
        return json_reply(_body(await asyncio.to_thread(jobs.uploads.create, form.file.file, name)))

    @router.get("/v1/files", response_model=OpenAIFiles, responses=_NOT_FOUND, summary="All uploaded files")
    async def page(
        limit: Annotated[int, Query(ge=1, le=_MOST)] = _MOST,
        after: Annotated[str | None, Query(description="Id of the last file of the page before.")] = None,
        order: Annotated[Literal["asc", "desc"], Query(description="By the time of their upload.")] = "desc",
        purpose: Annotated[str | None, Query(description="Only files for this; all are for fine-tune.")] = None,
    ) -> Response:
        """One page of files."""
        if purpose not in (None, FINE_TUNE):
            return json_reply(_listed([], has_more=False))
        files = await asyncio.to_thread(jobs.uploads.page, limit=limit + 1, after=after, newest_first=order == "desc")
        return json_reply(_listed(files[:limit], has_more=len(files) > limit))

    @router.get("/v1/files/{file_id}", response_model=OpenAIFile, responses=_NOT_FOUND, summary="One uploaded file")
    async def get(file_id: str) -> Response:
        """What is known of a file."""
        return json_reply(_body(await asyncio.to_thread(jobs.uploads.get, file_id)))

    @router.get(
        "/v1/files/{file_id}/content",
        response_class=StreamingResponse,
        responses=_NOT_FOUND | _CONTENT,
        summary="The data of an uploaded file",
    )
    async def content(file_id: str) -> StreamingResponse:
        """The bytes as they came."""
        file = await asyncio.to_thread(jobs.uploads.open, file_id)
        headers = {"X-Content-Type-Options": "nosniff"}
        return StreamingResponse(_pieces(file), media_type=_BYTES, headers=headers)

    @router.delete(
        "/v1/files/{file_id}", response_model=OpenAIFileDeleted, responses=_NOT_FOUND, summary="Delete an uploaded file"
    )
    async def delete(file_id: str) -> Response:
        """Jobs that were made from it have their own copy."""
        await asyncio.to_thread(jobs.uploads.delete, file_id)
        return json_reply({"id": file_id, "object": "file", "deleted": True})

    return router


async def _require_once(http: HttpRequest) -> None:
    """Of two fields with one name the last would win without a word."""
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


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield piece
