"""The one error of this package that is meant for a person."""

from __future__ import annotations


class StarterError(Exception):
    """A starter model can not be built for a reason the user can act on; the message says what to do."""
