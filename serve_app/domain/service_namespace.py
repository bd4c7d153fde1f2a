"""What the processes of one service know each other by."""

SERVICE_VARIABLE = "RETRIEVAL_SERVICE_ID"
"""Environment variable with a value of its own for each service that ``python -m serve_app`` starts. Every process of
its Ray cluster inherits it, so it tells the service that a process belongs to."""
