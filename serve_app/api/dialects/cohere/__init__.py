"""The Cohere API: embeddings in versions 1 and 2."""
