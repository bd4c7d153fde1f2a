"""What an ingress replica does between route and replica: model registry, tokenization, chunking, reranking."""
