"""The contract between service and training, as it stands on disk."""

from __future__ import annotations

import json

import pytest

from serve_app.jobs.training_spec import ClientMetadata, LoraSettings, TrainingKind, TrainingSpec, default_learning_rate

NEEDED = {
    "job_id": "j", "model_name": "m", "base_model": "b", "base_folder": "/f", "models_dir": "/d", "family": "e5",
}  # fmt: skip


@pytest.mark.parametrize("lora", [None, LoraSettings(r=8, alpha=16, dropout=0.0)])
@pytest.mark.parametrize("kind", list(TrainingKind))
def test_a_spec_reads_back_as_it_was_written(kind: TrainingKind, lora: LoraSettings | None) -> None:
    spec = TrainingSpec(**NEEDED, kind=kind, lora=lora, epochs=3, temperature=0.02, freeze_embeddings=False)
    again = TrainingSpec.from_json(spec.to_json())
    assert again == spec
    assert isinstance(again.kind, TrainingKind)


@pytest.mark.parametrize("origin", [ClientMetadata("file-1"), ClientMetadata("file-1", "file-2", {"team": "search"})])
def test_what_a_client_said_of_its_job_stays_with_it(origin: ClientMetadata) -> None:
    spec = TrainingSpec(**NEEDED, origin=origin)
    assert TrainingSpec.from_json(spec.to_json()) == spec


def test_what_a_spec_does_not_say_has_its_default() -> None:
    assert TrainingSpec.from_json(json.dumps(NEEDED)) == TrainingSpec(**NEEDED)


@pytest.mark.parametrize(
    "change",
    [{"surprise": 1}, {"kind": "half"}, {"lora": {"rank": 3}}, {"origin": {"by": "me"}}],
    ids=["field", "kind", "lora", "origin"],
)
def test_what_nobody_knows_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        TrainingSpec.from_json(json.dumps(NEEDED | change))


def test_adapters_learn_faster_than_whole_models() -> None:
    full, lora, qlora = map(default_learning_rate, TrainingKind)
    assert full < lora == qlora
