"""The error of this package that is shown to users."""

from __future__ import annotations


class StarterError(Exception):
    """A starter model cannot be built for a reason the user can act on; the message names the next step."""
