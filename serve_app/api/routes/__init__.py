"""One router for each family of routes."""
