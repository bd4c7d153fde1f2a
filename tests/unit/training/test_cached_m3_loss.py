"""The cached loss: the gradient of the whole batch, whatever the mini-batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from training.losses import cached_m3_loss, m3_workers
from training.losses.cached_m3_loss import CachedM3Loss
from training.losses.m3_heads import M3Heads, M3Vectors, represent, special_ids_of

QUERIES = ["open a file", "read lines", "sort a list of words by their length, longest first", "the", "Größe"]
PASSAGES = [
    "The file is opened with open, in text mode or in binary mode.",
    "Iterate over the file.",
    "sorted takes a key and returns a new list",
    "an article, of course",
    "敏捷的棕色狐狸跳过了懒狗。",
]
NEGATIVES = ["close it", "a line", "reverse the list, then the words of the list", "a", "foo"]
Columns = list[dict[str, torch.Tensor]]


def build(folder: Path, *, dropout: bool = False, mini_batch_size: int = 2) -> CachedM3Loss:
    model = SentenceTransformer(str(folder), device="cpu")
    loss = CachedM3Loss(model, M3Heads.load(folder), temperature=0.05, mini_batch_size=mini_batch_size)
    return loss.train(dropout)  # the tiny model has the usual dropout of 0.1


def columns_of(loss: CachedM3Loss, *texts: list[str]) -> Columns:
    return [dict(loss.model.preprocess(column)) for column in texts or (QUERIES, PASSAGES, NEGATIVES)]


def gradients(loss: CachedM3Loss) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in loss.named_parameters() if p.grad is not None}
    loss.zero_grad()
    return found


def assert_same(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Equal by 1e-4; what is zero but for rounding (attention ignores the bias of its keys) need only be as small."""
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=max(1e-4 * scale, 1e-7), msg=name)


def uncached(loss: CachedM3Loss, columns: Columns) -> torch.Tensor:
    """The oracle: one graph over everything, the mini-batches in the same order, so that dropout is the same."""
    size, special = loss.mini_batch_size, special_ids_of(loss.model)
    vectors = []
    for column in columns:
        tensors = {name: value for name, value in column.items() if isinstance(value, torch.Tensor)}
        parts = []
        for begin in range(0, len(column["input_ids"]), size):
            longest = int(column["attention_mask"][begin : begin + size].sum(dim=1).max())
            part = {name: value[begin : begin + size, :longest] for name, value in tensors.items()}
            parts.append(represent(loss.model(part), loss.heads, special))
        vectors.append(M3Vectors.concatenate(parts))
    return loss.loss_of(vectors[0], M3Vectors.concatenate(vectors[1:]))


@pytest.mark.parametrize("dropout", [False, True], ids=["no dropout", "dropout"])
def test_the_cached_gradient_is_that_of_the_whole_batch(bge_m3_tiny: Path, dropout: bool) -> None:
    loss = build(bge_m3_tiny, dropout=dropout)
    columns = columns_of(loss)
    torch.manual_seed(1)
    expected = uncached(loss, columns)
    expected.backward()
    oracle = gradients(loss)
    torch.manual_seed(1)
    value = loss(columns, None)
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same(gradients(loss), oracle)
    torch.manual_seed(2)  # the dropout matters, if there is any
    assert (loss(columns, None).item() != pytest.approx(expected.item(), rel=1e-5)) is dropout


def test_the_mini_batch_size_changes_neither_loss_nor_gradient(bge_m3_tiny: Path) -> None:
    loss = build(bge_m3_tiny)
    columns = columns_of(loss)
    found = []
    for loss.mini_batch_size in (100, 1, 3):
        value = loss(columns, None)
        value.backward()
        found.append((value.item(), gradients(loss)))
    for value, gradient in found[1:]:
        assert value == pytest.approx(found[0][0], rel=1e-5)
        assert_same(gradient, found[0][1])


def test_the_gradient_is_scaled_by_what_comes_from_outside(bge_m3_tiny: Path) -> None:
    """As gradient accumulation and the scaling of float16 need it."""
    loss = build(bge_m3_tiny)
    columns = columns_of(loss)
    loss(columns, None).backward()
    once = gradients(loss)
    for _ in range(2):
        (loss(columns, None) / 4).backward()
    assert_same(gradients(loss), {name: gradient / 2 for name, gradient in once.items()})


def test_both_heads_and_every_layer_get_a_gradient(bge_m3_tiny: Path) -> None:
    loss = build(bge_m3_tiny)
    loss(columns_of(loss), None).backward()
    found = gradients(loss)
    without = {name for name, _ in loss.named_parameters() if name not in found or not found[name].any()}
    assert {name for name in without if "pooler" not in name} == set()  # the pooler is no part of the model's vectors


