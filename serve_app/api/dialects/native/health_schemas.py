"""Schemas of the health routes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """The service is ready: a forward on the default model succeeded or waits for a long one, and no model is down."""

    status: str
    model: str
    family: str
    dimension: int
    max_tokens: int
    device: str | None = None
    dtype: str | None = None


class ModelHealth(BaseModel):
    """The state of one configured model; ``reason`` explains a state other than ready and busy."""

    model: str
    serves: Literal["embed", "rerank"]
    state: Literal["ready", "busy", "loading", "restarting", "down"]
    reason: str | None = None
    device: str | None = None
    dtype: str | None = None


class Ready(Health):
    """As Health, with the state of every configured model."""

    models: list[ModelHealth]


class NotReady(BaseModel):
    """Why the service is not ready, with the state of every configured model."""

    detail: str
    code: str
    models: list[ModelHealth]


class Alive(BaseModel):
    """The process answers; models are not checked."""

    status: str
