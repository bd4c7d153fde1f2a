"""Texts that a client has tokenised itself, and tokens as a client sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.domain.errors import InvalidInputError
from serve_app.domain.tokens import Token
from serve_app.models.tokenizer import TextTokenizer

TEXTS = ["How do I read a file?", "Übermütige Füchse 素早い", "a", "  two  blanks ", "😀 é ﬁ"]


def test_ids_are_taken_as_they_are(e5_tiny: Path) -> None:
    tokenizer = TextTokenizer(e5_tiny, 512)
    out = tokenizer.of_ids([[0, 7, 8, 9, 2], [0, 5, 2], [0, 0, 2]])
    assert [row.tolist() for row in out.batch().rows()] == [[0, 7, 8, 9, 2], [0, 5, 2], [0, 0, 2]]
    assert out.truncated == []


def test_the_ids_of_a_text_are_the_text(e5_tiny: Path) -> None:
    tokenizer = TextTokenizer(e5_tiny, 512)
    ids = [[token.id for token in row] for row in tokenizer.tokens(TEXTS)]
    assert tokenizer.of_ids(ids).ids.tolist() == tokenizer(TEXTS).ids.tolist()


def test_too_many_ids_are_cut_as_a_text_is_and_reported(e5_tiny: Path) -> None:
    out = TextTokenizer(e5_tiny, 3).of_ids([[0, 5, 2], [0, 6, 7, 2]])
    assert [row.tolist() for row in out.batch().rows()] == [[0, 5, 2], [0, 6, 2]]
    assert (out.truncated, out.full_lengths.tolist()) == ([1], [3, 4])


def test_an_id_outside_the_vocabulary_is_refused_and_its_text_named(e5_tiny: Path) -> None:
    tokenizer = TextTokenizer(e5_tiny, 512)
    size = tokenizer.vocabulary.size
    assert tokenizer.of_ids([[0, size - 1, 2]]).ids.tolist() == [0, size - 1, 2]
    with pytest.raises(
        InvalidInputError, match=f"token id {size} is not in the model's vocabulary of {size}"
    ) as caught:
        tokenizer.of_ids([[0, 5, 2], [0, size, 2]])
    assert caught.value.item == 1


@pytest.mark.parametrize("ids", [[5], [0], [2], [0, 5], [5, 2], [2, 5, 0], [15, 16, 17, 18]])
def test_ids_of_another_vocabulary_are_refused_because_no_special_tokens_are_around_them(
    e5_tiny: Path, ids: list[int]
) -> None:
    with pytest.raises(InvalidInputError, match=r"begin with \[0\] and end with \[2\]; these do not") as caught:
        TextTokenizer(e5_tiny, 512).of_ids([[0, 5, 2], ids])
    assert caught.value.item == 1


@pytest.mark.parametrize("text", TEXTS)
def test_a_token_is_the_bytes_it_stands_for(e5_tiny: Path, text: str) -> None:
    first, *tokens, last = TextTokenizer(e5_tiny, 512).tokens([text])[0]
    assert (first, last) == (Token(0, "<s>", True), Token(2, "</s>", True))
    for token in tokens:
        assert not token.special
        assert token.text == text.encode()[token.start : token.stop].decode()
    covered = {i for token in tokens for i in range(token.start or 0, token.stop or 0)}
    assert covered >= {i for i, byte in enumerate(text.encode()) if byte != ord(" ")}


def test_special_tokens_are_left_out_on_request(e5_tiny: Path) -> None:
    tokenizer = TextTokenizer(e5_tiny, 512)
    for whole, bare in zip(tokenizer.tokens(TEXTS), tokenizer.tokens(TEXTS, special=False), strict=True):
        assert bare == whole[1:-1]


def test_a_long_text_is_taken_apart_whole(e5_tiny: Path) -> None:
    assert len(TextTokenizer(e5_tiny, 5).tokens(["the " * 50])[0]) == 52


def test_weights_by_id_leave_out_special_tokens_alone(bge_m3_tiny: Path) -> None:
    vocabulary = TextTokenizer(bge_m3_tiny, 512).vocabulary
    assert vocabulary.weights_by_id([0, 7, 2, 9], [0.1, 0.2, 0.3, 0.4]) == [(7, 0.2), (9, 0.4)]
