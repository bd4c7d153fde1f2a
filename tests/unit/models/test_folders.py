"""A model folder is honoured as sentence-transformers does, or refused with the file and the reason."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from serve_app.domain.errors import ModelLoadError
from serve_app.domain.profiles import PROFILES, Capability, Pooling, TextRole
from serve_app.models.embedder import EmbeddingModel, TextToEncode
from serve_app.models.loader import load_cross_encoder, load_model
from serve_app.models.model_source import ModelSource, describe
from serve_app.models.tokenizer import TextTokenizer
from tests.tiny_models import build_reranker_tiny
from tests.unit.models import folder_cases as cases
from tests.unit.models.folder_cases import (
    E5_PROMPTS,
    INSTRUCTION,
    POOLING,
    SETTINGS,
    TOKENIZER,
    TRANSFORMER,
    Change,
    copy_of,
    edit,
    modules,
    pooling,
    remove,
    write,
)

TEXTS = [
    "how do I rotate a log file?",
    "Hello World UPPER Case",
    "ÜBER  ΑΛΕΠΟΎ ",
    "a",
    "cron runs jobs at night " * 110,
]
CLOSE = 1e-5  # float32, and other sizes of matrices

HONOURED: dict[str, tuple[str, tuple[Change, ...]]] = {  # name -> the folder it is made from, what is changed
    "my-e5": ("e5", ()),
    "my-e5.saved_by_6": ("e5", (cases.saved_by_version_6(24),)),
    "e5-small-instruct": ("e5", (edit(SETTINGS, prompts={"query": INSTRUCTION, "document": ""}),)),
    "e5-instruct-query-alone": ("e5", (edit(SETTINGS, prompts={"query": INSTRUCTION}),)),
    "e5-named-default": ("e5", (edit(SETTINGS, default_prompt_name="query"),)),
    "e5-more-prompts": ("e5", (edit(SETTINGS, prompts=E5_PROMPTS | {"sts": "sts: "}, similarity_fn_name="dot"),)),
    "e5-length": ("e5", (edit(TRANSFORMER, max_seq_length=17),)),
    "e5-both-lengths": ("e5", (edit(TRANSFORMER, max_seq_length=19), edit(TOKENIZER, model_max_length=9))),
    "e5-tokenizer-length": ("e5", (edit(TRANSFORMER, max_seq_length=None), edit(TOKENIZER, model_max_length=21))),
    "e5-no-length": ("e5", (edit(TRANSFORMER, max_seq_length=None), edit(TOKENIZER, model_max_length=10**30))),
    "e5-longer": ("m3", (edit(SETTINGS, prompts=E5_PROMPTS), edit(TRANSFORMER, max_seq_length=700))),
    "e5-lower-case": ("e5", (edit(TRANSFORMER, do_lower_case=True),)),
    "e5-lower-elsewhere": (
        "e5",
        (remove(TRANSFORMER), write("sentence_roberta_config.json", {"max_seq_length": 31, "do_lower_case": True})),
    ),
    "e5-cls": ("e5", (pooling(pooling_mode_cls_token=True, pooling_mode_mean_tokens=False),)),
    "e5-one-in-a-list": ("e5", (pooling(pooling_mode=["cls"], include_prompt=True),)),
    "e5-pooling-elsewhere": ("e5", (cases.pooling_elsewhere,)),
    "e5-half": ("e5", (cases.in_half_precision,)),
    "e5-padded-left": ("e5", (edit(TOKENIZER, padding_side="left"),)),
    "e5-word-pieces": ("e5", (cases.with_a_bert_tokenizer(lower_case=True, file_lower_case=True),)),
    "e5-word-pieces-cased": ("e5", (cases.with_a_bert_tokenizer(lower_case=False, file_lower_case=False),)),
    "e5-no-blank-first": ("e5", (edit(TOKENIZER, add_prefix_space=False),)),
    "e5-model-args": ("e5", (edit(TRANSFORMER, model_args={"attn_implementation": "eager"}, unpad_inputs=False),)),
    "e5-of-a-classifier": ("e5", (edit("config.json", architectures=["BertForSequenceClassification"]),)),
    "e5-roberta": ("m3", (edit(SETTINGS, prompts=E5_PROMPTS), edit("config.json", model_type="roberta"))),
    "bge-m3": ("m3", ()),
    "bge-m3-of-no-tokenizer": ("m3", (remove(TOKENIZER), remove("special_tokens_map.json"))),
    "bge-m3-empty-prompts": ("m3", (edit(SETTINGS, prompts={"query": "", "document": ""}),)),
}


@pytest.fixture
def base(request: pytest.FixtureRequest, e5_tiny: Path, bge_m3_tiny: Path) -> dict[str, Path]:
    return {"e5": e5_tiny, "m3": bge_m3_tiny}


@pytest.mark.parametrize("name", HONOURED)
def test_what_starts_computes_what_the_library_computes(base: dict[str, Path], tmp_path: Path, name: str) -> None:
    like, changes = HONOURED[name]
    source = describe(name, copy_of(base[like], tmp_path / name, *changes))
    oracle = SentenceTransformer(str(source.folder), device="cpu", model_kwargs={"dtype": torch.float32})
    tokenizer, model = TextTokenizer.of(source), load_model(source, device="cpu", dtype="float32")
    for role, encode in ((TextRole.QUERY, oracle.encode_query), (TextRole.PASSAGE, oracle.encode_document)):
        expected = [encode([text], show_progress_bar=False)[0] for text in TEXTS]
        np.testing.assert_allclose(vectors(model, tokenizer, source, role), expected, atol=CLOSE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = oracle.tokenize(TEXTS[-1:])["input_ids"].shape[1]
    assert tokenizer(TEXTS[-1:]).lengths.tolist() == [theirs], "a long text is cut where the library cuts it"


@pytest.mark.parametrize("change", [remove(SETTINGS), edit(SETTINGS, prompts={"query": "", "document": ""})])
def test_a_folder_that_the_library_saved_without_prompts_has_those_of_its_family(
    e5_tiny: Path, tmp_path: Path, change: Change
) -> None:
    profile = describe("my-e5", copy_of(e5_tiny, tmp_path / "my-e5", change)).profile
    assert (profile.query_prefix, profile.passage_prefix) == ("query: ", "passage: ")


def vectors(model: EmbeddingModel, tokenizer: TextTokenizer, source: ModelSource, role: TextRole) -> list[object]:
    rows = tokenizer([source.profile.format(role, text) for text in TEXTS]).batch().rows()
    return [encoded.dense for encoded in model.encode([TextToEncode(row) for row in rows])]  # type: ignore[union-attr]


REFUSED: dict[str, tuple[Change, str]] = {
    "a dense layer": (modules("Transformer", "Pooling", "Dense", "Normalize"), "modules.json: the module '.*Dense'"),
    "a layer norm": (modules("Transformer", "Pooling", "LayerNorm", "Normalize"), "modules.json: .*LayerNorm'"),
    "a router": (modules("Router"), "modules.json: the module '.*Router' is not served"),
    "code of its own": (modules("custom_st.Transformer", "Pooling", "Normalize"), "modules.json: .*'custom_st.Tra"),
    "no unit length": (modules("Transformer", "Pooling"), "modules.json: a model without Normalize is not served"),
    "two poolings": (
        modules("Transformer", "Pooling", "Pooling", "Normalize"),
        "modules.json: the sequence .*Pooling, P",
    ),
    "another order": (modules("Transformer", "Normalize", "Pooling"), "modules.json: the sequence"),
    "no modules": (write("modules.json", []), "modules.json: a model without Normalize"),
    "modules that are none": (write("modules.json", {"Transformer": ""}), "modules.json cannot be read"),
    "a transformer elsewhere": (
        modules("Transformer", "Pooling", "Normalize", paths={"Transformer": "0_Transformer"}),
        "modules.json: a transformer in the subfolder '0_Transformer'",
    ),
    "a pooling that is missing": (remove(POOLING), "1_Pooling/config.json is missing, and modules.json names it"),
    "a pooling outside": (
        modules("Transformer", "Pooling", "Normalize", paths={"Pooling": "../1_Pooling"}),
        "modules.json: a module outside of the folder",
    ),
    "a pooling that nobody names": (
        lambda folder: [remove("modules.json")(folder), (folder / "1_Pooling").rename(folder / "9_Pooling")],
        "9_Pooling/config.json belongs to a module, but .*modules.json is missing",
    ),
    "max": (pooling(pooling_mode_max_tokens=True), "1_Pooling/config.json: pooling 'max' is not served"),
    "weighted mean": (pooling(pooling_mode_weightedmean_tokens=True), "pooling 'weightedmean' is not served"),
    "last token": (pooling(pooling_mode="lasttoken"), "1_Pooling/config.json: pooling 'lasttoken' is not served"),
    "mean by a root": (pooling(pooling_mode_mean_sqrt_len_tokens=True), "pooling 'mean_sqrt_len_tokens' is not"),
    "several poolings": (pooling(pooling_mode_cls_token=True, pooling_mode_mean_tokens=True), "'cls [+] mean' is not"),
    "no pooling": (pooling(pooling_mode_mean_tokens=False), "a pooling without a mode is not served"),
    "a prompt left out": (pooling(pooling_mode="mean", include_prompt=False), "1_Pooling/config.json: include_prompt"),
    "another width": (pooling(pooling_mode="mean", word_embedding_dimension=64), "a pooling of 64 .* hidden_size: 32"),
    "an unknown pooling": (pooling(pooling_mode="mean", heads=4), "1_Pooling/config.json: the setting 'heads'"),
    "an unusual norm": (
        write("2_Normalize/config.json", {"module_input_name": "token_embeddings"}),
        "2_Norm.*input_na",
    ),
    "other prompts": (
        edit(SETTINGS, prompts={"query": "search_query: ", "document": "search_document: "}),
        "config_sentence_transformers.json: the prompt 'search_query: ' .*\"query: \"",
    ),
    "half of the prompts": (edit(SETTINGS, prompts={"query": "query: ", "passage": "passage: "}), "'' for documents"),
    "prompts that are none": (edit(SETTINGS, prompts={"query": 3}), "prompts must be an object of strings"),
    "no such prompt": (edit(SETTINGS, default_prompt_name="sts"), "default_prompt_name 'sts' is none of the prompts"),
    "shortened vectors": (edit(SETTINGS, truncate_dim=16), "config_sentence_transformers.json: truncate_dim 16"),
    "a distance": (edit(SETTINGS, similarity_fn_name="manhattan"), "similarity_fn_name 'manhattan' is not served"),
    "a sparse encoder": (edit(SETTINGS, model_type="SparseEncoder"), "model_type 'SparseEncoder' is not served"),
    "a negative length": (
        edit(TRANSFORMER, max_seq_length=-1),
        "sentence_bert_config.json: max_seq_length -1 is not a te",
    ),
    "a length of zero": (edit(TRANSFORMER, max_seq_length=0), "max_seq_length 0 is not a text length"),
    "no room for text": (edit(TRANSFORMER, max_seq_length=2), "max_seq_length 2 is not a text length"),
    "half a token": (edit(TRANSFORMER, max_seq_length=12.5), "max_seq_length 12.5 is not a text length"),
    "a word as length": (edit(TRANSFORMER, max_seq_length="512"), "max_seq_length '512' is not a text length"),
    "a tokenizer's length": (
        lambda folder: [edit(TRANSFORMER, max_seq_length=None)(folder), edit(TOKENIZER, model_max_length=-1)(folder)],
        "tokenizer_config.json: model_max_length -1 is not a text length",
    ),
    "lower case or not": (edit(TRANSFORMER, do_lower_case="no"), "do_lower_case 'no' is not served"),
    "another output": (edit(TRANSFORMER, module_output_name="pooler_output"), "module_output_name 'pooler_output' is"),
    "a longer query": (edit(TRANSFORMER, query_length=8), "sentence_bert_config.json: query_length 8 is not served"),
    "arguments": (edit(TRANSFORMER, config_args={"is_decoder": True}), "config_args .*is_decoder.* is not served"),
    "an unknown setting": (edit(TRANSFORMER, colour="red"), "the setting 'colour' is not served"),
    "cut at the start": (edit(TOKENIZER, truncation_side="left"), "tokenizer_config.json: truncation_side 'left'"),
    "two cases": (
        cases.with_a_bert_tokenizer(lower_case=False, file_lower_case=True),
        "tokenizer.json and tokenizer_config.json, .* disagree: .* 'How do I ROTATE",
    ),
    "another architecture": (
        edit("config.json", model_type="modernbert"),
        "config.json: the architecture 'modernbert' is not served; served are: bert, roberta, xlm-roberta",
    ),
    "no architecture": (edit("config.json", model_type=None), "config.json has no model_type; served are: bert"),
    "quantised weights": (edit("config.json", quantization_config={"bits": 4}), "quantised weights"),
    "an adapter beside": (
        write("adapter_config.json", {}),
        "adapter_config.json is part of an adapter and lies beside",
    ),
    "weights of one beside": (
        lambda folder: (folder / "adapter_model.safetensors").touch(),
        "adapter_model.safetensors is part of an adapter and lies beside",
    ),
    "an adapter alone": (
        lambda folder: [
            remove("config.json")(folder),
            write("adapter_config.json", {"base_model_name_or_path": "intfloat/e5-base"})(folder),
        ],
        "not of a whole model; configure its base 'intfloat/e5-base'",
    ),
    "a manifest of an adapter": (write("manifest.json", {"adapter": True}), "manifest.json describes an adapter, but"),
    "a manifest of rubbish": (
        write("manifest.json", {"family": ["e5"]}),
        "manifest.json: family must be a string, not",
    ),
    "another family": (write("manifest.json", {"family": "bge-m3"}), "the prompt 'query: ' .* the family bge-m3 has"),
    "more tokens": (cases.with_more_tokens, "tokenizer.json has 2003 tokens, and .* embeddings for 2002"),
    "NaN": (cases.with_a_weight(float("nan")), "hold NaN or infinity as float32, in 'encoder.layer.1.output.dense.wei"),
    "infinity": (cases.with_a_weight(float("inf")), "hold NaN or infinity"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_unsupported_setting_is_an_error_with_the_file_and_the_reason(
    e5_tiny: Path, tmp_path: Path, case: str
) -> None:
    change, reason = REFUSED[case]
    folder = copy_of(e5_tiny, tmp_path / "my-e5", change)
    with pytest.raises(ModelLoadError, match=reason) as caught:
        start("my-e5", folder)
    assert str(folder) in caught.value.message
    assert "\n" not in caught.value.message


def start(name: str, folder: Path, family: str | None = None) -> None:
    """What the ingress and the encoder do with a folder."""
    source = describe(name, folder, family=family)
    TextTokenizer.of(source)
    load_model(source, device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (cases.with_a_head("sparse_linear", 2, 32), "sparse_linear.pt has 2 rows instead of 1"),
        (cases.with_a_head("sparse_linear", 1, 32, value=float("nan")), "sparse_linear.pt holds NaN"),
        (cases.with_a_head("colbert_linear", 32, 32, value=float("inf")), "colbert_linear.pt holds NaN, infinity"),
        (cases.with_a_head("colbert_linear", 32, 33), "colbert_linear.pt cannot be read as a linear layer over 32"),
        (cases.with_a_head("sparse_linear", 1, 16), "sparse_linear.pt cannot be read as a linear layer over 32"),
        (remove("sparse_linear.pt"), "sparse_linear.pt is missing: copy"),
        (remove("colbert_linear.pt"), "colbert_linear.pt is missing: copy"),
    ],
)
def test_unsupported_heads_are_an_error_with_their_file(
    bge_m3_tiny: Path, tmp_path: Path, change: Change, reason: str
) -> None:
    folder = copy_of(bge_m3_tiny, tmp_path / "bge-m3", change)
    with pytest.raises(ModelLoadError, match=reason) as caught:
        start("bge-m3", folder)
    assert str(folder) in caught.value.message


# ------------------------------------------------------------------ rerankers


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "my-reranker"
    build_reranker_tiny(folder)
    return folder


CROSS = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.activation.Sigmoid", "prompts": {}}


def test_a_reranker_configured_as_an_encoder_is_an_error_that_names_its_kind(reranker: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"XLMRobertaForSequenceClassification\) is a reranker") as caught:
        start("my-reranker", reranker, family="e5")
    assert "under `rerankers:` with `kind: cross-encoder`" in caught.value.message


@pytest.mark.parametrize(
    ("family", "needs", "says"),
    [
        ("cross-encoder", Capability.COLBERT, "is a reranker .* under `rerankers:` with `kind: cross-encoder`"),
        ("cross-encoder", Capability.DENSE, "is a reranker .* under `rerankers:` with `kind: cross-encoder`"),
        ("e5", Capability.PAIR_SCORE, "is an encoder, not a cross-encoder; configure it under `models:`$"),
        ("bge-m3", Capability.PAIR_SCORE, "under `models:`, or under `rerankers:` with `kind: colbert`$"),
        ("e5", Capability.COLBERT, "which has no colbert; these have: bge-m3"),
    ],
)
def test_a_family_without_the_configured_capability_is_an_error_that_names_the_right_section(
    family: str, needs: Capability, says: str
) -> None:
    source = ModelSource("mine", Path("mine"), PROFILES[family], Pooling.MEAN, dimension=32, max_tokens=512)
    with pytest.raises(ModelLoadError, match=says):
        source.require(needs)


def test_a_reranker_without_a_family_in_its_name_is_recognised(reranker: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"is a reranker .* configure 'law' under `rerankers:`"):
        describe("law", reranker)


def test_an_unsupported_architecture_is_reported_before_an_unknown_family(e5_tiny: Path, tmp_path: Path) -> None:
    folder = copy_of(e5_tiny, tmp_path / "law", edit("config.json", model_type="qwen3"))
    with pytest.raises(
        ModelLoadError, match="the architecture 'qwen3' is not served; served are: bert, roberta, xlm-rob"
    ):
        describe("law", folder)


def test_an_encoder_configured_as_a_reranker_is_an_error_that_names_its_kind(e5_tiny: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"\(BertModel\) is an encoder, not a cross-encoder") as caught:
        describe("my-e5", e5_tiny, family="cross-encoder")
    assert "configure 'my-e5' under `models:`" in caught.value.message


def test_a_cross_encoder_that_the_library_saved_starts_with_its_length(reranker: Path, tmp_path: Path) -> None:
    folder = copy_of(reranker, tmp_path / "my-reranker", write(SETTINGS, CROSS), modules("Transformer"))
    edit(TOKENIZER, model_max_length=99)(folder)
    task = {"transformer_task": "sequence-classification", "module_output_name": "scores"}
    text = {"text": {"method": "forward", "method_output_name": "logits"}}
    edit(TRANSFORMER, **task, modality_config=text)(folder)
    source = describe("my-reranker", folder)
    assert source.max_tokens == 99
    load_cross_encoder(source, device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (edit(SETTINGS, activation_fn="torch.nn.modules.linear.Identity"), "activation_fn '.*Identity' is not served"),
        (
            edit("config.json", sentence_transformers={"activation_fn": "torch.nn.Identity"}),
            "config.json: activation_fn",
        ),
        (edit(SETTINGS, prompts={"q": "q: "}, default_prompt_name="q"), "the prompt 'q: ' of a cross-encoder"),
        (modules("Transformer", "LogitScore"), "modules.json: the module '.*LogitScore' is not served"),
        (modules("Transformer", "Pooling"), "is not served"),
    ],
)
def test_a_cross_encoder_with_other_scores_is_an_error(
    reranker: Path, tmp_path: Path, change: Change, reason: str
) -> None:
    folder = copy_of(reranker, tmp_path / "my-reranker", write(SETTINGS, CROSS), modules("Transformer"), change)
    with pytest.raises(ModelLoadError, match=reason):
        describe("my-reranker", folder)
