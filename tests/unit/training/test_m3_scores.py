"""The scores and the loss of three heads, against loops, a vocabulary matrix and sums in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.losses.m3_heads import M3Vectors
from training.losses.m3_scores import HeadLogits, chance_loss, colbert_scores, head_logits, sparse_scores, unified_loss

WIDTH = 6
VOCABULARY = 12
SPECIAL = (0, 1, 2, 3)  # the ids of <s>, <pad>, </s> and <unk>
PAD = 1
TOLERANCE = 1e-5  # sums of a few dozen products near 1, in float32

Lengths = st.lists(st.integers(1, 7), min_size=1, max_size=5)


def texts(seed: int, lengths: list[int], *, filler: float = 9.0) -> M3Vectors:
    """Ragged texts whose pads hold rubbish: large vectors, which beat every real one if they count."""
    random = np.random.default_rng(seed)
    shape = len(lengths), max(lengths)
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    ids = torch.from_numpy(random.integers(0, VOCABULARY, shape))  # so small a vocabulary that tokens repeat
    ids[~mask] = PAD
    vectors = torch.from_numpy(random.normal(size=(*shape, WIDTH))).float()
    colbert = torch.nn.functional.normalize(vectors, dim=-1).masked_fill(~mask[..., None], filler)
    weights = torch.from_numpy(random.normal(size=shape)).float().relu()  # about half of them are 0
    silent = torch.isin(ids, torch.tensor(SPECIAL))
    dense = torch.nn.functional.normalize(torch.from_numpy(random.normal(size=(shape[0], WIDTH))).float(), dim=-1)
    return M3Vectors(dense, colbert, weights.masked_fill(silent, 0.0), ids, mask)


def rows_of(part: M3Vectors) -> list[np.ndarray[Any, Any]]:
    return [vectors[mask].double().numpy() for vectors, mask in zip(part.colbert, part.mask, strict=True)]


def looped(queries: M3Vectors, passages: M3Vectors) -> np.ndarray[Any, Any]:
    """The oracle of ColBERT: one query token after the other, one passage token after the other, no padding."""
    return np.array(
        [
            [sum(max(float(a @ b) for b in passage) for a in query) / len(query) for passage in rows_of(passages)]
            for query in rows_of(queries)
        ]
    )


def vocabulary_wide(part: M3Vectors) -> torch.Tensor:
    """The oracle of the sparse vectors, ``[texts, vocabulary]``, by FlagEmbedding's recipe for training."""
    each = torch.zeros(*part.ids.shape, VOCABULARY)
    whole = torch.scatter(each, -1, part.ids[..., None], part.weights[..., None]).max(dim=1).values
    whole[:, list(SPECIAL)] *= 0.0
    return whole


# ------------------------------------------------------------------ ColBERT


@given(seed=st.integers(0, 1000), queries=Lengths, passages=Lengths, max_similarities=st.integers(1, 400))
def test_colbert_scores_equal_those_of_a_loop_over_tokens_for_any_block(
    seed: int, queries: list[int], passages: list[int], max_similarities: int
) -> None:
    ours = texts(seed, queries), texts(seed + 1, passages)
    scores = colbert_scores(*ours, max_similarities=max_similarities)
    np.testing.assert_allclose(scores, looped(*ours), atol=TOLERANCE)


@pytest.mark.parametrize("filler", [0.0, 9.0, math.nan])
def test_pad_tokens_never_beat_a_negative_similarity(filler: float) -> None:
    towards = torch.tensor([1.0] + [0.0] * (WIDTH - 1))
    query, passage = texts(0, [1, 2], filler=filler), texts(1, [1, 3], filler=filler)
    query.colbert[query.mask] = towards
    passage.colbert[passage.mask] = -towards
    np.testing.assert_allclose(colbert_scores(query, passage), -1.0, atol=TOLERANCE)


