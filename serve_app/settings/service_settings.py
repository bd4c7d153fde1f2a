"""All settings of the service: the arguments of ``serve_app.app:build``.

Precedence: environment (``ENVIRONMENT``, the few that change from run to run) over YAML (``args:`` of the application
in the serve config) over default.
"""

import os
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from serve_app.domain.request_limits import Limits
from serve_app.settings.deployment_settings import IngressSettings
from serve_app.settings.environment import overlay
from serve_app.settings.frozen_settings import FrozenSettings
from serve_app.settings.model_settings import ModelSettings, RerankerSettings
from serve_app.settings.security_settings import SecuritySettings
from serve_app.settings.training_settings import TrainingSettings


class Settings(FrozenSettings):
    """The arguments of the application ``serve_app.app:build``.

    Attributes:
        models_dir: Folder of model folders; relative to the working directory of the service.
        models: Embedding models; the first one with the requested representation is the default.
        rerankers: Models that score candidates for a query; the first one is the default. May be empty.
        ingress: The HTTP replicas: they parse, tokenise and answer, and need no GPU.
        limits: Bounds of a request.
        training: Fine-tuning.
        security: API keys, and the web pages that may call the service.
    """

    models_dir: Path = Field(default=Path("models"), validate_default=True)
    models: tuple[ModelSettings, ...] = (ModelSettings(),)
    rerankers: tuple[RerankerSettings, ...] = ()
    ingress: IngressSettings = IngressSettings()
    limits: Limits = Limits()
    training: TrainingSettings = TrainingSettings()
    security: SecuritySettings = Field(default_factory=SecuritySettings)  # when called: it reads the environment

    @model_validator(mode="before")
    @classmethod
    def _apply_environment(cls, values: Any) -> Any:
        return overlay(values, os.environ) if isinstance(values, dict) else values

    @field_validator("models_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("models")
    @classmethod
    def _require_a_model(cls, models: tuple[ModelSettings, ...]) -> tuple[ModelSettings, ...]:
        if not models:
            raise ValueError("name at least one model")
        return models

    @field_validator("models", "rerankers")
    @classmethod
    def _require_distinct_names(cls, models: tuple[ModelSettings, ...]) -> tuple[ModelSettings, ...]:
        names = [model.name for model in models]
        if len(set(names)) < len(names):
            raise ValueError(f"every model needs a name of its own, but these are configured: {', '.join(names)}")
        return models

    @model_validator(mode="after")
    def _require_distinct_aliases(self) -> "Settings":
        configured = (*self.models, *self.rerankers)
        names = {model.name for model in configured}
        owners: dict[str, str] = {}
        for model in configured:
            for alias in model.aliases:
                if alias in names:
                    raise ValueError(f"aliases: {alias!r} of {model.name!r} is the name of a configured model")
                if owners.setdefault(alias, model.name) != model.name:
                    raise ValueError(f"aliases: {alias!r} is given to {owners[alias]!r} and to {model.name!r}")
        return self

    @property
    def aliases(self) -> dict[str, str]:
        """The model of each alias, of encoders and rerankers."""
        return {alias: model.name for model in (*self.models, *self.rerankers) for alias in model.aliases}
