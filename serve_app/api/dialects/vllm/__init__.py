"""The score API of vLLM."""
