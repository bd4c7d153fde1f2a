"""Q-LoRA over HTTP: a real model learns in four bits, and what is served is what peft computes on the adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.fine_tuning import completed, cosine, wait_for
from tests.integration.four_bits import NAME, questions
from tests.integration.test_fine_tuned_adapters import CLOSEST, QUERY, on_peft
from tests.service_process import STARTER, Service

BEGINNING = 200  # characters, about 48 tokens


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=120) as client:
        yield client


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


def test_a_real_model_in_four_bits_learns_its_pairs_and_still_retrieves(
    client: httpx.Client, four_bits_job: str, starter_folder: Path, models_dir: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    job = wait_for(client, four_bits_job, completed, timeout_s=240)
    before, after = job["metrics_before"]["ndcg@10"], job["metrics_after"]["ndcg@10"]
    print(f"{job['train_pairs']} pairs, {job['steps']} steps: nDCG@10 {before:.3f} -> {after:.3f}")
    assert (job["kind"], job["train_pairs"], job["eval_pairs"]) == ("qlora", 58, 6)
    assert before > 0.7
    assert after > 0.6, "of six questions"
    losses = [contrastive_loss(client, name) for name in (STARTER, NAME)]
    print(f"loss of its pairs: {losses[0]:.3f} -> {losses[1]:.3f}")
    assert losses[1] < 0.9 * losses[0]

    model = SentenceTransformer(str(starter_folder), device="cpu")
    plain = model.encode_query(QUERY)
    model[0].model = on_peft(starter_folder, models_dir / NAME)
    served = client.post("/vectorize", json={"text": QUERY, "model": NAME}).json()["vector"]
    assert cosine(served, model.encode_query(QUERY)) > CLOSEST
    assert cosine(served, plain) < CLOSEST, "the adapter is there"
