"""Values, errors and pure functions that all parts share, in Python and numpy."""
