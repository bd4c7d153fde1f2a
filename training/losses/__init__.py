"""Training losses: contrastive loss over dense vectors, and BGE-M3's unified loss over three heads."""
