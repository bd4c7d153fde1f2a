"""Packed forwards beside padded ones, for each kind of attention and of positions that transformers has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.embeddings import Int32
from serve_app.models.backbone import layout
from serve_app.models.backbone.encoder_output import EncoderOutput
from serve_app.models.backbone.layout import choose_backbone, wants_packed
from serve_app.models.backbone.packed import PackedBackbone, can_pack, positions_of
from serve_app.models.backbone.packed_attention import packed_attention
from serve_app.models.backbone.padded import PaddedBackbone

CPU = torch.device("cpu")
TOLERANCE = 2e-6  # states near 1 in float32; Gemma scales its embeddings
VOCABULARY = 200
PAD = 1
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 64, "pad_token_id": PAD, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
GROUPED: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 8}

KINDS: dict[str, Callable[[], Any]] = {
    "BERT": lambda: transformers.BertModel(transformers.BertConfig(**SIZES)),
    "XLM-RoBERTa": lambda: transformers.XLMRobertaModel(
        transformers.XLMRobertaConfig(**SIZES, max_position_embeddings=2100)
    ),
    "DistilBERT": lambda: transformers.DistilBertModel(
        transformers.DistilBertConfig(vocab_size=VOCABULARY, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    ),
    "ModernBERT, local layers": lambda: transformers.ModernBertModel(
        transformers.ModernBertConfig(
            **SIZES, cls_token_id=0, sep_token_id=2, local_attention=8, global_attn_every_n_layers=2
        )
    ),
    "Qwen3, causal, grouped heads": lambda: transformers.Qwen3Model(transformers.Qwen3Config(**SIZES, **GROUPED)),
    "Mistral, causal window": lambda: transformers.MistralModel(
        transformers.MistralConfig(**SIZES, **GROUPED, sliding_window=6)
    ),
    "Gemma 3, bidirectional": lambda: transformers.Gemma3TextModel(
        transformers.Gemma3TextConfig(
            **SIZES,
            **GROUPED,
            sliding_window=8,
            use_bidirectional_attention=True,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        )
    ),
}


def model_of(kind: str) -> Any:
    torch.manual_seed(0)
    return KINDS[kind]().eval()


def texts(seed: int, lengths: list[int]) -> list[Int32]:
    """Random ids; the padding token is among them, as it is where a text spells it out."""
    random = np.random.default_rng(seed)
    return [random.integers(0, VOCABULARY, length).astype(np.int32) for length in lengths]


@torch.inference_mode()
def padded_and_packed(kind: str, batch: list[Int32]) -> tuple[EncoderOutput, EncoderOutput]:
    model = model_of(kind)
    padded = PaddedBackbone(model, CPU).forward(batch)
    return padded, PackedBackbone(model, CPU).forward(batch)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_states_are_those_of_the_padded_forward(kind: str) -> None:
    batch = texts(0, [5, 1, 40, 17, 40, 2])
    batch[2][7] = PAD
    padded, packed = padded_and_packed(kind, batch)
    assert packed.lengths.tolist() == padded.lengths.tolist() == [5, 1, 40, 17, 40, 2]
    np.testing.assert_allclose(packed.states, padded.states, atol=TOLERANCE)


XLM_ROBERTA = model_of("XLM-RoBERTa")


@given(seed=st.integers(0, 99), lengths=st.lists(st.integers(1, 30), min_size=1, max_size=9))
def test_a_text_has_the_same_states_in_any_company(seed: int, lengths: list[int]) -> None:
    batch = texts(seed, lengths)
    with torch.inference_mode():
        backbone = PackedBackbone(XLM_ROBERTA, CPU)
        together = torch.split(backbone.forward(batch).states, lengths)
        for text, states in zip(batch, together, strict=True):
            np.testing.assert_allclose(states, backbone.forward([text]).states, atol=TOLERANCE)


def test_a_long_text_beside_short_ones_is_computed_as_alone() -> None:
    padded, packed = padded_and_packed("XLM-RoBERTa", texts(1, [2000, 3, 1]))
    np.testing.assert_allclose(packed.states, padded.states, atol=TOLERANCE)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=6))
def test_positions_are_those_that_the_library_gives_each_text(rows: list[list[int]]) -> None:
    ids, lengths = np.concatenate(rows).astype(np.int64), np.array([len(row) for row in rows])
    create = (
        transformers.models.xlm_roberta.modeling_xlm_roberta.XLMRobertaEmbeddings.create_position_ids_from_input_ids
    )
    expected = [position for row in rows for position in create(torch.tensor([row]), PAD)[0].tolist()]
    assert positions_of(ids, lengths, PAD).tolist() == expected
    assert positions_of(ids, lengths, None).tolist() == [i for row in rows for i in range(len(row))]


@pytest.mark.parametrize(
    ("device", "dtype", "wanted"),
    [
        ("cuda", torch.bfloat16, True),
        ("cuda", torch.float16, True),
        ("cuda", torch.float32, False),  # variable-length attention is for 16 bits
        ("cpu", torch.bfloat16, False),
    ],
)
def test_packed_is_wanted_where_the_device_has_attention_for_it(device: str, dtype: torch.dtype, wanted: bool) -> None:
    assert wants_packed(XLM_ROBERTA, torch.device(device), dtype) is wanted


def test_an_architecture_without_the_attention_interface_stays_padded() -> None:
    mpnet = transformers.MPNetModel(transformers.MPNetConfig(**SIZES, max_position_embeddings=50))
    assert not can_pack(mpnet)
    assert not wants_packed(mpnet, torch.device("cuda"), torch.bfloat16)


def test_a_packed_layout_that_computes_the_same_is_used() -> None:
    assert isinstance(choose_backbone(model_of("BERT"), CPU, torch.float32, packed=True), PackedBackbone)


class Mixing(PackedBackbone):
    """Its texts attend to each other."""

    def forward(self, texts: Sequence[Int32]) -> EncoderOutput:
        mixed = super().forward([np.concatenate(texts)])
        return EncoderOutput(mixed.states, np.array([len(text) for text in texts]))


class Failing(PackedBackbone):
    def forward(self, texts: Sequence[Int32]) -> EncoderOutput:
        raise NotImplementedError("packed attention does not compute 'softcap'")


@pytest.mark.parametrize(("backbone", "reason"), [(Mixing, "differ"), (Failing, "'softcap'")])
def test_a_packed_layout_that_computes_something_else_or_nothing_is_left_for_the_padded_one(
    backbone: type[PackedBackbone], reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, batch = model_of("XLM-RoBERTa"), texts(3, [7, 2])
    with torch.inference_mode():
        expected = PaddedBackbone(model, CPU).forward(batch).states
        monkeypatch.setattr(layout, "PackedBackbone", backbone)
        chosen = choose_backbone(model, CPU, torch.float32, packed=True)
        np.testing.assert_array_equal(chosen.forward(batch).states, expected)
    assert isinstance(chosen, PaddedBackbone)
    assert reason in caplog.text


@pytest.mark.parametrize("option", [{"softcap": 30.0}, {"s_aux": torch.zeros(4)}])
def test_an_option_that_is_not_computed_is_named(option: dict[str, Any]) -> None:
    states = torch.ones(1, 4, 3, 8)
    starts = torch.tensor([0, 3], dtype=torch.int32)
    layer: Any = SimpleNamespace(is_causal=False)
    with pytest.raises(NotImplementedError, match=next(iter(option))):
        packed_attention(layer, states, states, states, None, cu_seq_lens_q=starts, max_length_q=3, **option)
