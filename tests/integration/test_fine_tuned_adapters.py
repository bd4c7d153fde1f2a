"""LoRA and Q-LoRA over HTTP: what is served is what peft and FlagEmbedding compute on the published folders.

One job trains an adapter and both heads of the tiny BGE-M3, the other an adapter on the starter E5 in four bits; they
are sent together, and the second waits for the first.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.conftest import M3_TINY
from tests.fine_tuning import Job, completed, cosine, forget, pair_lines, submit, wait_for, wait_until_gone
from tests.m3_reference import M3Reference, M3Vectors
from tests.retrieval import DATA, load
from tests.service import STARTER, Service

ADAPTER, FOUR_BITS = "tuned-m3", "tuned-starter"
HEADS = ("colbert_linear.pt", "sparse_linear.pt")
QUERY = "which tool rotates log files?"
CANDIDATES = ["logrotate rotates the log files of a system", "cron starts programs", "a cake takes an hour"]
CLOSEST = 0.9999  # cosine, float32 on both sides
TOLERANCE = 1e-4  # of weights and scores between 0 and 1
QUESTIONS = 64
BEGINNING = 200  # characters, about 48 tokens


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def base(client: httpx.Client) -> Job:
    """What the tiny BGE-M3 answers before it is tuned."""
    return hybrid(client, M3_TINY)


@pytest.fixture(scope="module")
def jobs(client: httpx.Client, base: Job) -> Iterator[dict[str, str]]:
    """Ids by model name."""
    pairs = [{"query": query, "pos": answers} for query, answers in questions()]
    tiny = {"text_content": pair_lines(24), "batch_size": 8, "epochs": 2, "use_qlora": False, "base_model": M3_TINY}
    real = {"examples": pairs, "max_seq_length": 48, "batch_size": 16, "learning_rate": 1e-3, "base_model": STARTER}
    jobs = {
        name: submit(client, "/fine-tune-lora", model_name=name, **body)
        for name, body in ((ADAPTER, tiny), (FOUR_BITS, real))
    }
    yield jobs
    for name, job_id in jobs.items():
        forget(client, name, job_id)


@pytest.fixture(scope="module")
def merged(
    jobs: dict[str, str], client: httpx.Client, models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> M3Reference:
    """FlagEmbedding on base and adapter, merged by peft, with the heads that were published beside the adapter."""
    wait_for(client, jobs[ADAPTER], completed)
    folder = tmp_path_factory.mktemp("reference") / "merged"
    shutil.copytree(models_dir / M3_TINY, folder)
    for head in HEADS:
        shutil.copyfile(models_dir / ADAPTER / head, folder / head)
    on_peft(models_dir / M3_TINY, models_dir / ADAPTER).merge_and_unload().save_pretrained(folder)
    return M3Reference(folder)


@pytest.fixture(scope="module")
def expected(merged: M3Reference) -> M3Vectors:
    """Of the query, then of the candidates."""
    return merged.encode([QUERY, *CANDIDATES])


def questions() -> list[tuple[str, list[str]]]:
    """Questions with the passages that answer them."""
    data, _ = load(DATA / "debfaq-en").first(QUESTIONS)
    asked = zip(data.queries, data.relevant, strict=True)
    return [(query, [data.documents[i] for i in sorted(answers)]) for query, answers in asked]


def contrastive_loss(client: httpx.Client, model: str) -> float:
    """Of the beginnings of all questions' first answers, which is about what the training read; at its temperature."""
    asked = questions()
    texts = {True: [query for query, _ in asked], False: [answers[0][:BEGINNING] for _, answers in asked]}
    vectors = {
        is_query: client.post("/vectorize-batch", json={"items": items, "is_query": is_query, "model": model}).json()
        for is_query, items in texts.items()
    }
    queries, passages = (np.array(vectors[is_query]["vectors"]) for is_query in (True, False))
    scores = queries @ passages.T / 0.05
    return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - np.diag(scores)))


def on_peft(base: Path, adapter: Path) -> Any:
    from peft import PeftModel
    from transformers import AutoModel

    return PeftModel.from_pretrained(AutoModel.from_pretrained(base, add_pooling_layer=False), adapter).eval()


def hybrid(client: httpx.Client, model: str) -> Job:
    reply = client.post("/vectorize-hybrid", json={"text": QUERY, "return_colbert": True, "model": model})
    assert reply.status_code == 200, reply.text
    vectors: Job = reply.json()["hybrid_vector"]
    return vectors


