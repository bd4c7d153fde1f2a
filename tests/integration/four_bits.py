"""A Q-LoRA of the starter E5: long for a test, so it is trained beside others (``conftest.four_bits_ahead``)."""

from __future__ import annotations

import httpx

from tests.fine_tuning import submit
from tests.retrieval import DATA, load
from tests.service_process import STARTER

NAME = "tuned-starter"
QUESTIONS = 64
MAX_TOKENS = 48


def questions() -> list[tuple[str, list[str]]]:
    """Questions with the passages that answer them."""
    data, _ = load(DATA / "debfaq-en").first(QUESTIONS)
    asked = zip(data.queries, data.relevant, strict=True)
    return [(query, [data.documents[i] for i in sorted(answers)]) for query, answers in asked]


def submit_job(client: httpx.Client) -> str:
    """The job's id."""
    return submit(
        client, "/fine-tune-lora", model_name=NAME, base_model=STARTER,
        examples=[{"query": query, "pos": answers} for query, answers in questions()],
        max_seq_length=MAX_TOKENS, batch_size=16, learning_rate=1e-3,
    )  # fmt: skip
