"""The served vectors are the ones that sentence-transformers computes on the same folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.retrieval import DATA, load, ndcg
from tests.service import STARTER, Service

TOLERANCE = {STARTER: 0.99999, "e5-bfloat16": 0.9999}  # cosine, by dtype

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
    served = [client.post("/vectorize", json={"text": text, "model": model}).json()["vector"] for text in TEXTS]
    assert cosines(served, reference).min() > TOLERANCE[model]


@pytest.mark.parametrize("model", TOLERANCE)
def test_all_texts_in_one_list_equal_sentence_transformers(
    client: httpx.Client, reference: NDArray[np.float32], model: str
) -> None:
    reply = client.post("/vectorize-batch", json={"items": TEXTS, "is_query": True, "model": model})
    assert cosines(reply.json()["vectors"], reference).min() > TOLERANCE[model]
    assert reply.headers["X-Truncated"] == "17,18,19"


@pytest.mark.parametrize("model", TOLERANCE)
def test_texts_equal_sentence_transformers_under_32_concurrent_clients(
    service: Service, reference: NDArray[np.float32], model: str
) -> None:
    rounds = 8 if model == STARTER else 2  # bfloat16 is slow on a CPU that only emulates it
    order = np.random.default_rng(7).permutation(len(TEXTS) * rounds) % len(TEXTS)

    def ask(index: int) -> list[float]:
        body = {"text": TEXTS[index], "model": model}
        return httpx.post(f"{service.url}/vectorize", json=body, timeout=120).json()["vector"]

    with ThreadPoolExecutor(32) as clients:
        served = list(clients.map(ask, order))
    assert cosines(served, reference[order]).min() > TOLERANCE[model]


@pytest.fixture(scope="module")
def local(starter_folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of the set's queries and documents, computed in this process."""
    from sentence_transformers import SentenceTransformer

    data = load(DATA / "debfaq-en")
    model = SentenceTransformer(str(starter_folder), device="cpu")
    queries = model.encode(["query: " + q for q in data.queries], normalize_embeddings=True)
    return queries, model.encode(["passage: " + d for d in data.documents], normalize_embeddings=True)


@pytest.mark.parametrize(("model", "documents"), [(STARTER, 146), ("e5-bfloat16", 50)])
def test_retrieval_over_http_equals_retrieval_in_process(
    client: httpx.Client, local: tuple[NDArray[np.float32], NDArray[np.float32]], model: str, documents: int
) -> None:
    """With the whole set; bfloat16, slow on a CPU that only emulates it, with a third."""
    data, asked = load(DATA / "debfaq-en").first(documents)
    expected = ndcg(local[0][asked] @ local[1][:documents].T, data.relevant)

    def served(texts: list[str], *, is_query: bool) -> NDArray[np.float32]:
        body = {"items": texts, "is_query": is_query, "model": model}
        return np.array(client.post("/vectorize-batch", json=body).json()["vectors"], np.float32)

    got = ndcg(served(data.queries, is_query=True) @ served(data.documents, is_query=False).T, data.relevant)
    print(f"nDCG@10 {model}: served {got:.4f}, in process {expected:.4f}")
    assert expected > 0.6, "the starter model retrieves"
    assert abs(got - expected) <= 0.005