def test_pads_get_no_gradient_and_every_query_token_gets_one() -> None:
    queries, passages = texts(0, [2, 5]), texts(1, [1, 4, 6])
    for part in (queries, passages):
        part.colbert.requires_grad_()
    colbert_scores(queries, passages).sum().backward()
    for part in (queries, passages):
        assert part.colbert.grad is not None
        assert (part.colbert.grad[~part.mask] == 0).all()
    assert (queries.colbert.grad[queries.mask] != 0).any(dim=-1).all()


def test_gradients_of_colbert_scores_do_not_depend_on_the_block() -> None:
    gradients = []
    for max_similarities in (1, 50, 1 << 20):
        queries, passages = texts(0, [2, 5, 3]), texts(1, [1, 4, 6, 2])
        passages.colbert.requires_grad_()
        (colbert_scores(queries, passages, max_similarities=max_similarities) ** 2).sum().backward()
        gradients.append(passages.colbert.grad)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-5, atol=1e-6)


def test_no_block_of_similarities_is_kept_for_the_backward_pass() -> None:
    queries, passages = texts(0, [30] * 4), texts(1, [40] * 5)
    passages.colbert.requires_grad_()
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        colbert_scores(queries, passages)
    best = 8 * 4 * 30 * 5  # the int64 position of the best token for each query token and passage
    assert kept
    assert max(kept) <= max(best, passages.colbert.untyped_storage().nbytes())
    assert max(kept) < 4 * 4 * 30 * 5 * 40  # bytes of the float32 block


# ------------------------------------------------------------------ sparse


@given(seed=st.integers(0, 1000), queries=Lengths, passages=Lengths)
def test_sparse_scores_equal_those_of_a_vocabulary_matrix(seed: int, queries: list[int], passages: list[int]) -> None:
    ours = texts(seed, queries), texts(seed + 1, passages)
    expected = vocabulary_wide(ours[0]) @ vocabulary_wide(ours[1]).T
    torch.testing.assert_close(sparse_scores(*ours), expected, rtol=0, atol=TOLERANCE)


def test_gradients_of_sparse_scores_equal_those_of_a_vocabulary_matrix() -> None:
    gradients = []
    for scores in (sparse_scores, lambda a, b: vocabulary_wide(a) @ vocabulary_wide(b).T):
        queries, passages = texts(3, [4, 7, 2]), texts(4, [6, 5, 1, 7])
        for part in (queries, passages):
            part.weights.requires_grad_()
        (scores(queries, passages) ** 2).sum().backward()
        # where a weight is 0 the gradient is a matter of taste: the relu before it lets none through
        gradients.append([part.weights.grad * (part.weights > 0) for part in (queries, passages)])
    for ours, expected in zip(*gradients, strict=True):
        assert expected.abs().sum() > 0
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def moved(part: M3Vectors, distance: int) -> M3Vectors:
    """The same texts with other tokens."""
    return replace(part, ids=part.ids + distance)


def test_sparse_scores_take_no_memory_for_the_vocabulary() -> None:
    far = 10**15  # no matrix has so many columns
    scores = []
    for distance in (0, far):
        queries, passages = (moved(part, distance) for part in (texts(0, [3, 4]), texts(1, [5, 2, 6])))
        scores.append(sparse_scores(queries, passages))
    assert scores[0].sum() > 0
    assert torch.equal(*scores)


def test_texts_that_share_no_token_have_a_sparse_score_of_zero() -> None:
    queries, passages = texts(0, [3, 4]), texts(1, [5, 2, 6])
    for distance in (VOCABULARY, -VOCABULARY):  # below and above every token of the queries
        assert (sparse_scores(queries, moved(passages, distance)) == 0).all()


# ------------------------------------------------------------------ all of them, and the loss


def test_logits_are_similarities_divided_by_the_temperature() -> None:
    queries, passages = texts(0, [3, 1]), texts(1, [2, 5, 4])
    scores = head_logits(queries, passages, temperature=0.05)
    dense = np.array([[float(a @ b) for b in passages.dense.double()] for a in queries.dense.double()])
    np.testing.assert_allclose(scores.dense, dense / 0.05, atol=20 * TOLERANCE)
    np.testing.assert_allclose(scores.sparse, sparse_scores(queries, passages) / 0.05, atol=20 * TOLERANCE)
    np.testing.assert_allclose(scores.colbert, looped(queries, passages) / 0.05, atol=20 * TOLERANCE)
    np.testing.assert_allclose(scores.ensemble, scores.dense + 0.3 * scores.sparse + scores.colbert, atol=TOLERANCE)


