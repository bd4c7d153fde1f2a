"""The Jina dialect: its clients read ``detail``, which OpenAI's error body here carries beside ``error``."""

from __future__ import annotations

from serve_app.api.dialects.dialect import Dialect
from serve_app.api.dialects.jina import jina_routes
from serve_app.api.dialects.openai.openai_errors import OpenAIErrorBody, openai_error_body

JINA = Dialect(routers=(jina_routes.router,), error_body=openai_error_body, error_schema=OpenAIErrorBody)
