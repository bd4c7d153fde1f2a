"""What the service is about, in plain Python and numpy: no Ray, no web framework, no torch."""
