"""Texts of the BGE-M3 parity tests, and how a served representation is compared with the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.m3_reference import M3Vectors

COSINE = 0.9999  # float32: sums in another order, nothing else
WEIGHT = 1e-4

TEXTS = [
    "how do I rotate a log file?",
    "logrotate rotates, compresses and mails the log files of a system; cron starts it once a day.",
    "Wie lange dauert der Versand nach Österreich?",
    "今日はとても良い天気ですね。",
    "كيف يمكنني إعادة تعيين كلمة المرور؟",
    "שלום עולם, זה מבחן קצר",
    "👩‍👩‍👧‍👦 family emoji 🏳️‍🌈 and flags 🇩🇪",
    "a",
    "。",
    "\u200f\u202eright to left override\u202c",
    "control \x01\x02\x7f characters \u0000 inside",
    "e\u0301 combining and Ångström ﬁ ligature ½",
    "  leading,   double  and trailing blanks   ",
    "log log log Log LOG logs: a piece inside a word and at its start",
    "<s> special </s> tokens <mask> as text",
]
LONG = ["number %d of a long text, 長い文 %d; " * 180 % tuple(range(first, first + 360)) for first in (0, 1000, 2000)]


def assert_same(served: Mapping[str, Any], expected: M3Vectors, i: int) -> None:
    """A hybrid vector is the reference's for text ``i``, within the tolerances; ColBERT only if it was asked for."""
    assert cosines(np.array(served["dense"], np.float32), expected.dense[i]) > COSINE
    assert_same_weights(served["sparse"], expected.sparse[i])
    if served["colbert"] is not None:
        assert_same_rows(np.array(served["colbert"], np.float32), expected.colbert[i])


def assert_same_weights(served: Mapping[str, float], expected: Mapping[str, float]) -> None:
    """A token that only one side has counts as a weight of 0 on the other."""
    differences = {token: abs(served.get(token, 0.0) - expected.get(token, 0.0)) for token in {*served, *expected}}
    assert {token: d for token, d in differences.items() if d > WEIGHT} == {}


def assert_same_rows(served: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Each token's vector is the reference's."""
    assert served.shape == expected.shape
    assert cosines(served, expected).min() > COSINE


def cosines(served: NDArray[np.float32], unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each row with a unit vector; from the distance, so that a length other than 1 shows, too."""
    return 1 - ((served - unit) ** 2).sum(axis=-1) / 2
