"""The base of all settings: immutable, and an unknown name is an error, because a typo must not pass in silence."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Auto = Literal["auto"]


class FrozenSettings(BaseModel):
    """Settings of one topic. Annotations are evaluated at import: Ray Serve reads the app builder's parameter type."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
