"""Base of strict requests: the native routes refuse unknown fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(json_schema_extra={"pattern": r"\S"}, description="Not blank.")]


class StrictRequest(BaseModel):
    """A request whose unknown fields are refused, because a typo must not be silent."""

    model_config = ConfigDict(extra="forbid", strict=True)


class EncodingOptions(StrictRequest):
    """Options of encoding requests."""

    model: str | None = Field(None, description="A served name; the default model if absent.")
    truncate: bool = Field(
        True,
        description="Cut texts over the model's token limit (the header X-Truncated lists them) instead of refusing.",
    )
