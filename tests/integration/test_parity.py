"""The served vectors are the ones that sentence-transformers computes on the same folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import E5_BFLOAT16
from tests.retrieval import DATA, load, ndcg
from tests.service_process import STARTER, Service

TOLERANCE = {STARTER: 0.99999, E5_BFLOAT16: 0.9999}  # cosine, by dtype

TEXTS = [
    "how do I rotate a log file?",
    "Wie lange dauert der Versand nach Österreich?",
    "今日はとても良い天気ですね。",
    "كيف يمكنني إعادة تعيين كلمة المرور؟",
    "שלום עולם, זה מבחן קצר",
    "Быстрая коричневая лиса прыгает через ленивую собаку",
    "यह एक छोटा परीक्षण वाक्य है",
    "👩‍👩‍👧‍👦 family emoji 🏳️‍🌈 and flags 🇩🇪",
    "a",
    "。",
    "\u200f\u202eright to left override\u202c",
    "control \x01\x02\x7f characters \u0000 inside",
    "e\u0301 combining and Ångström ﬁ ligature ½",
    "  leading,   double  and trailing blanks   ",
    "tabs\tand\nnew\r\nlines",
    "mixed 中文 and English und Deutsch",
    "a_very_long_identifier_without_any_blank" * 8,
    "long text " * 300,
    "sehr " * 700 + "Ende",
    "x" * 5000,
]
FEW = [0, 1, 2, 3, 7, 8]  # for bfloat16, which is slow on a CPU that only emulates it
ASKED = {STARTER: range(len(TEXTS)), E5_BFLOAT16: FEW}


@pytest.fixture(scope="module")
def client(service: Service) -> httpx.Client:
    return httpx.Client(base_url=service.url, timeout=120)


@pytest.fixture(scope="module")
def reference(starter_folder: Path) -> NDArray[np.float32]:
    """float32 ``[len(TEXTS), dimension]`` from sentence-transformers, one text at a time."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(starter_folder), device="cpu")
    return np.array([model.encode("query: " + text, normalize_embeddings=True) for text in TEXTS])


def cosines(served: list[list[float]], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    vectors = np.array(served, np.float32)
    return (vectors * reference).sum(axis=1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(reference, axis=1)


@pytest.mark.parametrize("model", TOLERANCE)
def test_each_text_alone_equals_sentence_transformers(
    client: httpx.Client, reference: NDArray[np.float32], model: str
) -> None:
    asked = ASKED[model]
    served = [client.post("/vectorize", json={"text": TEXTS[i], "model": model}).json()["vector"] for i in asked]
    assert cosines(served, reference[asked]).min() > TOLERANCE[model]


@pytest.mark.parametrize("model", TOLERANCE)
def test_all_texts_in_one_list_equal_sentence_transformers(
    client: httpx.Client, reference: NDArray[np.float32], model: str
) -> None:
    asked = ASKED[model]
    body = {"items": [TEXTS[i] for i in asked], "is_query": True, "model": model}
    reply = client.post("/vectorize-batch", json=body)
    assert cosines(reply.json()["vectors"], reference[asked]).min() > TOLERANCE[model]
    assert reply.headers.get("X-Truncated") == ("17,18,19" if model == STARTER else None)


@pytest.mark.parametrize("model", TOLERANCE)
def test_texts_equal_sentence_transformers_under_32_concurrent_clients(
    service: Service, reference: NDArray[np.float32], model: str
) -> None:
    order = np.random.default_rng(7).permutation(np.repeat(ASKED[model], 8))

    def ask(index: np.int64) -> list[float]:
        body = {"text": TEXTS[index], "model": model}
        return httpx.post(f"{service.url}/vectorize", json=body, timeout=120).json()["vector"]

    with ThreadPoolExecutor(32) as clients:
        served = list(clients.map(ask, order))
    assert cosines(served, reference[order]).min() > TOLERANCE[model]


@pytest.mark.parametrize(("model", "documents", "chars"), [(STARTER, 60, 600), (E5_BFLOAT16, 30, 300)])
def test_retrieval_over_http_equals_retrieval_in_process(
    client: httpx.Client, starter_folder: Path, model: str, documents: int, chars: int
) -> None:
    """With the beginnings of some documents of the set and the questions that they answer."""
    from sentence_transformers import SentenceTransformer

    data, _ = load(DATA / "debfaq-en").first(documents)
    texts = [document[:chars] for document in data.documents]
    local = SentenceTransformer(str(starter_folder), device="cpu")
    queries = local.encode(["query: " + query for query in data.queries], normalize_embeddings=True)
    expected = ndcg(
        queries @ local.encode(["passage: " + text for text in texts], normalize_embeddings=True).T, data.relevant
    )

    def served(texts: list[str], *, is_query: bool) -> NDArray[np.float32]:
        body = {"items": texts, "is_query": is_query, "model": model}
        return np.array(client.post("/vectorize-batch", json=body).json()["vectors"], np.float32)

    got = ndcg(served(data.queries, is_query=True) @ served(texts, is_query=False).T, data.relevant)
    print(f"nDCG@10 {model}: served {got:.4f}, in process {expected:.4f}")
    assert expected > 0.6, "the starter model retrieves"
    assert abs(got - expected) <= 0.005
