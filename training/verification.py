"""Verification of a staged result by the serving code, before it is published."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from serve_app.domain.embeddings import Encoded
from serve_app.domain.errors import ServiceError
from serve_app.domain.profiles import Capability
from serve_app.jobs.training_spec import TrainingKind, TrainingSpec
from serve_app.models.embedder import EmbeddingModel, TextToEncode
from serve_app.models.heads import TokenHeads
from serve_app.models.loader import load_model
from serve_app.models.model_source import ModelSource, describe
from serve_app.models.openmp import threads_for
from serve_app.models.tokenizer import TextTokenizer
from serve_app.models.vocabulary import Vocabulary
from training.evaluation.held_out import Encode
from training.probe import check_agreement, probe_text
from training.trainer.trainable_model import Compute
from training.training_errors import TrainingError

LOWEST_AGREEMENT = {TrainingKind.FULL: (0.99, 0.99), TrainingKind.LORA: (0.99, 0.99), TrainingKind.QLORA: (0.9, 0.8)}
"""Lowest accepted agreement of the trained and the served model's dense vector of a text, and of its tokens'
representations; see ``agreement``. They round differently, and a Q-LoRA adapter was trained on weights of four bits and
is served on the base's own: 0.986 dense and 0.948 of ColBERT vectors were measured with a small BGE-M3."""

OnBatch = Callable[[], None]

_GPU_BATCH, _CPU_BATCH = 64, 8  # texts; on a CPU small batches of texts of one length are the fastest


def load_base(spec: TrainingSpec, source: ModelSource, compute: Compute, on_batch: OnBatch) -> Encode:
    """The base model as it is served, except that texts are cut as in the training.

    Raises:
        ModelLoadError: It cannot be loaded.
    """
    return _encode_with(_load(spec, source, compute), source, spec, compute, on_batch)


def load_result(
    staged: Path, trained: Encoded, spec: TrainingSpec, source: ModelSource, compute: Compute, on_batch: OnBatch
) -> Encode:
    """A staged result as it is served; an adapter, that of a Q-LoRA too, on the base as it is, not quantised.

    Only its texts are cut as in the training: a measurement of long passages would take longer than the training.

    Args:
        staged: From ``stage``.
        trained: ``probe_of`` the trained model.
        spec: The job.
        source: The base.
        compute: Where to compute.
        on_batch: Called after every few texts.

    Raises:
        TrainingError: It does not compute what was trained, by any of its heads, or the training changed nothing.
        ModelLoadError: It cannot be loaded.
    """
    base = _load(spec, source, compute)
    unchanged = _one(_encode_with(base, source, spec, compute, on_batch), source)
    if spec.kind is TrainingKind.FULL:
        del base
        source = describe(spec.model_name, staged, family=spec.family)
        model = _load(spec, source, compute)
    else:
        model = _with_adapter(base, staged, source)
    encode = _encode_with(model, source, spec, compute, on_batch)
    found = _one(encode, source)
    if _is_same(found, unchanged):
        raise TrainingError(
            "the training changed nothing: the result computes the same vectors as its base; use a higher "
            "`learning_rate` or more epochs"
        )
    least, least_of_tokens = LOWEST_AGREEMENT[spec.kind]
    check_agreement(trained, found, least=least, least_of_tokens=least_of_tokens)
    return encode


def _load(spec: TrainingSpec, source: ModelSource, compute: Compute) -> EmbeddingModel:
    return load_model(source, device=str(compute.device), dtype=compute.dtype_name, threads=_threads(spec))


def _with_adapter(base: EmbeddingModel, staged: Path, source: ModelSource) -> EmbeddingModel:
    heads = None
    if Capability.COLBERT in source.profile.capabilities:
        heads = TokenHeads.load(staged, source.dimension, base.transformer.device)
    return EmbeddingModel(base.transformer, source.pooling, heads, base.transformer.adapters.load(staged))


def _encode_with(
    model: EmbeddingModel, source: ModelSource, spec: TrainingSpec, compute: Compute, on_batch: OnBatch
) -> Encode:
    tokenize = TextTokenizer.of(source, min(source.max_tokens, spec.max_seq_length))
    size = _GPU_BATCH if compute.device.type == "cuda" else _CPU_BATCH
    want = source.profile.capabilities

    def encode(texts: Sequence[str]) -> Iterator[tuple[int, Encoded]]:
        rows = tokenize(texts).batch().rows()
        order = np.argsort([len(row) for row in rows], kind="stable")  # neighbours in length need little padding
        for start in range(0, len(rows), size):
            places = order[start : start + size].tolist()
            for i, encoded in zip(places, model.encode([TextToEncode(rows[i], want) for i in places]), strict=True):
                if isinstance(encoded, ServiceError):
                    raise TrainingError(f"the model cannot compute a vector: {encoded.message}")
                yield i, _without_special(encoded, tokenize.vocabulary)
            on_batch()

    return encode


def _without_special(encoded: Encoded, vocabulary: Vocabulary) -> Encoded:
    """Its sparse weights as clients get them."""
    if encoded.sparse is None:
        return encoded
    kept = vocabulary.weights_by_id(*encoded.sparse)
    ids, weights = np.array([id for id, _ in kept], np.int32), np.array([weight for _, weight in kept], np.float32)
    return replace(encoded, sparse=(ids, weights))


def _one(encode: Encode, source: ModelSource) -> Encoded:
    ((_, encoded),) = encode([probe_text(source)])
    return encoded


def _is_same(one: Encoded, other: Encoded) -> bool:
    return all(map(np.array_equal, _arrays(one), _arrays(other)))


def _arrays(encoded: Encoded) -> tuple[np.ndarray, ...]:
    colbert = () if encoded.colbert is None else (encoded.colbert,)
    return (encoded.dense, *(encoded.sparse or ()), *colbert)


def _threads(spec: TrainingSpec) -> int:
    return threads_for(spec.cpus_per_worker, spec.num_workers)
