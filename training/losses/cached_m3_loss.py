"""Contrastive training of BGE-M3's three heads, with a real batch in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.gradcache import CachedLossMixin, RandContext, _create_minibatch
from torch import Tensor, nn

from serve_app.jobs.training_spec import TrainingSpec
from training.losses.m3_heads import M3Heads, M3Vectors, represent, special_ids_of
from training.losses.m3_scores import chance_loss, head_logits, unified_loss
from training.losses.m3_workers import average_gradients, gather_passages
from training.losses.objective import Objective


def build(model: SentenceTransformer, spec: TrainingSpec, *, mini_batch_size: int, world_size: int) -> Objective:
    """The loss of a job, which gathers the passages of all workers by itself; see ``build_objective``."""
    heads = M3Heads.load(Path(spec.base_folder))
    loss = CachedM3Loss(model, heads, temperature=spec.temperature, mini_batch_size=mini_batch_size)
    return Objective(loss, heads, chance_loss)


class CachedM3Loss(nn.Module):
    """BGE-M3's unified loss by GradCache (Gao et al., 2021), a loss for a ``SentenceTransformerTrainer``.

    Texts are encoded in mini-batches without gradients, the loss of the whole batch gives the gradients of their
    representations, and a second encoding of each mini-batch carries these to the weights. So the gradient is that
    of the whole batch, and the activations in memory are those of ``mini_batch_size`` texts. What grows with the
    batch is its token vectors, ``4 * (dim + 1)`` bytes a token.

    The trainer optimises the parameters of its loss, so the heads are trained. They are not part of the model:
    save them beside it, and in checkpoints.

    With several workers the passages of all of them are negatives, and the heads' gradients are averaged here,
    because DDP wraps only the model. Every worker must have the same number of texts in a step. In evaluation,
    that is without gradients, each worker has only its own passages.
    """

    uses_gradient_cache = True  # what sentence-transformers asks of losses that encode a second time

    def __init__(
        self,
        model: SentenceTransformer,
        heads: M3Heads,
        *,
        temperature: float,
        mini_batch_size: int,
        self_distill: bool = True,
    ) -> None:
        """Makes the loss of a model; its transformer may be wrapped by peft.

        Args:
            model: Of the BGE-M3 family, in any form that gives ``token_embeddings`` and ``sentence_embedding``.
            heads: Its heads; they are trained with it.
            temperature: Similarities are divided by it.
            mini_batch_size: Texts of one forward; may be changed between two steps.
            self_distill: Whether the heads' ensemble teaches each of them.
        """
        super().__init__()
        self.model = model
        self.heads = heads
        self.temperature = temperature
        self.mini_batch_size = mini_batch_size
        self.self_distill = self_distill
        self.special_ids = nn.Buffer(special_ids_of(model), persistent=False)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """The loss of one batch, a float32 scalar; its ``backward()`` does the second encoding.

        Args:
            sentence_features: Tokenised columns ``input_ids`` and ``attention_mask``, int64 ``[texts, tokens]``,
                padded on the right: queries, their passages, then any number of columns of hard negatives. Row
                ``n`` of each belongs to query ``n``; all other passages are its negatives.
            labels: Not used.

        Raises:
            ValueError: The batch has no passages.
        """
        columns = list(sentence_features)
        if len(columns) < 2:
            raise ValueError("the three-head loss needs queries and passages, but the batch has one column")
        loss: Tensor = _CachedBatch(self, columns).forward_cached(columns)
        if loss.requires_grad:
            # after the hook that encodes again; torch leaves this method untyped
            loss.register_hook(lambda _: average_gradients(self.heads))  # type: ignore[no-untyped-call]
        return loss

    def loss_of(self, queries: M3Vectors, passages: M3Vectors) -> Tensor:
        """The loss of representations, a float32 scalar: passage ``n`` is the right one for query ``n``."""
        first = 0
        if torch.is_grad_enabled():
            passages, first = gather_passages(passages)
        with torch.autocast(queries.dense.device.type, enabled=False):  # bfloat16 is too coarse for small temperatures
            logits = head_logits(queries, passages, temperature=self.temperature)
            targets = torch.arange(first, first + len(queries.mask), device=queries.mask.device)
            return unified_loss(logits, targets, self_distill=self.self_distill)


class _CachedBatch(CachedLossMixin):
    """One batch on its way through the library's GradCache, which caches one tensor a mini-batch.

    So the representations of a mini-batch travel as rows: a text's dense vector, then for each of its tokens the
    ColBERT vector and the sparse weight.
    """

    def __init__(self, loss: CachedM3Loss, columns: Sequence[Mapping[str, Tensor]]) -> None:
        self._loss = loss
        self._columns = columns
        self.model = loss.model  # DDP's wrapper, where the trainer put one
        self.mini_batch_size = loss.mini_batch_size

    def embed_minibatch(
        self,
        sentence_feature: dict[str, Tensor],
        begin: int,
        end: int,
        with_grad: bool,
        copy_random_state: bool,
        random_state: RandContext | None = None,
    ) -> tuple[Tensor, RandContext | None]:
        """Rows of texts ``begin`` to ``end``, float32, and the random state they were computed from."""
        part = _create_minibatch(sentence_feature, begin, end)
        with random_state or nullcontext(), nullcontext() if with_grad else torch.no_grad():
            state = RandContext(*part.values()) if copy_random_state else None
            vectors = represent(self.model(part), self._loss.heads, self._loss.special_ids)
        tokens = torch.cat([vectors.colbert, vectors.weights[..., None]], dim=-1)
        return torch.cat([vectors.dense, tokens.flatten(1)], dim=1), state

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The loss of the rows of all mini-batches of all columns; with its gradients if ``with_backward``."""
        columns = [self._unpack(column, rows) for column, rows in zip(self._columns, reps, strict=True)]
        loss = self._loss.loss_of(columns[0], M3Vectors.concatenate(columns[1:]))
        if with_backward:
            torch.autograd.backward(loss)
        return loss.detach()

    def _unpack(self, column: Mapping[str, Tensor], reps: Sequence[Tensor]) -> M3Vectors:
        heads, parts, begin = self._loss.heads, [], 0
        for rows in reps:
            end = begin + len(rows)
            dense, tokens = rows.tensor_split([heads.colbert_linear.in_features], dim=1)
            tokens = tokens.reshape(len(rows), -1, heads.colbert_linear.out_features + 1)
            own = slice(begin, end), slice(1, 1 + tokens.shape[1])  # a mini-batch is as long as its longest text
            ids, mask = column["input_ids"][own], column["attention_mask"][own].bool()
            parts.append(M3Vectors(dense, tokens[..., :-1], tokens[..., -1], ids, mask))
            begin = end
        return M3Vectors.concatenate(parts)
