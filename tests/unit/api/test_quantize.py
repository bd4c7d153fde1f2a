"""Quantization and truncation of vectors: each fast routine against a loop over plain numbers."""

from __future__ import annotations

import base64
import struct

import numpy as np
import pytest

from serve_app.api.encoding.quantize import (
    as_base64,
    as_binary,
    as_int8,
    as_ubinary,
    as_uint8,
    quantize,
    shortened,
)
from serve_app.domain.embeddings import Float32
from serve_app.domain.errors import InvalidInputError


def unit_vectors(count: int = 40, dimension: int = 20) -> Float32:
    vectors = np.random.default_rng(0).normal(size=(count, dimension)).astype(np.float32)
    vectors[0] = np.eye(dimension)[0]  # the extremes, and exact zeros
    vectors[1] = -np.eye(dimension)[1]
    unit: Float32 = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def test_int8_is_the_nearest_of_127_steps_to_each_side() -> None:
    vectors = unit_vectors()
    assert as_int8(vectors).tolist() == [[round(127 * float(x)) for x in row] for row in vectors]
    assert as_int8(vectors).dtype == np.int8
    assert (as_int8(vectors).min(), as_int8(vectors).max()) == (-127, 127)
    np.testing.assert_allclose(as_int8(vectors) / 127, vectors, atol=0.5 / 127 + 1e-6)


def test_a_norm_just_above_one_does_not_wrap_around() -> None:
    assert as_int8(np.array([[1.01, -1.01]], np.float32)).tolist() == [[127, -127]]


def test_uint8_is_int8_moved_up_by_128() -> None:
    vectors = unit_vectors()
    assert as_uint8(vectors).tolist() == [[x + 128 for x in row] for row in as_int8(vectors).tolist()]
    assert as_uint8(vectors).dtype == np.uint8


@pytest.mark.parametrize("dimension", [1, 7, 8, 9, 20])
def test_binary_is_a_bit_for_each_number_above_zero_filled_up_with_zeros(dimension: int) -> None:
    vectors = unit_vectors(dimension=max(2, dimension))[:, :dimension]
    bits = [["1" if x > 0 else "0" for x in row] for row in vectors]
    expected = [[int("".join(row[i : i + 8]).ljust(8, "0"), 2) for i in range(0, dimension, 8)] for row in bits]
    assert as_ubinary(vectors).tolist() == expected
    assert as_binary(vectors).tolist() == [[byte - 128 for byte in row] for row in expected]
    assert (as_ubinary(vectors).dtype, as_binary(vectors).dtype) == (np.uint8, np.int8)


def test_the_native_encodings_are_these() -> None:
    vectors = unit_vectors()
    assert quantize(vectors, "float") is vectors
    np.testing.assert_array_equal(quantize(vectors, "int8"), as_int8(vectors))
    np.testing.assert_array_equal(quantize(vectors, "binary"), as_ubinary(vectors))


@pytest.mark.parametrize("dimensions", [1, 7, 20])
def test_a_shortened_vector_is_the_beginning_of_the_whole_one_with_norm_one(dimensions: int) -> None:
    vectors = unit_vectors()[2:]
    short = shortened(vectors, dimensions)
    for whole, part in zip(vectors.astype(np.float64), short, strict=True):
        np.testing.assert_allclose(part, whole[:dimensions] / np.sqrt(sum(whole[:dimensions] ** 2)), atol=1e-6)
    assert (short.dtype, short.shape) == (np.float32, (38, dimensions))


def test_nothing_is_done_where_nothing_is_asked_for() -> None:
    vectors = unit_vectors()
    assert shortened(vectors, None) is vectors
    assert shortened(vectors, 20) is vectors


def test_a_beginning_of_zeros_stays_zero() -> None:
    assert shortened(unit_vectors()[1:2], 1).tolist() == [[0.0]]


def test_more_dimensions_than_there_are_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"^dimensions: 21, but the model's vectors have 20"):
        shortened(unit_vectors(), 21)


def test_base64_holds_the_little_endian_float32_of_each_vector() -> None:
    vectors = unit_vectors()[:, ::2]  # not contiguous
    for text, row in zip(as_base64(vectors), vectors, strict=True):
        assert base64.b64decode(text) == struct.pack("<10f", *row)
