"""Comparison of the trained and the served model by their representations of one text."""

from __future__ import annotations

import logging

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch.nn import functional

from serve_app.domain.embeddings import Encoded, Float32
from serve_app.domain.profiles import TextRole
from serve_app.models.model_source import ModelSource
from training.losses.objective import Heads
from training.trainer.trainable_model import Compute
from training.training_errors import TrainingError

logger = logging.getLogger(__name__)

_PROBE = "which texts answer this question?"


def probe_text(source: ModelSource) -> str:
    """The text, formatted."""
    return source.profile.format(TextRole.QUERY, _PROBE)


@torch.inference_mode()
def probe_of(model: SentenceTransformer, heads: Heads | None, source: ModelSource, compute: Compute) -> Encoded:
    """The trained model's representations of the text, by every trained head."""
    model.eval()
    features = {name: value.to(model.device) for name, value in model.preprocess([probe_text(source)]).items()
                if isinstance(value, torch.Tensor)}  # fmt: skip
    with compute.autocast():
        output = model(features)
    if heads is not None:
        return heads.encode(model, output)
    return Encoded(functional.normalize(output["sentence_embedding"][0].float(), dim=-1).cpu().numpy())


def agreement(trained: Encoded, served: Encoded) -> dict[str, float]:
    """Agreement of two models' representations of one text, by head; 1 is equal.

    Dense vectors by their cosine, ColBERT vectors by the mean cosine of a token's. Sparse weights have a length that
    counts, so theirs is ``1 - |a - b|^2 / (2 max(|a|, |b|)^2)``, which is the cosine where the lengths are equal.
    """
    found = {"dense": float(trained.dense @ served.dense)}
    if trained.sparse is not None and served.sparse is not None:
        found["sparse"] = _sparse_agreement(trained.sparse, served.sparse)
    if trained.colbert is not None and served.colbert is not None:
        same = trained.colbert.shape == served.colbert.shape
        found["ColBERT"] = float((trained.colbert * served.colbert).sum(axis=1).mean()) if same else 0.0
    return found


def check_agreement(trained: Encoded, served: Encoded, *, least: float, least_of_tokens: float) -> None:
    """Checks that every head of the served model agrees with the trained one.

    Args:
        trained: The trained model's representations of a text.
        served: The served model's.
        least: Lowest accepted agreement of the dense vectors.
        least_of_tokens: The same of sparse weights and ColBERT vectors, whose errors no pooling averages.

    Raises:
        TrainingError: A head does not agree.
    """
    found = agreement(trained, served)
    logger.info("trained and served agree: %s", ", ".join(f"{head} {value:.4f}" for head, value in found.items()))
    for head, value in found.items():
        required = least if head == "dense" else least_of_tokens
        if not value >= required:
            raise TrainingError(
                f"the served result differs from the trained model ({head} vectors agree by {value:.3f}, at least "
                f"{required} is required); it is not published"
            )


def _sparse_agreement(one: tuple[np.ndarray, Float32], other: tuple[np.ndarray, Float32]) -> float:
    ids = np.union1d(one[0], other[0])
    rows = np.zeros((2, len(ids)))
    for row, (own, weights) in zip(rows, (one, other), strict=True):
        row[np.searchsorted(ids, own)] = weights
    largest = (rows**2).sum(axis=1).max(initial=0.0)
    return 1.0 if largest == 0 else float(1 - ((rows[0] - rows[1]) ** 2).sum() / (2 * largest))
