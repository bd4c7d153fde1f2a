"""Request and reply models of the HTTP routes."""
