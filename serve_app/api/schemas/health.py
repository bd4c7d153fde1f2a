"""Bodies of the health routes."""

from __future__ import annotations

from pydantic import BaseModel


class Health(BaseModel):
    """The service works: a forward on the default model just succeeded, or has to wait for a long one."""

    status: str
    model: str
    family: str
    dimension: int
    max_tokens: int
    device: str | None = None
    dtype: str | None = None


class Alive(BaseModel):
    """The process answers; says nothing about models."""

    status: str
