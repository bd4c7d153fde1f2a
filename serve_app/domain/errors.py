"""Every error a client may see, with its HTTP status and a stable machine-readable code.

Where each one is raised, along the way of a request::

    headers: bytes that cannot be read, encoding ─ InvalidHeaderError 400, UnsupportedEncodingError 415
      │
    body ── too large, no room for it, too slow ── PayloadTooLargeError 413, QueueFullError 429, DeadlineError 408
      │
    sent by another site's web page ────────────── ForeignOriginError 403, ForeignHostError 403
      │
    API key: none, its scope, its limits ───────── UnauthenticatedError 401, ForbiddenError 403, RateLimitError 429
      │
    schema, limits, empty text ─────────────────── InvalidInputError         422
      │
    model name, capability ─────────────────────── ModelNotFoundError 404, CapabilityError 400
      │
    fine-tune: id, name or state ───────────────── JobNotFoundError 404, UploadNotFoundError 404, ConflictError 409
      │
    fine-tune: its folder cannot be written ───── StorageError              503
      │
    fine-tune: another service manages the jobs ── JobsReadOnlyError         503
      │
    backlog of the encoder full ────────────────── QueueFullError            429
      │
    deadline passed before or during the forward ─ DeadlineError             408
      │
    one text fails: not finite, no memory ──────── NonFiniteError 500, OutOfMemoryError 503
      │
    no replica answers ─────────────────────────── UnavailableError          503

Anything else is a bug: the client gets ``InternalError`` with an id, the log gets the trace.
"""

from __future__ import annotations

from typing import ClassVar


class ServiceError(Exception):
    """Base of all expected errors: one positional message, status and code on the class.

    Only ``message`` is passed to ``Exception``, so every subclass survives pickling (and so a Ray
    call) with its attributes.

    Attributes:
        retry_after_s: Seconds until the same request may succeed, where that is known.
        item: Index of the text that caused it, if a text did; the route translates it into a field name.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    retry_after_s: float | None = None

    def __init__(self, message: str, *, retry_after_s: float | None = None, item: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.item = item
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class UnauthenticatedError(ServiceError):
    """API keys are configured, and the request has none of them."""

    status = 401
    code = "invalid_api_key"


class ForbiddenError(ServiceError):
    """The API key is known, but its scope does not include the action."""

    status = 403
    code = "insufficient_scope"


class ForeignOriginError(ServiceError):
    """The request comes from a web page of an origin that may not call the service."""

    status = 403
    code = "foreign_origin"


class ForeignHostError(ServiceError):
    """The request names a host that is not allowed here, as a web page does whose name leads to this machine."""

    status = 403
    code = "foreign_host"


class RateLimitError(ServiceError):
    """The API key has used up its requests or tokens; ``retry_after_s`` is the time until some are available again."""

    status = 429
    code = "rate_limit_exceeded"


class InvalidHeaderError(ServiceError):
    """A header has bytes that cannot be read; the message names it."""

    status = 400
    code = "invalid_header"


class UnsupportedEncodingError(ServiceError):
    """The body has a Content-Encoding that is not read; the message names it."""

    status = 415
    code = "unsupported_content_encoding"


class InvalidInputError(ServiceError):
    """The request breaks the schema or a limit; the message names the field and the index."""

    status = 422
    code = "invalid_input"


class PayloadTooLargeError(ServiceError):
    """More than the service accepts: bytes of a body, tokens of an API key's minute, or stored files."""

    status = 413
    code = "payload_too_large"


class ModelNotFoundError(ServiceError):
    """No served model has this name."""

    status = 404
    code = "model_not_found"


class CapabilityError(ServiceError):
    """The model lacks a capability; the message lists the served models that have it."""

    status = 400
    code = "capability_missing"


class JobNotFoundError(ServiceError):
    """No fine-tuning job has this id."""

    status = 404
    code = "job_not_found"


class UploadNotFoundError(ServiceError):
    """No uploaded file has this id."""

    status = 404
    code = "file_not_found"


class ConflictError(ServiceError):
    """The name is taken, or the state of the thing does not allow the action."""

    status = 409
    code = "conflict"


class IllegalTransitionError(ConflictError):
    """The job's state does not allow the action, usually because the job has ended."""

    code = "illegal_transition"


class StorageError(ServiceError):
    """A job folder cannot be read or written: the disk is full or missing."""

    status = 503
    code = "storage_failed"


class QueueFullError(ServiceError):
    """The backlog or the room for bodies is at its bound; ``retry_after_s`` estimates when there is room again."""

    status = 429
    code = "queue_full"
    retry_after_s = 1.0


class DeadlineError(ServiceError):
    """The deadline of the request passed; its remaining work was dropped."""

    status = 408
    code = "deadline_passed"

    @classmethod
    def after(cls, timeout: float | str) -> DeadlineError:
        """The error of a request with this deadline, in seconds or named by the setting that holds them."""
        named = timeout if isinstance(timeout, str) else f"{round(timeout, 2):g} s"
        return cls(f"not done within {named}; the remaining work was dropped")


class UnavailableError(ServiceError):
    """No replica can take the request at the moment."""

    status = 503
    code = "unavailable"
    retry_after_s = 2.0


class JobsReadOnlyError(UnavailableError):
    """Another service holds the lease of the jobs folder; ``retry_after_s`` is when this one may hold it at best."""

    code = "jobs_read_only"


class NonFiniteError(ServiceError):
    """The model computed NaN or infinity for this text."""

    status = 500
    code = "non_finite"


class OutOfMemoryError(ServiceError):
    """The device has too little memory for this one text, alone."""

    status = 503
    code = "out_of_memory"


class InternalError(ServiceError):
    """An unexpected failure. The message is for the log; a client sees only an id."""


class ConfigurationError(ServiceError):
    """The configuration cannot be read or is inconsistent; raised at start, never during a request."""

    code = "configuration"


class ModelLoadError(ServiceError):
    """A model cannot be found or read. At start it stops the replica; in a request it becomes ``UnavailableError``."""

    code = "model_load"


_BY_CODE = {
    cls.code: cls
    for cls in (UnauthenticatedError, ForbiddenError, ForeignOriginError, ForeignHostError, RateLimitError,
                InvalidHeaderError, UnsupportedEncodingError, InvalidInputError, PayloadTooLargeError,
                ModelNotFoundError, CapabilityError, JobNotFoundError, UploadNotFoundError, ConflictError,
                IllegalTransitionError, StorageError, QueueFullError, DeadlineError, UnavailableError,
                JobsReadOnlyError, NonFiniteError,
                OutOfMemoryError, InternalError, ConfigurationError, ModelLoadError)
}  # fmt: skip


def error_of(code: str, message: str, *, retry_after_s: float | None = None, item: int | None = None) -> ServiceError:
    """The error with this ``code``; an unknown code is an ``InternalError``."""
    return _BY_CODE.get(code, InternalError)(message, retry_after_s=retry_after_s, item=item)
