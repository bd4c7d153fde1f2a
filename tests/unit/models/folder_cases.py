"""Model folders as people have them, made from the tiny ones by small changes to their files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Change = Callable[[Path], object]

SETTINGS = "config_sentence_transformers.json"
TRANSFORMER = "sentence_bert_config.json"
POOLING = "1_Pooling/config.json"
TOKENIZER = "tokenizer_config.json"
INSTRUCTION = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
E5_PROMPTS = {"query": "query: ", "document": "passage: "}


def copy_of(folder: Path, to: Path, *changes: Change) -> Path:
    """A copy without its manifest, changed."""
    shutil.copytree(folder, to)
    (to / "manifest.json").unlink(missing_ok=True)
    for change in changes:
        change(to)
    return to


def edit(file: str, **values: Any) -> Change:
    """Sets values of a JSON object."""

    def change(folder: Path) -> None:
        path = folder / file
        known = json.loads(path.read_text()) if path.is_file() else {}
        write(file, known | values)(folder)

    return change


def write(file: str, value: object) -> Change:
    """Replaces a JSON file."""

    def change(folder: Path) -> None:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(value))

    return change


def remove(file: str) -> Change:
    return lambda folder: (folder / file).unlink()


def pooling(**values: Any) -> Change:
    return write(POOLING, {"word_embedding_dimension": 32} | values)


def modules(*kinds: str, paths: Mapping[str, str] | None = None) -> Change:
    """``modules.json`` of these classes of ``sentence_transformers.models``."""
    places = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"} | dict(paths or {})
    entries = [
        {
            "idx": i,
            "name": str(i),
            "path": places.get(kind, f"{i}_{kind}"),
            "type": kind if "." in kind else f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    return write("modules.json", entries)


def saved_by_version_6(length: int) -> Change:
    """Loaded and saved by the library, which leaves the length in the tokenizer's settings."""

    def change(folder: Path) -> None:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device="cpu")
        model.max_seq_length = length
        shutil.rmtree(folder)
        model.save_pretrained(str(folder))
        assert "max_seq_length" not in json.loads((folder / TRANSFORMER).read_text())

    return change


def pooling_elsewhere(folder: Path) -> None:
    (folder / "1_Pooling").rename(folder / "9_Pooling")
    modules("Transformer", "Pooling", "Normalize", paths={"Pooling": "9_Pooling"})(folder)
    write("9_Pooling/config.json", {"embedding_dimension": 32, "pooling_mode": "cls"})(folder)


def in_half_precision(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({name: value.half() for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    edit("config.json", dtype="float16")(folder)


def with_a_weight(value: float) -> Change:
    """One number of one tensor changed."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        state = load_file(path)
        state["encoder.layer.1.output.dense.weight"][3, 4] = value
        save_file(state, path, metadata={"format": "pt"})

    return change


def with_more_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    fields = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    tokenizer["added_tokens"].append({"id": 2002, "content": "<of another model>", **fields})
    path.write_text(json.dumps(tokenizer))


def with_a_bert_tokenizer(*, lower_case: bool, file_lower_case: bool) -> Change:
    """WordPiece, as BERT has it, where ``tokenizer_config.json`` and ``tokenizer.json`` may disagree."""

    def change(folder: Path) -> None:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

        letters = [chr(i) for i in range(33, 127)]
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
        tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
        tokenizer.add_special_tokens(pieces[:5])
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=file_lower_case)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "special_tokens_map.json").unlink()
        config = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower_case, "model_max_length": 512}
        write(TOKENIZER, config)(folder)

    return change


def with_a_head(name: str, *shape: int, value: float = 1.0) -> Change:
    """``sparse_linear.pt`` or ``colbert_linear.pt`` of this shape."""
    state = {"weight": torch.full(shape, value), "bias": torch.zeros(shape[0])}
    return lambda folder: torch.save(state, folder / f"{name}.pt")
