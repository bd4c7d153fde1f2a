"""LoRA over HTTP: what is served is what peft and FlagEmbedding compute on the published folders.

The job trains an adapter and both heads of the tiny BGE-M3.
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
from tests.service_process import Service

ADAPTER = "tuned-m3"
HEADS = ("colbert_linear.pt", "sparse_linear.pt")
QUERY = "which tool rotates log files?"
CANDIDATES = ["logrotate rotates the log files of a system", "cron starts programs", "a cake takes an hour"]
CLOSEST = 0.9999  # cosine, float32 on both sides
TOLERANCE = 1e-4  # of weights and scores between 0 and 1


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def base(client: httpx.Client) -> Job:
    """What the tiny BGE-M3 answers before it is tuned."""
    return hybrid(client, M3_TINY)


@pytest.fixture(scope="module")
def job(client: httpx.Client, base: Job) -> Iterator[str]:
    """Its id."""
    body = {"text_content": pair_lines(24), "batch_size": 8, "epochs": 2, "use_qlora": False, "base_model": M3_TINY}
    job = submit(client, "/fine-tune-lora", model_name=ADAPTER, **body)
    yield job
    forget(client, ADAPTER, job)


@pytest.fixture(scope="module")
def merged(job: str, client: httpx.Client, models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> M3Reference:
    """FlagEmbedding on base and adapter, merged by peft, with the heads that were published beside the adapter."""
    wait_for(client, job, completed)
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
    client: httpx.Client, job: str, models_dir: Path
) -> None:
    record = client.get(f"/jobs/{job}").json()
    assert (record["type"], record["kind"], record["base_model"]) == ("lora", "lora", M3_TINY)
    assert 0 <= record["metrics_after"]["ndcg@10"] <= 1
    for head in HEADS:
        assert (models_dir / ADAPTER / head).read_bytes() != (models_dir / M3_TINY / head).read_bytes()
    state = client.get(f"/models/{ADAPTER}").json()
    assert (state["base"], state["kind"], sorted(state["serves"])) == (M3_TINY, "lora", ["embed", "rerank"])


@pytest.mark.usefixtures("merged")
def test_a_deleted_adapter_is_gone_from_every_route_and_its_base_is_not(client: httpx.Client, base: Job) -> None:
    assert client.delete(f"/models/{ADAPTER}").status_code == 204
    wait_until_gone(client, ADAPTER)
    body = {"query": QUERY, "candidates": CANDIDATES, "model": ADAPTER}
    assert client.get(f"/models/{ADAPTER}").status_code == 404
    assert client.post("/rerank", json=body).status_code == 404
    assert client.post("/vectorize-hybrid", json={"text": QUERY, "model": ADAPTER}).status_code == 404
    assert np.allclose(hybrid(client, M3_TINY)["dense"], base["dense"], atol=1e-6)
