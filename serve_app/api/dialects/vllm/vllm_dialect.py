"""The vLLM dialect; its errors are those of OpenAI, whose API vLLM serves."""

from __future__ import annotations

from serve_app.api.dialects.dialect import Dialect
from serve_app.api.dialects.openai.openai_errors import OpenAIErrorBody, openai_error_body
from serve_app.api.dialects.vllm import score_routes

VLLM = Dialect(routers=(score_routes.router,), error_body=openai_error_body, error_schema=OpenAIErrorBody)
