"""A retrieval-model server: text to vectors, on Ray Serve."""

__version__ = "0.2.0"
