"""Bodies of the health routes."""

from __future__ import annotations

from pydantic import BaseModel


class Health(BaseModel):
    """The service answers: a forward on the default model just succeeded."""

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
