"""A loss is a module and a line, a metric a function and a line: what is registered is used everywhere."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from serve_app.domain.profiles import CROSS_ENCODER, E5
from tests.unit.training.training_jobs import make_job
from training import submit
from training.evaluation import ranking_metrics
from training.losses import loss_registry
from training.losses.loss_registry import build_objective
from training.losses.objective import Objective
from training.training_errors import TrainingError


def test_a_registered_loss_is_that_of_its_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, _ = make_job(tmp_path, tmp_path)
    objective, calls = Objective(nn.Identity()), []

    def build(model: Any, *_: Any, **options: Any) -> Objective:
        calls.append((model, options))
        return objective

    monkeypatch.setattr(loss_registry, "LOSSES", {E5.family: build})
    model: Any = nn.Identity()
    assert build_objective(model, spec, mini_batch_size=2, world_size=3) is objective
    assert calls == [(model, {"mini_batch_size": 2, "world_size": 3})]
    assert (objective.heads, objective.chance_loss(8)) == (None, math.log(8))


def test_a_family_that_no_loss_trains_is_an_error_with_its_name(tmp_path: Path) -> None:
    spec, _ = make_job(tmp_path, tmp_path)
    model: Any = nn.Identity()
    with pytest.raises(TrainingError, match="cross-encoder cannot be fine-tuned"):
        build_objective(model, replace(spec, family=CROSS_ENCODER.family), mini_batch_size=2, world_size=1)


def test_a_registered_metric_is_measured_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    added = {**ranking_metrics.METRICS, "hits@10": lambda hits, relevant: float(hits.sum())}
    monkeypatch.setattr(ranking_metrics, "METRICS", added)
    metrics = ranking_metrics.ranking_metrics(np.array([[3, 2, 1]], np.float32), [{0, 2}])
    assert metrics["hits@10"] == 2.0
    sizes = {"queries": 1, "groups": 1, "documents": 3}
    assert "hits@10        2.000   2.000   +0.000" in submit.table(metrics | sizes, metrics | sizes)
