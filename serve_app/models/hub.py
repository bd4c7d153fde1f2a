"""Models of the model hub, or of its cache on this machine."""

from __future__ import annotations

from pathlib import Path

from serve_app.domain.errors import ModelLoadError

_CARD_FILES = ["*.json", "*/config.json"]
_WEIGHT_FILES = ["*.safetensors", "*.pt"]


def download(name: str, models_dir: Path, *, weights: bool) -> Path:
    """Downloads (or finds in the hub's cache) a model; safetensors rather than pickles.

    Repositories without safetensors fall back to ``pytorch_model.bin``, which torch reads with
    ``weights_only``; nothing from the hub is ever executed.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    advice = (
        f"Put its folder at {models_dir / name} (config.json, tokenizer.json, model.safetensors), "
        f"or set MODELS_DIR to the folder that holds it."
    )
    try:
        folder = Path(snapshot_download(name, allow_patterns=_CARD_FILES + (_WEIGHT_FILES if weights else [])))
        if weights and not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=["*.bin", "*.bin.index.json"]))
    except RepositoryNotFoundError:
        raise ModelLoadError(f"no model {name!r} in {models_dir} and none on the model hub. {advice}") from None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelLoadError(
            f"no model {name!r} in {models_dir}, and the model hub cannot be reached ({reason}). {advice}"
        ) from error
    return folder
