"""A trainable model reads texts as the served one does, and its result keeps the settings."""

from __future__ import annotations

from pathlib import Path

import torch

from serve_app.models.model_source import describe
from serve_app.models.sentence_settings import lowers_case
from serve_app.models.tokenizer import TextTokenizer
from tests.unit.models.folder_cases import TOKENIZER, TRANSFORMER, copy_of, edit
from tests.unit.training.training_jobs import make_job
from training.export import stage
from training.trainer.trainable_model import Compute, build_model

CPU = Compute(torch.device("cpu"), torch.float32)
TEXTS = ["Hello World UPPER Case", "a"]


def test_lower_case_and_padding_are_those_of_serving_and_the_result_keeps_them(e5_tiny: Path, tmp_path: Path) -> None:
    change = edit(TRANSFORMER, do_lower_case=True), edit(TOKENIZER, padding_side="left")
    source = describe("my-e5", copy_of(e5_tiny, tmp_path / "my-e5", *change))
    model = build_model(source, CPU, max_tokens=64)
    trained = model.preprocess(TEXTS)
    rows = [
        ids[mask.bool()].tolist() for ids, mask in zip(trained["input_ids"], trained["attention_mask"], strict=True)
    ]
    assert rows == [row.tolist() for row in TextTokenizer.of(source)(TEXTS).batch().rows()]
    assert trained["attention_mask"][1].tolist() == sorted(trained["attention_mask"][1].tolist(), reverse=True)
    spec, _ = make_job(tmp_path / "jobs", source.folder)
    staged = stage(model, None, spec, source)
    assert lowers_case(staged)
    result = describe("tuned", staged, family="e5")
    assert TextTokenizer.of(result)(TEXTS).ids.tolist() == TextTokenizer.of(source)(TEXTS).ids.tolist()
