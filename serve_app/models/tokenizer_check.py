"""A check that transformers, and so training and sentence-transformers, read a folder's tokenizer as the service does.

transformers 5 builds some tokenizers anew from ``tokenizer_config.json`` (BERT's lower case, accents and Chinese
characters among others), where the service reads ``tokenizer.json``. If the two files disagree, the vectors are
silently wrong, so a few texts are compared before a model starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from serve_app.domain.errors import ModelLoadError
from serve_app.models.sentence_settings import lowers_case
from serve_app.models.vocabulary import load_vocabulary

_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json")
_LARGE_BYTES = 8_000_000  # XLM-RoBERTa's takes transformers seconds to build; ``vocabulary`` reproduces it
_TEXTS = (
    "How do I ROTATE a log-file in /var/log?",
    "Ça DÉJÀ vu, Übermütige Füchse; Ελληνικά ΑΛΕΠΟΎ",
    "敏捷的棕色狐狸 素早い 빠른 갈색 여우",
    " two  blanks\tand a tab\nand a line ",
    "don't 3.14% e-mail@example.org 😀 ﬁne ①",
    "<s> </s> <mask> [CLS] [SEP] [MASK] <unk>",
)

_compared: set[str] = set()


def check_tokenizer(folder: Path) -> None:
    """Compares the token ids of a few texts, once for each content of the files.

    Raises:
        ModelLoadError: transformers reads a text as other tokens, or cannot read the tokenizer at all.
    """
    path = folder / "tokenizer.json"
    if path.stat().st_size > _LARGE_BYTES:
        return
    contents = [(folder / name).read_bytes() if (folder / name).is_file() else b"" for name in _FILES]
    key = hashlib.sha256(repr((contents, lowers_case(folder))).encode()).hexdigest()
    if key in _compared:
        return
    ours, theirs = load_vocabulary(folder).tokenizer, _reader(folder)
    for text in _TEXTS:
        if ours.encode(text).ids != theirs(text):
            raise ModelLoadError(
                f"{path} and tokenizer_config.json, which transformers reads, disagree: they split {text!r} into "
                f"different tokens. Save the tokenizer that the model was trained with into the folder: "
                f"`AutoTokenizer.from_pretrained(...).save_pretrained({str(folder)!r})`"
            )
    _compared.add(key)


def _reader(folder: Path) -> Callable[[str], list[int]]:
    """The tokenizer of transformers, as sentence-transformers uses it."""
    from tokenizers import normalizers
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelLoadError(f"transformers cannot read the tokenizer in {folder} ({reason})") from error
    if lowers_case(folder):
        backend, lower = tokenizer.backend_tokenizer, normalizers.Lowercase()
        backend.normalizer = normalizers.Sequence([lower, backend.normalizer]) if backend.normalizer else lower
    return lambda text: list(tokenizer(text)["input_ids"])