def test_training_lowers_the_loss_and_changes_all_three_representations(bge_m3_tiny: Path) -> None:
    loss = build(bge_m3_tiny, mini_batch_size=5)
    columns = columns_of(loss)
    special = special_ids_of(loss.model)

    @torch.no_grad()
    def vectors() -> M3Vectors:
        return represent(loss.model(dict(columns[1])), loss.heads, special)

    before, optimizer, values = vectors(), torch.optim.AdamW(loss.parameters(), lr=2e-3), []
    for _ in range(6):
        optimizer.zero_grad()
        value = loss(columns, None)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.8 * values[0]
    after = vectors()
    for name in ("dense", "colbert", "weights"):
        assert (getattr(after, name) - getattr(before, name)).abs().max() > 1e-3, name


def test_hard_negatives_are_more_passages_for_every_query(bge_m3_tiny: Path) -> None:
    loss = build(bge_m3_tiny)
    loss.self_distill = False  # its term may fall with more passages; each InfoNCE only rises
    with torch.no_grad():
        pairs, triples = (loss(columns_of(loss, QUERIES, PASSAGES, *more), None) for more in ([], [NEGATIVES]))
    assert triples > pairs + 0.1


def test_evaluation_gives_the_same_loss_without_gradients(bge_m3_tiny: Path) -> None:
    loss = build(bge_m3_tiny)
    with torch.no_grad():
        value = loss(columns_of(loss), None)
    assert not value.requires_grad
    assert value.item() == pytest.approx(loss(columns_of(loss), None).item(), rel=1e-6)


def test_a_batch_without_passages_is_refused(bge_m3_tiny: Path) -> None:
    loss = build(bge_m3_tiny)
    with pytest.raises(ValueError, match="needs queries and passages"):
        loss(columns_of(loss, QUERIES), None)


def test_adapters_and_heads_are_trained_while_the_base_is_frozen(bge_m3_tiny: Path) -> None:
    from peft import LoraConfig

    loss = build(bge_m3_tiny)
    columns = columns_of(loss)
    loss.model.add_adapter(LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False))
    uncached(loss, columns).backward()
    oracle = gradients(loss)
    loss(columns, None).backward()
    found = gradients(loss)
    assert_same(found, oracle)
    assert {name for name in found if "lora" not in name} == {name for name in found if name.startswith("heads.")}
    assert len([name for name in found if "lora" in name]) == 2 * 2 * 2  # layers, matrices of each, two factors
    assert all(gradient.any() for gradient in found.values())


# ------------------------------------------------------------------ several workers


def test_the_right_passage_is_found_among_those_of_other_workers(
    bge_m3_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = build(bge_m3_tiny)
    columns = columns_of(loss)
    alone = loss(columns, None).item()  # its negatives are a column, behind the passages
    with torch.no_grad():
        others = represent(loss.model(columns[2]), loss.heads, special_ids_of(loss.model))

    def gather(passages: M3Vectors) -> tuple[M3Vectors, int]:
        return M3Vectors.concatenate([others, passages]), len(others.mask)

    monkeypatch.setattr(cached_m3_loss, "gather_passages", gather)
    assert loss(columns[:2], None).item() == pytest.approx(alone, rel=1e-5)


def test_gradients_of_heads_are_averaged_also_when_they_accumulate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers in lockstep: what one adds up of both is the other's gradient and its own."""
    ours, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)

    def all_reduce(gradient: torch.Tensor) -> None:
        mine = next(i for i, p in enumerate(ours.parameters()) if p.grad is gradient)
        gradient += list(other.parameters())[mine].grad

    monkeypatch.setattr(m3_workers, "world_size", lambda: 2)
    monkeypatch.setattr(m3_workers.distributed, "all_reduce", all_reduce)
    total = torch.zeros(1, 2)
    for step in range(1, 3):
        a, b = torch.full((1, 2), float(step)), torch.full((1, 2), 10.0 * step)
        ours(a).sum().backward()
        other(b).sum().backward()
        m3_workers.average_gradients(ours)
        other.weight.grad = ours.weight.grad.clone()  # as the other worker has it now, too
        total += (a + b) / 2
        torch.testing.assert_close(ours.weight.grad, total)


def test_a_single_worker_exchanges_nothing() -> None:
    passages = M3Vectors(*(torch.zeros(2, 3) for _ in range(5)))
    assert m3_workers.gather_passages(passages) == (passages, 0)
