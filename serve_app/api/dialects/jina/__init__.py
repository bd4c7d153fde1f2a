"""The Jina API: reranking. Voyage and version 1 of Cohere have the same path."""
