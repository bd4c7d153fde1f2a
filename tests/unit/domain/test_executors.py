"""Slices of several lists alternate in threads, and reads of small files wait for none of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from serve_app.domain import executors as module
from serve_app.domain.errors import InvalidInputError
from serve_app.domain.executors import run_chunked, run_io
from serve_app.domain.profiles import TextRole
from serve_app.inference.served_model import ServedModel
from serve_app.models.model_source import describe
from serve_app.models.tokenizer import TextTokenizer
from tests.unit.inference.fake_caller import FakeCaller

PATIENCE_S = 10.0
TEXTS = ["cats", "read a file", "", "敏捷的狐狸", "the " * 600, "double  blanks ", "a"]


@pytest.fixture
def tiny_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice for nearly every text."""
    monkeypatch.setattr(module, "_SLICE", 8)
    for name in ("_INLINE_CHARS", "_INLINE_IDS"):
        monkeypatch.setattr(f"serve_app.inference.served_model.{name}", 0)


@pytest.fixture
def served(bge_m3_tiny: Path) -> ServedModel[FakeCaller]:
    source = describe("tiny", bge_m3_tiny, family="bge-m3")
    return ServedModel(source, source.profile.capabilities, FakeCaller())


async def test_a_list_in_slices_is_the_list_at_once(served: ServedModel[FakeCaller], tiny_slices: None) -> None:
    reader = served.tokenizer
    ids = [row.tolist() for row in reader(TEXTS).batch().rows()]
    for sliced, whole in (
        (await served.tokenise(TEXTS, None), reader(TEXTS)),
        (await served.of_ids(ids), reader.of_ids(ids)),
        (await served.tokenise_pairs("how?", TEXTS), reader.pairs("how?", TEXTS)),
        (await served.tokenise_pairs("how? " * 9, TEXTS), reader.pairs("how? " * 9, TEXTS)),
    ):
        assert sliced.ids.tolist() == whole.ids.tolist()
        assert sliced.lengths.tolist() == whole.lengths.tolist()
        assert sliced.truncated == whole.truncated
    assert await served.tokens(TEXTS, None, special=True) == reader.tokens(TEXTS)
    assert await served.tokens([], None, special=True) == []


async def test_a_row_at_fault_in_a_later_slice_keeps_its_index(
    served: ServedModel[FakeCaller], tiny_slices: None
) -> None:
    with pytest.raises(InvalidInputError, match="not in the model's vocabulary") as caught:
        await served.of_ids([[0, 5, 6, 7, 8, 2], [0, 5, 6, 7, 8, 2], [0, 10**9, 2]])
    assert caught.value.item == 2


async def test_a_query_is_not_read_again_for_every_candidate(
    served: ServedModel[FakeCaller], tiny_slices: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    pairs = TextTokenizer.pairs
    monkeypatch.setattr(TextTokenizer, "pairs", lambda self, q, c: read.append(len(c)) or pairs(self, q, c))
    await served.tokenise_pairs("q" * 100, ["c" * 10] * 100)
    assert read == [10] * 10


class Reader:
    """Work that waits for its gate and records the lists of its slices, in order."""

    def __init__(self) -> None:
        self.slices: list[str] = []
        self.gate = threading.Event()

    def __call__(self, items: Sequence[str]) -> int:
        assert self.gate.wait(PATIENCE_S)
        self.slices.append(items[0])
        return len(items)


async def test_a_text_waits_for_one_slice_of_each_list_and_not_for_the_lists() -> None:
    lists, reader = [f"list {i}" for i in range(6)], Reader()
    size = module._SLICE
    under_way = [asyncio.ensure_future(run_chunked(reader, [name] * 20, [size] * 20)) for name in lists]
    await asyncio.sleep(0)
    text = asyncio.ensure_future(run_chunked(reader, ["text"], [size]))
    await asyncio.sleep(0.01)
    reader.gate.set()
    assert await asyncio.wait_for(text, PATIENCE_S) == [1]
    assert reader.slices.index("text") <= 2 * len(lists)
    assert await asyncio.gather(*under_way) == [[1] * 20] * len(lists)


async def test_an_abandoned_list_is_not_processed_further() -> None:
    reader = Reader()
    abandoned = asyncio.ensure_future(run_chunked(reader, ["list"] * 20, [module._SLICE] * 20))
    await asyncio.sleep(0.01)
    abandoned.cancel()
    reader.gate.set()
    await asyncio.gather(abandoned, return_exceptions=True)
    await run_chunked(reader, ["text"], [1])
    await asyncio.sleep(0.01)
    assert reader.slices.count("list") <= 1


async def test_reading_a_small_file_waits_for_no_list() -> None:
    reader = Reader()
    under_way = [asyncio.ensure_future(run_chunked(reader, ["list"], [1])) for _ in range(20)]
    await asyncio.sleep(0.01)
    assert await asyncio.wait_for(run_io("{} {there}".format, "who", there="is there"), PATIENCE_S) == "who is there"
    assert reader.slices == []
    reader.gate.set()
    await asyncio.gather(*under_way)


async def test_a_list_is_formatted_for_its_role_before_it_is_cut(
    served: ServedModel[FakeCaller], tiny_slices: None, e5_tiny: Path
) -> None:
    source = describe("tiny", e5_tiny, family="e5")
    e5 = ServedModel(source, source.profile.capabilities, FakeCaller())
    as_passages = await e5.tokenise(["cats", "dogs"], TextRole.PASSAGE)
    whole = e5.tokenizer([source.profile.format(TextRole.PASSAGE, text) for text in ("cats", "dogs")])
    assert as_passages.ids.tolist() == whole.ids.tolist()
