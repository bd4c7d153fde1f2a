"""The OpenAI dialect; unknown paths below /v1 and /v2 answer in it."""

from __future__ import annotations

from serve_app.api.dialects.dialect import Dialect
from serve_app.api.dialects.openai import embeddings_routes, files_routes, fine_tuning_jobs_routes, openai_models_routes
from serve_app.api.dialects.openai.openai_errors import OpenAIErrorBody, openai_error_body

OPENAI = Dialect(
    routers=(
        embeddings_routes.router,
        openai_models_routes.router,
        files_routes.router,
        fine_tuning_jobs_routes.router,
    ),
    error_body=openai_error_body,
    error_schema=OpenAIErrorBody,
    prefixes=("/v1/", "/v2/"),
)
