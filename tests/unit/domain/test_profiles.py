from __future__ import annotations

import pickle

import pytest

from serve_app.domain.errors import ModelLoadError
from serve_app.domain.profiles import (
    BGE_M3,
    CROSS_ENCODER,
    E5,
    E5_INSTRUCT,
    PROFILES,
    Capability,
    Pooling,
    Profile,
    TextRole,
    resolve_profile,
)


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("intfloat/multilingual-e5-large", E5),
        ("intfloat/multilingual-E5-SMALL", E5),
        ("my-e5-tuned", E5),
        ("my_e5.v2", E5),
        ("intfloat/multilingual-e5-large-instruct", E5_INSTRUCT),
        ("e5_Instruct_law", E5_INSTRUCT),
        ("e5-instructor", E5),
        ("BAAI/bge-m3", BGE_M3),
        ("BGE-M3-law", BGE_M3),
        ("bge-m3-distilled-from-e5", BGE_M3),  # the longer word is more specific
        ("BAAI/bge-reranker-v2-m3", CROSS_ENCODER),
    ],
)
def test_the_family_is_guessed_from_the_name(name: str, profile: Profile) -> None:
    assert resolve_profile(name) is profile


@pytest.mark.parametrize(
    "name", ["bert-base-uncased", "bge-large-en", "law", "", "me5x", "code5", "Base512", "bge-m3x", "prereranker"]
)
def test_a_name_without_a_family_is_refused_with_the_families_and_the_next_step(name: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        resolve_profile(name)
    for word in (repr(name), "e5", "bge-m3", "`family:`", "MODEL_FAMILY"):
        assert word in caught.value.message


@pytest.mark.parametrize(("name", "family"), [("bge-m3", "e5"), ("my-e5", "bge-m3"), ("law", "e5")])
def test_a_given_family_beats_the_name(name: str, family: str) -> None:
    assert resolve_profile(name, family).family == family


@pytest.mark.parametrize("family", ["gte", "E5", ""])
def test_an_unknown_family_is_refused_with_the_known_ones(family: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        resolve_profile("my-e5", family)
    for word in (repr(family), "my-e5", "e5", "bge-m3"):
        assert word in caught.value.message


def test_e5_reads_queries_and_passages_with_their_prefixes() -> None:
    assert E5.format(TextRole.QUERY, "cats") == "query: cats"
    assert E5.format(TextRole.PASSAGE, "cats") == "passage: cats"


def test_an_e5_that_takes_instructions_has_one_before_queries_and_nothing_before_passages() -> None:
    instruction = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
    assert E5_INSTRUCT.format(TextRole.QUERY, "cats") == instruction + "cats"
    assert E5_INSTRUCT.format(TextRole.PASSAGE, "cats") == "cats"


@pytest.mark.parametrize("role", TextRole)
def test_bge_m3_reads_texts_as_they_are(role: TextRole) -> None:
    assert BGE_M3.format(role, " cats ") == " cats "


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_prefix_is_put_in_front_even_of_a_text_that_has_one(profile: Profile) -> None:
    once = profile.format(TextRole.QUERY, "cats")
    assert profile.format(TextRole.QUERY, once) == profile.query_prefix * 2 + "cats"


def test_the_wire_flag_becomes_a_role() -> None:
    assert TextRole.of(is_query=True) is TextRole.QUERY
    assert TextRole.of(is_query=False) is TextRole.PASSAGE


def test_families_match_their_model_cards() -> None:
    assert (E5.max_tokens, E5.pooling, E5.capabilities) == (512, Pooling.MEAN, {Capability.DENSE})
    all_of_a_text = {Capability.DENSE, Capability.SPARSE, Capability.COLBERT}
    assert (BGE_M3.max_tokens, BGE_M3.pooling, BGE_M3.capabilities) == (8192, Pooling.CLS, all_of_a_text)
    assert (CROSS_ENCODER.max_tokens, CROSS_ENCODER.capabilities) == (8192, {Capability.PAIR_SCORE})


def test_every_family_is_found_by_its_own_name() -> None:
    assert [(family, profile.family) for family, profile in PROFILES.items()] == [
        (family, family) for family in ("e5", "e5-instruct", "bge-m3", "cross-encoder")
    ]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_profile_survives_the_way_between_processes(profile: Profile) -> None:
    assert pickle.loads(pickle.dumps(profile)) == profile
