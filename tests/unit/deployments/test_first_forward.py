"""A model that loads and does not compute: the start ends with one sentence and the next step."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from serve_app.deployments.encoder import Encoder
from serve_app.deployments.first_forward import first_forward
from serve_app.domain.errors import InternalError, ModelLoadError, NonFiniteError, OutOfMemoryError, ServiceError
from serve_app.models.model_source import describe
from serve_app.settings.model_settings import ModelSettings
from tests.unit.models.folder_cases import copy_of


class Starts:
    def __init__(self, error: ServiceError) -> None:
        self.error = error

    async def start(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "dtype", "message"),
    [
        (NonFiniteError("x"), "float16", "computes NaN or infinity in float16; choose `dtype: float32`"),
        (NonFiniteError("x"), "float32", "computes NaN or infinity in float32; copy its weights"),
        (OutOfMemoryError("x"), "float32", "too little memory for one short text"),
        (InternalError("RuntimeError: no kernel"), "float32", "does not compute: RuntimeError: no kernel"),
    ],
)
async def test_the_reason_of_a_failed_first_forward_is_reported(
    e5_tiny: Path, error: ServiceError, dtype: str, message: str
) -> None:
    with pytest.raises(ModelLoadError, match=message) as caught:
        await first_forward(Starts(error), describe("e5", e5_tiny), dtype)
    assert str(e5_tiny) in caught.value.message


async def test_an_encoder_whose_model_computes_nan_reports_it_once_and_does_not_start(
    e5_tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copy_of(e5_tiny, tmp_path / "my-e5")
    path = folder / "model.safetensors"
    state = load_file(path)
    state["embeddings.LayerNorm.weight"] += 3e38  # finite, but nothing that is computed with it
    save_file(state, path, metadata={"format": "pt"})
    caplog.set_level(logging.WARNING)
    with pytest.raises(ModelLoadError, match="computes NaN or infinity in float32"):
        await Encoder.__init__(
            Encoder.__new__(Encoder), ModelSettings(name="my-e5", device="cpu", dtype="float32"), tmp_path
        )
    reported = [record.message for record in caplog.records if "the encoder of 'my-e5'" in record.message]
    assert len(reported) == 1
    assert f"the model in {folder} computes NaN" in reported[0]
