"""``manifest.json``: the description that the service keeps beside the weights of a model it has made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from serve_app.domain.errors import ModelLoadError
from serve_app.domain.folder_json import read_object, write_json

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of a manifest; its keys are the names of these attributes. None stands for a key that is absent.

    Attributes:
        name: The name under which the model was written.
        family: The model family; see ``serve_app.domain.profiles``.
        base: Name of the model that was tuned.
        kind: ``full``, ``lora`` or ``qlora`` for a fine-tune, ``starter`` for a starter model.
        adapter: Whether the folder holds an adapter for ``base`` instead of a whole model.
        job_id: The job that made the fine-tune; distinguishes it from an earlier one of the same name.
        created: Time of publication, ISO 8601 in UTC.
        metrics: Retrieval quality by ``before`` and ``after``, then by metric.
        data: Numbers of pairs and groups that were trained on and held out.
        warnings: Sentences that a user of the model should read.
        settings: Hyper-parameters of the training.
        source: Origin of a starter model's weights.
        license: SPDX identifier of a starter model's weights.
    """

    name: str | None = None
    family: str | None = None
    base: str | None = None
    kind: str | None = None
    adapter: bool | None = None
    job_id: str | None = None
    created: str | None = None
    metrics: Mapping[str, Mapping[str, float]] | None = None
    data: Mapping[str, int] | None = None
    warnings: Sequence[str] | None = None
    settings: Mapping[str, Any] | None = None
    source: str | None = None
    license: str | None = None

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a model folder, empty if the file does not exist; unknown keys are ignored.

        Raises:
            ModelLoadError: The file cannot be read, or ``family`` is not a string.
        """
        path = folder / MANIFEST_FILE
        values = read_object(path, {})
        if not isinstance(values.get("family"), str | None):
            raise ModelLoadError(f"{path}: family must be a string, not {values['family']!r}")
        return cls(**{field.name: values.get(field.name) for field in fields(cls)})

    def write(self, folder: Path) -> None:
        """Writes the file into an existing folder; of the absent keys ``base`` alone is written, as null."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        write_json(folder / MANIFEST_FILE, {k: v for k, v in values.items() if v is not None or k == "base"})
