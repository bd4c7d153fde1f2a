"""Quantization and truncation of vectors, with the scaling that clients need to undo it.

All functions take L2-normalised float32 ``[n, dimension]``, so every number is between -1 and 1.

====================  ============================================  ==========================================
encoding              value                                         how to read it
====================  ============================================  ==========================================
``float``             float32 as it is
``int8``              ``round(127 x)``, -127 to 127                 divide by 127; or compare as it is: the
                                                                    scaling is the same for all, so cosines
                                                                    need no undoing
``uint8``             the same plus 128, 1 to 255                   subtract 128 first
``ubinary``           a bit for each dimension, 1 where x > 0,      Hamming distance; ``numpy.unpackbits``
                      eight a byte, the first one the highest,
                      zeros at the end (``numpy.packbits``)
``binary``, Cohere    the same byte minus 128, -128 to 127          add 128 first
====================  ============================================  ==========================================

The binary forms are those of Cohere's API and of ``sentence_transformers.quantize_embeddings``. The latter's int8
is calibrated on a collection of vectors, which a service that sees one request does not have.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from serve_app.domain.embeddings import Float32
from serve_app.domain.errors import InvalidInputError

Int8 = NDArray[np.int8]
UInt8 = NDArray[np.uint8]

Encoding = Literal["float", "int8", "binary"]


def quantize(vectors: Float32, encoding: Encoding) -> Float32 | Int8 | UInt8:
    """Vectors in an encoding of the native routes; ``binary`` is unsigned, as ``numpy.packbits`` returns it."""
    if encoding == "int8":
        return as_int8(vectors)
    return as_ubinary(vectors) if encoding == "binary" else vectors


def as_int8(vectors: Float32) -> Int8:
    """int8 ``[n, dimension]``, ``round(127 x)``."""
    scaled: Float32 = np.rint(vectors * np.float32(127))
    return scaled.clip(-127, 127).astype(np.int8)  # a norm is 1 within float32's precision


def as_uint8(vectors: Float32) -> UInt8:
    """uint8 ``[n, dimension]``, ``round(127 x) + 128``."""
    return (as_int8(vectors).astype(np.int16) + 128).astype(np.uint8)


def as_ubinary(vectors: Float32) -> UInt8:
    """uint8 ``[n, ceil(dimension / 8)]``: a bit for each dimension, set where the number is above 0."""
    return np.packbits(vectors > 0, axis=-1)


def as_binary(vectors: Float32) -> Int8:
    """int8 ``[n, ceil(dimension / 8)]``: ``as_ubinary`` minus 128."""
    return (as_ubinary(vectors).astype(np.int16) - 128).astype(np.int8)


def as_base64(vectors: Float32 | Int8 | UInt8) -> list[str]:
    """Each vector as the base64 text of its bytes; floats are little-endian float32."""
    rows = vectors.astype("<f4") if vectors.dtype == np.float32 else vectors
    return [b64encode(row.tobytes()).decode() for row in rows]


FORMS: Mapping[str, Callable[[Float32], Any]] = {
    "float": np.ascontiguousarray,
    "int8": as_int8,
    "uint8": as_uint8,
    "binary": as_binary,
    "ubinary": as_ubinary,
    "base64": as_base64,
}
"""Conversions of vectors, by the names in Cohere's and Voyage's APIs."""


def require_normalized(form: str, field: str, *, normalize: bool) -> None:
    """Raises ``InvalidInputError`` for an encoding that requires L2-normalised vectors, if they are not."""
    if not normalize and form not in {"float", "base64"}:
        raise InvalidInputError(f"{field}: {form} is for L2-normalised vectors; leave out normalize: false")


def require_dimensions(dimensions: int, has: int, *, field: str = "dimensions") -> None:
    """Raises ``InvalidInputError`` for more dimensions than the vectors have."""
    if dimensions > has:
        raise InvalidInputError(f"{field}: {dimensions}, but the model's vectors have {has}")


def shortened(
    vectors: Float32, dimensions: int | None, *, field: str = "dimensions", normalize: bool = True
) -> Float32:
    """The first ``dimensions`` numbers of each vector, optionally L2-normalised again; None for all.

    Only models that were trained for it (Matryoshka) keep most of their quality.

    Args:
        vectors: float32 ``[n, dimension]``.
        dimensions: At least 1.
        field: Name of the field, for messages.
        normalize: L2-normalise the result.

    Raises:
        InvalidInputError: The vectors have fewer.
    """
    has = vectors.shape[1]
    if dimensions is None or dimensions == has:
        return vectors
    require_dimensions(dimensions, has, field=field)
    part = vectors[:, :dimensions]
    if not normalize:
        return part
    norms = np.maximum(np.linalg.norm(part, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    unit: Float32 = (part / norms).astype(np.float32)
    return unit
