"""The languages of other services' clients."""
