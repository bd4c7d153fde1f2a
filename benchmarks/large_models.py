"""Models of the published sizes with random weights, for machines that reach no model hub: speed needs no more.

    python -m benchmarks.large_models --tokenizer models/multilingual-e5-small

Writes ``random/multilingual-e5-large`` and ``random/bge-m3`` into the models folder, 1.1 GB each: XLM-RoBERTa large, 24
layers, hidden size 1,024, with the tokenizer of the starter model, which is that of both. Their vectors mean nothing.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from serve_app.domain.manifest import Manifest
from serve_app.domain.profiles import BGE_M3, E5, Pooling, Profile
from serve_app.models.folder_writer import prompts_of, write_sentence_transformers
from serve_app.models.head_files import write_heads

_SIZES = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_FIRST_POSITION = 2  # of a text's first token, in XLM-RoBERTa
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_SOURCE = "random weights in the published model's sizes, for benchmarks"
_MODELS = {"multilingual-e5-large": (E5, Pooling.MEAN), "bge-m3": (BGE_M3, Pooling.CLS)}


def main() -> None:
    """Builds both."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_models", description=__doc__.split("\n")[0])
    parser.add_argument("--models-dir", type=Path, default=Path("models"))
    parser.add_argument("--tokenizer", type=Path, required=True, help="a model folder to take the tokenizer of")
    options = parser.parse_args()
    for name, (profile, pooling) in _MODELS.items():
        folder = options.models_dir / "random" / name
        build(folder, options.tokenizer, profile, pooling)
        print(f"built {folder}", flush=True)


def build(folder: Path, tokenizer: Path, profile: Profile, pooling: Pooling) -> None:
    """Writes one model, with heads for sparse and ColBERT vectors if its family has them.

    Args:
        folder: Is made, with its parents.
        tokenizer: A folder with XLM-RoBERTa's tokenizer.
        profile: The family.
        pooling: How token states become one vector.
    """
    import torch
    from tokenizers import Tokenizer
    from transformers import XLMRobertaConfig, XLMRobertaModel

    folder.mkdir(parents=True, exist_ok=True)
    for file in _TOKENIZER:
        shutil.copy(tokenizer / file, folder / file)
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=Tokenizer.from_file(str(tokenizer / "tokenizer.json")).get_vocab_size(),
        max_position_embeddings=profile.max_tokens + _FIRST_POSITION,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        **_SIZES,
    )
    XLMRobertaModel(config, add_pooling_layer=False).half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    hidden = _SIZES["hidden_size"]
    if profile.family == BGE_M3.family:
        sparse, colbert = torch.nn.Linear(hidden, 1), torch.nn.Linear(hidden, hidden)
        write_heads(folder, sparse=sparse.state_dict(), colbert=colbert.state_dict())
    write_sentence_transformers(
        folder, hidden=hidden, pooling=pooling, max_length=profile.max_tokens, prompts=prompts_of(profile)
    )
    manifest = Manifest(
        name=f"random/{folder.name}", family=profile.family, kind="starter", source=_SOURCE, license="MIT"
    )
    manifest.write(folder)


if __name__ == "__main__":
    main()
