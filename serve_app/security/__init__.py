"""API keys and rate limits, without HTTP and without Ray."""
