"""Environment variables that override settings of the serve config."""

from collections.abc import Mapping, Sequence
from typing import Any

_MISSING: Mapping[str, Any] = {"models": [{}], "training": {}}  # groups that the YAML may leave out

ENVIRONMENT: Mapping[str, str] = {
    "MODEL_NAME": "models.0.name",
    "MODEL_FAMILY": "models.0.family",
    "MODEL_DEVICE": "models.0.device",
    "MODEL_DTYPE": "models.0.dtype",
    "MODELS_DIR": "models_dir",
    "JOBS_DIR": "training.jobs_dir",
}


def overlay(values: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The YAML values with those of the environment in their place; empty variables count as unset.

    Values of another structure stay as they are, for the validation that follows.
    """
    merged: Any = dict(values)
    for variable, path in ENVIRONMENT.items():
        if value := environment.get(variable):
            merged = _replaced(merged, path.split("."), value)
    return dict(merged)


def _replaced(values: Any, path: Sequence[str], value: str) -> Any:
    """A copy of nested values with the one at ``path`` replaced, if the path exists."""
    if not path:
        return value
    first, rest = path[0], path[1:]
    if isinstance(values, Mapping):
        return {**values, first: _replaced(values.get(first, _MISSING.get(first)), rest, value)}
    if isinstance(values, Sequence) and values and first == "0":
        return [_replaced(values[0], rest, value), *values[1:]]
    return values
