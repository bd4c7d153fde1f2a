"""The work of an ingress replica between route and replica: model registry, tokenising, chunking, reranking."""
