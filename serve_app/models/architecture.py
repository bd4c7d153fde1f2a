"""Architecture, width and text length from ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serve_app.domain.errors import ModelLoadError
from serve_app.domain.folder_json import not_served

ENCODERS = ("bert", "roberta", "xlm-roberta")
_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta")


def check_architecture(path: Path, config: Mapping[str, Any], *, is_cross_encoder: bool) -> int:
    """The width of the token states.

    Args:
        path: Of ``config.json``.
        config: Its content.
        is_cross_encoder: Their architecture is checked by the class that computes.

    Raises:
        ModelLoadError: The architecture is not served, or the file does not describe an encoder.
    """
    kind = config.get("model_type")
    if kind is not None and kind not in ENCODERS and not is_cross_encoder:
        not_served(path, f"the architecture {kind!r}", f"served are: {', '.join(ENCODERS)}")
    width = config.get("hidden_size")
    if not isinstance(width, int):
        raise ModelLoadError(f"{path} has no hidden_size: it is not the configuration of an encoder")
    if kind is None:
        raise ModelLoadError(f"{path} has no model_type; served are: {', '.join(ENCODERS)}")
    if config.get("quantization_config"):
        not_served(path, "a model with quantised weights (quantization_config)", "save it in float32 or bfloat16")
    return width


def usable_positions(config: Mapping[str, Any]) -> int | None:
    """Longest text that has positions: RoBERTa reserves those up to its padding index."""
    positions = config.get("max_position_embeddings")
    if not positions:
        return None
    if config.get("model_type") not in _POSITIONS_AFTER_PADDING:
        return int(positions)
    padding = config.get("pad_token_id")
    return int(positions) - (1 if padding is None else int(padding)) - 1
