"""The identity of a service, shared by its processes."""

SERVICE_VARIABLE = "RETRIEVAL_SERVICE_ID"
"""Environment variable with a unique value for each service that ``python -m serve_app`` starts; every process of its
Ray cluster inherits it."""
