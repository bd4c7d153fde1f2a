"""A staged result on its trial: loaded and computed with by the serving code, the only judge of what is served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from serve_app.domain.embeddings import Float32
from serve_app.domain.errors import ServiceError
from serve_app.domain.fine_tuning import TrainingKind, TrainingSpec
from serve_app.domain.profiles import Capability, TextRole
from serve_app.models.embedder import EmbeddingModel, TextToEncode
from serve_app.models.heads import TokenHeads
from serve_app.models.loader import load_model
from serve_app.models.openmp import threads_for
from serve_app.models.source import ModelSource, describe
from serve_app.models.tokenizer import TextTokenizer
from training.errors import TrainingError
from training.evaluation import Encode
from training.model import Place

CLOSEST = {TrainingKind.FULL: 0.99, TrainingKind.LORA: 0.99, TrainingKind.QLORA: 0.9}
"""Least cosine of the trained and the served model's vectors of a text. They round differently, and a Q-LoRA adapter
was trained on weights of four bits and is served on the base's own."""

OnBatch = Callable[[], None]

_PROBE = "which texts answer this question?"
_GPU_BATCH, _CPU_BATCH = 64, 8  # texts; on a CPU small batches of texts of one length are the fastest


def load_base(spec: TrainingSpec, source: ModelSource, place: Place, on_batch: OnBatch) -> Encode:
    """The base model as it is served, but that texts are cut as in the training.

    Raises:
        ModelLoadError: It can not be loaded.
    """
    return _encode_with(_load(spec, source, place), source, spec, place, on_batch)


def load_result(
    staged: Path, trained: Float32, spec: TrainingSpec, source: ModelSource, place: Place, on_batch: OnBatch
) -> Encode:
    """A staged result as it is served; an adapter, that of a Q-LoRA too, on the base as it is, not quantised.

    Only its texts are cut as in the training: else a measurement of long passages would take longer than that.

    Args:
        staged: From ``stage``.
        trained: ``probe_vector`` of the trained model.
        spec: The job.
        source: The base.
        place: Where to compute.
        on_batch: Called when a few texts are computed.

    Raises:
        TrainingError: It does not compute what was trained, or the training changed nothing.
        ModelLoadError: It can not be loaded.
    """
    base = _load(spec, source, place)
    unchanged = _encode_with(base, source, spec, place, on_batch)([_probe(source)])[0]
    if spec.kind is TrainingKind.FULL:
        del base
        source = describe(spec.model_name, staged, family=spec.family)
        model = load_model(source, device=str(place.device), dtype=place.dtype_name, threads=_threads(spec))
    else:
        model = _with_adapter(base, staged, source)
    encode = _encode_with(model, source, spec, place, on_batch)
    found = encode([_probe(source)])[0]
    if np.array_equal(found, unchanged):
        raise TrainingError("the training has changed nothing: the result computes the same vectors as its base")
    if float(trained @ found) < CLOSEST[spec.kind]:
        raise TrainingError(
            f"the result does not compute what was trained (cosine {float(trained @ found):.3f}); it is not published"
        )
    return encode


def probe_vector(model: SentenceTransformer, source: ModelSource, place: Place) -> Float32:
    """float32 ``[dimension]``, of length 1: what a trained model makes of one text that is the same for all."""
    model.eval()
    with place.autocast():
        vector: Float32 = (
            model.encode([_probe(source)], convert_to_tensor=True, show_progress_bar=False)[0].float().cpu().numpy()
        )
    vector /= np.linalg.norm(vector)
    return vector


def _load(spec: TrainingSpec, source: ModelSource, place: Place) -> EmbeddingModel:
    return load_model(source, device=str(place.device), dtype=place.dtype_name, threads=_threads(spec), dense_only=True)


def _with_adapter(base: EmbeddingModel, staged: Path, source: ModelSource) -> EmbeddingModel:
    heads = None
    if Capability.COLBERT in source.profile.capabilities:
        heads = TokenHeads.load(staged, source.dimension, base.transformer.device)
    return EmbeddingModel(base.transformer, source.pooling, heads, base.transformer.adapters.load(staged))


def _encode_with(
    model: EmbeddingModel, source: ModelSource, spec: TrainingSpec, place: Place, on_batch: OnBatch
) -> Encode:
    tokenize = TextTokenizer.of(source, min(source.max_tokens, spec.max_seq_length))
    size = _GPU_BATCH if place.device.type == "cuda" else _CPU_BATCH

    def encode(texts: Sequence[str]) -> Float32:
        rows = tokenize(texts).batch().rows()
        order = np.argsort([len(row) for row in rows], kind="stable")  # neighbours in length need little padding
        vectors = np.empty((len(rows), source.dimension), np.float32)
        for start in range(0, len(rows), size):
            places = order[start : start + size]
            for i, encoded in zip(places, model.encode([TextToEncode(rows[i]) for i in places]), strict=True):
                if isinstance(encoded, ServiceError):
                    raise TrainingError(f"the model can not compute a vector: {encoded.message}")
                vectors[i] = encoded.dense
            on_batch()
        return vectors

    return encode


def _probe(source: ModelSource) -> str:
    return source.profile.format(TextRole.QUERY, _PROBE)


def _threads(spec: TrainingSpec) -> int:
    return threads_for(spec.cpus_per_worker, spec.num_workers)
