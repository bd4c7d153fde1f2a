"""Retrieval metrics on held-out examples, and checks that a training has not collapsed."""
