"""Lookup of a served model by any spelling of its name."""

from __future__ import annotations

from collections.abc import Sequence

from serve_app.api.model_states import ModelState
from serve_app.domain.errors import ModelNotFoundError
from serve_app.domain.model_names import shown, spellings


def state_of(name: str, states: Sequence[ModelState], *, listed_at: str) -> ModelState:
    """The model with this name, which may carry a provider's prefix.

    Args:
        name: Name in the request.
        states: All served models, aliases among them.
        listed_at: The request that lists them, for the message.

    Raises:
        ModelNotFoundError: No served model has this name.
    """
    by_name = {state.name: state for state in states}
    for spelling in spellings(name, {}):
        if spelling in by_name:
            return by_name[spelling]
    raise ModelNotFoundError(f"no model {shown(name)} is served; {listed_at} lists those that are")
