"""Uploaded files: a folder each, beside the job folders, so that every HTTP replica and the next service see them.

A folder appears whole and disappears at once, by renaming, as a job's does. Nothing in it ever changes, and there is no
list of them besides the folders, so that any number of processes may write here at the same time.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from serve_app.domain.errors import PayloadTooLargeError, UploadNotFoundError
from serve_app.domain.files import PRIVATE_FOLDER, make_private_folder, remove
from serve_app.domain.request_limits import FineTuneLimits
from serve_app.jobs.durable_files import storage_errors, sync_folder, write
from serve_app.jobs.upload_record import Upload, is_upload_id, new_upload_id

logger = logging.getLogger(__name__)

FOLDER = ".files"  # of the jobs folder; a name with a dot is no job's
_UNFINISHED = ".unfinished-"  # folders that appear or disappear; no reader opens them
_ABANDONED_S = 24 * 3600  # no upload takes that long: its process died
_DATA, _CARD = "data", "upload.json"


class UploadStore:
    """The uploaded files. All methods block on the disk."""

    def __init__(
        self,
        jobs_dir: Path,
        *,
        max_files: int = FineTuneLimits.max_files,
        max_bytes: int = FineTuneLimits.max_files_bytes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Touches nothing yet.

        Args:
            jobs_dir: Folder of the job folders.
            max_files: So many are kept at once; uploads that come at the same moment may pass it by a few.
            max_bytes: Size of all of them together, likewise.
            clock: Unix time in seconds.
        """
        self._root = jobs_dir / FOLDER
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._clock = clock

    def create(self, source: BinaryIO, filename: str) -> Upload:
        """Keeps a file; it is there whole or not at all.

        Args:
            source: Its data, from the start on.
            filename: What the client calls it.

        Raises:
            PayloadTooLargeError: The number or the size of all files would exceed its limit.
            StorageError: The disk is full or not writable; nothing is left of the attempt.
        """
        self._check_limits(source)
        file_id = new_upload_id()
        unfinished = self._root / f"{_UNFINISHED}{file_id}"
        with storage_errors():
            make_private_folder(self._root)
            try:
                unfinished.mkdir(mode=PRIVATE_FOLDER)
                self._remove_abandoned(unfinished.stat().st_mtime)
                size = _copy(source, unfinished / _DATA)
                upload = Upload(file_id, filename, size, self._clock())
                write(unfinished / _CARD, upload.to_json().encode())
                unfinished.rename(self._root / file_id)
            except BaseException:  # a client that leaves closes the file under the copy: a ValueError
                remove(unfinished)
                raise
            sync_folder(self._root)
        return upload

    def get(self, file_id: str) -> Upload:
        """A file's record.

        Raises:
            UploadNotFoundError: No file has this id.
            StorageError: It cannot be read.
        """
        with storage_errors():
            try:
                return Upload.from_json((self._folder(file_id) / _CARD).read_text(encoding="utf-8"))
            except FileNotFoundError:
                raise _not_found(file_id) from None
            except (ValueError, TypeError) as error:
                logger.error("the uploaded file %s cannot be read: %s", file_id, error)
                raise _not_found(file_id) from error

    def page(self, *, limit: int, after: str | None, newest_first: bool) -> list[Upload]:
        """Files in the order of their creation.

        Args:
            limit: At most so many.
            after: Only those behind the file with this id.
            newest_first: The other way round.

        Raises:
            UploadNotFoundError: There is no file ``after``.
            StorageError: They cannot be read.
        """
        files = sorted(self._all(), key=lambda upload: (upload.created_at, upload.id), reverse=newest_first)
        start = 0
        if after is not None:
            ids = [upload.id for upload in files]
            if after not in ids:
                raise _not_found(after)
            start = ids.index(after) + 1
        return files[start : start + limit]

    def open(self, file_id: str) -> BinaryIO:
        """A file's data; an open file can be read to its end even after it is deleted.

        Raises:
            UploadNotFoundError: No file has this id.
            StorageError: It cannot be read.
        """
        with storage_errors():
            try:
                return (self._folder(file_id) / _DATA).open("rb")
            except FileNotFoundError:
                raise _not_found(file_id) from None

    def delete(self, file_id: str) -> None:
        """Removes a file. Jobs that were made from it have their own copy.

        Raises:
            UploadNotFoundError: No file has this id.
            StorageError: The disk is not writable.
        """
        gone = self._root / f"{_UNFINISHED}gone-{new_upload_id()}"
        with storage_errors():
            try:
                self._folder(file_id).rename(gone)
            except FileNotFoundError:
                raise _not_found(file_id) from None
        remove(gone)

    def _all(self) -> list[Upload]:
        with storage_errors():
            names = os.listdir(self._root) if self._root.is_dir() else []
        files = []
        for name in filter(is_upload_id, names):
            try:
                files.append(self.get(name))
            except UploadNotFoundError:  # deleted at this moment, or broken and logged
                continue
        return files

    def _check_limits(self, source: BinaryIO) -> None:
        files = self._all()
        size = source.seek(0, os.SEEK_END)
        if len(files) >= self._max_files or sum(file.bytes for file in files) + size > self._max_bytes:
            raise PayloadTooLargeError(
                f"there is no room for this file of {size} bytes: {len(files)} are here, at most {self._max_files} "
                f"with {self._max_bytes} bytes together are kept; delete some (DELETE /v1/files/ID)"
            )

    def _folder(self, file_id: str) -> Path:
        if not is_upload_id(file_id):
            raise _not_found(file_id)
        return self._root / file_id

    def _remove_abandoned(self, now: float) -> None:
        """Removes what processes that died have left, of this service or another one on the same folder.

        Args:
            now: By the clock of the file system, which has stamped the others, too; those of two machines may differ.
        """
        for rest in self._root.glob(f"{_UNFINISHED}*"):
            try:
                is_abandoned = rest.lstat().st_mtime < now - _ABANDONED_S
            except FileNotFoundError:  # it was no rest: another process has just finished it
                continue
            if is_abandoned:
                remove(rest)


def _copy(source: BinaryIO, target: Path) -> int:
    """Writes a file in pieces and waits until it is on the disk; its size in bytes."""
    source.seek(0)
    with target.open("wb") as file:
        shutil.copyfileobj(source, file)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def _not_found(file_id: str) -> UploadNotFoundError:
    return UploadNotFoundError(f"no file {file_id[:60]!r} is here; GET /v1/files lists those that are")
