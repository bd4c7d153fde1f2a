"""The files of a trained model, whole or an adapter, in a staging folder that is not served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from sentence_transformers import SentenceTransformer

from serve_app.domain.files import remove
from serve_app.domain.folder_json import write_json
from serve_app.domain.manifest import MANIFEST_FILE
from serve_app.jobs.training_spec import TrainingKind, TrainingSpec
from serve_app.models.folder_writer import prompts_of, write_sentence_transformers
from serve_app.models.model_source import ModelSource
from serve_app.models.sentence_settings import lowers_case
from training.losses.objective import Heads
from training.trainer.trainable_model import encoder_of

_TEXT_FILES = ("*.json", "*.model", "*.txt")  # tokenizer and configuration of any kind; weights are written anew
_NOT_COPIED = {MANIFEST_FILE, "config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json"}


def stage(model: SentenceTransformer, heads: Heads | None, spec: TrainingSpec, source: ModelSource) -> Path:
    """Writes the result.

    Returns:
        The staging folder, on the file system of the models folder.
    """
    folder = spec.staging_dir
    remove(folder)  # of an earlier attempt
    folder.mkdir(parents=True)
    if spec.kind is TrainingKind.FULL:
        _write_model(model, folder, source)
    else:
        encoder_of(model).save_pretrained(folder)
        _name_base(folder, spec)
    if heads is not None:
        heads.save(folder)
    return folder


def _write_model(model: SentenceTransformer, folder: Path, source: ModelSource) -> None:
    """An ordinary sentence-transformers folder. The tokenizer's files stay as they are, byte for byte."""
    for pattern in _TEXT_FILES:
        for path in source.folder.glob(pattern):
            if path.name not in _NOT_COPIED:
                shutil.copyfile(path, folder / path.name)
    encoder_of(model).save_pretrained(folder)
    write_sentence_transformers(
        folder,
        hidden=source.dimension,
        pooling=source.pooling,
        max_length=source.max_tokens,
        prompts=prompts_of(source.profile),
        lower_case=lowers_case(source.folder),
    )


def _name_base(folder: Path, spec: TrainingSpec) -> None:
    """Refers to the base by name: its folder on the training machine means nothing elsewhere."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, config | {"base_model_name_or_path": spec.base_model, "inference_mode": True})