def log_shares(row: list[float]) -> list[float]:
    total = math.log(sum(math.exp(x) for x in row))
    return [x - total for x in row]


def looped_loss(dense: list[list[float]], sparse: list[list[float]], colbert: list[list[float]],
                targets: list[int], *, self_distill: bool) -> float:  # fmt: skip
    """The oracle: the formulas of the paper's section 3.2 with FlagEmbedding's weights, one query after the other."""
    total = 0.0
    for d, s, c, target in zip(dense, sparse, colbert, targets, strict=True):
        e = [x + 0.3 * y + z for x, y, z in zip(d, s, c, strict=True)]
        infonce = [-log_shares(row)[target] for row in (d, e, s, c)]
        loss = (infonce[0] + infonce[1] + 0.1 * infonce[2] + infonce[3]) / 4
        if self_distill:
            teacher = [math.exp(x) for x in log_shares(e)]
            taught = [-sum(t * x for t, x in zip(teacher, log_shares(row), strict=True)) for row in (d, s, c)]
            loss = (loss + (taught[0] + 0.1 * taught[1] + taught[2]) / 3) / 2
        total += loss
    return total / len(targets)


def random_scores(seed: int) -> HeadLogits:
    random = np.random.default_rng(seed)
    return HeadLogits(*(torch.from_numpy(random.normal(scale=3, size=(3, 7))).float() for _ in range(3)))


@pytest.mark.parametrize("self_distill", [False, True])
def test_the_loss_equals_the_formulas_of_the_paper(self_distill: bool) -> None:
    scores, targets = random_scores(0), [2, 0, 6]
    lists = scores.dense.tolist(), scores.sparse.tolist(), scores.colbert.tolist()
    loss = unified_loss(scores, torch.tensor(targets), self_distill=self_distill)
    assert loss.item() == pytest.approx(looped_loss(*lists, targets, self_distill=self_distill), rel=1e-5)


def test_the_ensemble_teaches_the_heads_and_gets_no_gradient_from_them() -> None:
    """What self-distillation adds to a head's gradient is that of its own cross entropy with fixed labels."""
    targets = torch.tensor([2, 0, 6])
    gradients = {}
    for self_distill in (False, True):
        scores = random_scores(0)
        scores.dense.requires_grad_()
        unified_loss(scores, targets, self_distill=self_distill).backward()
        gradients[self_distill] = scores.dense.grad
    scores = random_scores(0)
    added = (scores.dense.softmax(dim=-1) - scores.ensemble.softmax(dim=-1)) / 3 / len(targets)
    torch.testing.assert_close(gradients[True], (gradients[False] + added) / 2, rtol=1e-4, atol=1e-6)


def test_texts_of_several_parts_keep_their_order_and_are_padded_to_the_longest() -> None:
    parts = [texts(0, [2, 3]), texts(1, [5]), texts(2, [1, 1, 1])]
    whole, queries = M3Vectors.concatenate(parts), texts(3, [4])
    assert whole.mask.sum(dim=1).tolist() == [2, 3, 5, 1, 1, 1]
    assert whole.colbert.shape == (6, 5, WIDTH)
    for head in (colbert_scores, sparse_scores):
        expected = torch.cat([head(queries, part) for part in parts], dim=1)
        torch.testing.assert_close(head(queries, whole), expected, rtol=0, atol=TOLERANCE)
    assert torch.equal(whole.dense, torch.cat([part.dense for part in parts]))


@pytest.mark.parametrize("passages", [4, 96])
def test_the_chance_loss_is_that_of_equal_scores(passages: int) -> None:
    equal = torch.zeros(4, passages)
    loss = unified_loss(HeadLogits(equal, equal, equal), torch.arange(4), self_distill=True)
    assert chance_loss(passages) == pytest.approx(float(loss))
