"""/v1/files: stored files, their metadata, and OpenAI error bodies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.api.dialects.openai.files_schemas import OpenAIFile, OpenAIFiles
from serve_app.domain.errors import StorageError
from tests.unit.api.fake_jobs import FakeJobs
from tests.unit.api.jobs_client import serving

PURPOSE = {"purpose": "fine-tune"}
NOBODYS = "file-00000000-0000-0000-0000-000000000000"


@pytest.fixture
def jobs(tmp_path: Path) -> FakeJobs:
    return FakeJobs(tmp_path / "jobs")


@pytest.fixture
async def client(jobs: FakeJobs) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(jobs) as client:
        yield client


async def upload(client: httpx.AsyncClient, data: bytes = b"q\tp\n", name: str = "pairs.tsv") -> dict[str, Any]:
    reply = await client.post("/v1/files", files={"file": (name, data)}, data=PURPOSE)
    assert reply.status_code == 200, reply.text
    received: dict[str, Any] = reply.json()
    return received


async def test_a_file_comes_back_as_it_was_sent(client: httpx.AsyncClient) -> None:
    data = bytes(range(256)) * 5000
    received = await upload(client, data, "../../etc/passwd")
    assert OpenAIFile.model_validate(received).model_dump() == received
    assert (received["bytes"], received["filename"], received["purpose"]) == (
        len(data),
        "../../etc/passwd",
        "fine-tune",
    )
    assert (await client.get(f"/v1/files/{received['id']}")).json() == received
    content = await client.get(f"/v1/files/{received['id']}/content")
    assert content.content == data
    assert content.headers["content-type"] == "application/octet-stream", "never a page of this origin"


async def test_files_are_listed_by_pages_newest_first(client: httpx.AsyncClient) -> None:
    ids = [(await upload(client))["id"] for _ in range(3)]
    page = (await client.get("/v1/files?limit=2")).json()
    assert OpenAIFiles.model_validate(page).model_dump() == page
    assert ([f["id"] for f in page["data"]], page["has_more"]) == ([ids[2], ids[1]], True)
    assert (page["first_id"], page["last_id"]) == (ids[2], ids[1])
    page = (await client.get(f"/v1/files?limit=2&after={ids[1]}&purpose=fine-tune")).json()
    assert ([f["id"] for f in page["data"]], page["has_more"]) == ([ids[0]], False)
    page = (await client.get("/v1/files?order=asc")).json()
    assert [f["id"] for f in page["data"]] == ids
    page = (await client.get("/v1/files?purpose=batch")).json()
    assert (page["data"], page["first_id"]) == ([], None)


async def test_a_deleted_file_is_gone(client: httpx.AsyncClient) -> None:
    path = f"/v1/files/{(await upload(client))['id']}"
    assert (await client.delete(path)).json() == {"id": path.split("/")[-1], "object": "file", "deleted": True}
    for method, gone in (("GET", path), ("DELETE", path), ("GET", f"{path}/content")):
        reply = await client.request(method, gone)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "file_not_found")


@pytest.mark.parametrize("file_id", [NOBODYS, "x", "%00", "..%2f..", "%ff"])
async def test_an_unknown_id_of_any_form_is_404(client: httpx.AsyncClient, file_id: str) -> None:
    assert (await client.get(f"/v1/files/{file_id}")).status_code == 404
    assert (await client.get(f"/v1/files?after={file_id}")).status_code == 404


@pytest.mark.parametrize(
    ("files", "data", "message"),
    [
        ([("file", ("a", b"x"))], {}, "purpose: field required"),
        ([("file", ("a", b"x"))], {"purpose": "batch"}, "purpose: input should be 'fine-tune'"),
        ([("file", ("a", b"x"))], {**PURPOSE, "expires_after[seconds]": "9"}, "expires_after[seconds]: extra inputs"),
        ([("file", ("a" * 256, b"x"))], PURPOSE, "file: its name has 256 characters, the limit is 255"),
        ([("file", ("a", b"x")), ("file", ("b", b"y"))], PURPOSE, "body: the form names a field twice"),
        ([("files", ("a", b"x"))], PURPOSE, "file: field required"),
        ([], PURPOSE, "file: field required"),
    ],
)
async def test_a_form_that_is_not_as_documented_is_refused(
    client: httpx.AsyncClient, jobs: FakeJobs, files: Any, data: dict[str, str], message: str
) -> None:
    reply = await client.post("/v1/files", files=files or None, data=data)
    assert (reply.status_code, reply.json()["error"]["message"][: len(message)]) == (400, message)
    assert jobs.uploads.page(limit=9, after=None, newest_first=True) == []


@pytest.mark.parametrize("boundary", ["; boundary=x", ""])
async def test_a_broken_form_is_called_so(client: httpx.AsyncClient, boundary: str) -> None:
    headers = {"content-type": f"multipart/form-data{boundary}"}
    reply = await client.post("/v1/files", content=b"nonsense", headers=headers)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith("body: not a valid multipart form (")


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "order=up", "limit=x"])
async def test_parameters_out_of_their_bounds_are_refused(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/v1/files?{query}")).status_code == 400


async def test_a_disk_that_fails_is_a_503(
    client: httpx.AsyncClient, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(jobs.uploads, "create", fail)
    reply = await client.post("/v1/files", files={"file": ("a", b"x")}, data=PURPOSE)
    assert (reply.status_code, reply.json()["error"]["type"]) == (503, "server_error")
