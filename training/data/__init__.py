"""Training examples: reading, cleaning, splitting and batching them."""
