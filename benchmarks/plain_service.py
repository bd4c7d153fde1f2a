"""The service that most people write first: FastAPI around sentence-transformers, one process.

Nothing is tuned, on purpose: this is what the first page of a tutorial shows. It gets the prefix right,
so that it computes the same vectors.
"""

from __future__ import annotations

import argparse

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer


class VectorizeRequest(BaseModel):
    """One text."""

    text: str


class VectorizeReply(BaseModel):
    """Its vector."""

    vector: list[float]


def create_app(folder: str) -> FastAPI:
    """The application over a model folder."""
    model = SentenceTransformer(folder)
    app = FastAPI()

    @app.post("/vectorize")
    def vectorize(request: VectorizeRequest) -> VectorizeReply:
        vector = model.encode(["query: " + request.text], normalize_embeddings=True)[0]
        return VectorizeReply(vector=vector.tolist())

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    uvicorn.run(create_app(arguments.folder), host="127.0.0.1", port=arguments.port, log_level="warning")