def test_an_adapter_serves_the_three_representations_of_peft_and_flagembedding(
    client: httpx.Client, expected: M3Vectors, base: Job
) -> None:
    served = hybrid(client, ADAPTER)
    dense = client.post("/vectorize", json={"text": QUERY, "model": ADAPTER}).json()["vector"]
    assert cosine(dense, expected.dense[0]) > CLOSEST
    assert cosine(served["dense"], expected.dense[0]) > CLOSEST
    assert cosine(served["colbert"], expected.colbert[0]) > CLOSEST
    assert served["sparse"] == pytest.approx(expected.sparse[0], abs=TOLERANCE)
    assert cosine(served["dense"], base["dense"]) < CLOSEST, "it has learnt something"


def test_an_adapter_reranks_with_its_own_head(client: httpx.Client, merged: M3Reference, expected: M3Vectors) -> None:
    query, *candidates = expected.colbert
    body = {"query": QUERY, "candidates": CANDIDATES, "model": ADAPTER}
    scores = client.post("/rerank", json=body).json()["scores"]
    assert scores == pytest.approx([merged.colbert_score(query, one) for one in candidates], abs=TOLERANCE)
    unlike = client.post("/rerank", json=body | {"model": M3_TINY}).json()["scores"]
    assert scores != pytest.approx(unlike, abs=TOLERANCE)


@pytest.mark.usefixtures("merged")
def test_the_base_computes_what_it_did_with_an_adapter_on_it(client: httpx.Client, base: Job) -> None:
    hybrid(client, ADAPTER)
    now = hybrid(client, M3_TINY)
    assert np.allclose(now["dense"], base["dense"], atol=1e-6)
    assert np.allclose(now["colbert"], base["colbert"], atol=1e-6)
    assert now["sparse"] == pytest.approx(base["sparse"], abs=1e-6)


@pytest.mark.usefixtures("merged")
def test_the_training_of_all_heads_is_measured_and_kept_beside_the_adapter(
    client: httpx.Client, jobs: dict[str, str], models_dir: Path
) -> None:
    job = client.get(f"/jobs/{jobs[ADAPTER]}").json()
    assert (job["type"], job["kind"], job["base_model"]) == ("lora", "lora", M3_TINY)
    assert 0 <= job["metrics_after"]["ndcg@10"] <= 1
    for head in HEADS:
        assert (models_dir / ADAPTER / head).read_bytes() != (models_dir / M3_TINY / head).read_bytes()
    state = client.get(f"/models/{ADAPTER}").json()
    assert (state["base"], state["kind"], sorted(state["serves"])) == (M3_TINY, "lora", ["embed", "rerank"])


def test_a_real_model_in_four_bits_learns_its_pairs_and_still_retrieves(
    client: httpx.Client, jobs: dict[str, str], starter_folder: Path, models_dir: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    job = wait_for(client, jobs[FOUR_BITS], completed, timeout_s=240)
    before, after = job["metrics_before"]["ndcg@10"], job["metrics_after"]["ndcg@10"]
    print(f"{job['train_pairs']} pairs, {job['steps']} steps: nDCG@10 {before:.3f} -> {after:.3f}")
    assert (job["kind"], job["train_pairs"], job["eval_pairs"]) == ("qlora", 58, 6)
    assert before > 0.7
    assert after > 0.6, "of six questions"
    losses = [contrastive_loss(client, name) for name in (STARTER, FOUR_BITS)]
    print(f"loss of its pairs: {losses[0]:.3f} -> {losses[1]:.3f}")
    assert losses[1] < 0.9 * losses[0]

    model = SentenceTransformer(str(starter_folder), device="cpu")
    plain = model.encode_query(QUERY)
    model[0].model = on_peft(starter_folder, models_dir / FOUR_BITS)
    served = client.post("/vectorize", json={"text": QUERY, "model": FOUR_BITS}).json()["vector"]
    assert cosine(served, model.encode_query(QUERY)) > CLOSEST
    assert cosine(served, plain) < CLOSEST, "the adapter is there"


@pytest.mark.usefixtures("merged")
def test_a_deleted_adapter_is_gone_from_every_route_and_its_base_is_not(client: httpx.Client, base: Job) -> None:
    assert client.delete(f"/models/{ADAPTER}").status_code == 204
    wait_until_gone(client, ADAPTER)
    body = {"query": QUERY, "candidates": CANDIDATES, "model": ADAPTER}
    assert client.get(f"/models/{ADAPTER}").status_code == 404
    assert client.post("/rerank", json=body).status_code == 404
    assert client.post("/vectorize-hybrid", json={"text": QUERY, "model": ADAPTER}).status_code == 404
    assert np.allclose(hybrid(client, M3_TINY)["dense"], base["dense"], atol=1e-6)
