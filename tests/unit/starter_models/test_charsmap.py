from __future__ import annotations

from tokenizers import normalizers

from serve_app.starter_models.charsmap import builtin_charsmap, builtin_rules, merged_rules, xlm_r_charsmap


def test_the_file_s_rule_for_a_character_wins() -> None:
    assert merged_rules({"a": "x"}, {"a": "y"}) == {"a": "y"}


def test_rules_for_characters_the_file_leaves_alone_are_dropped() -> None:
    assert merged_rules({"a": "x", "b": "y", "ab": "z", "bc": "w"}, {"b": "y"}) == {"b": "y", "bc": "w"}


def test_with_the_characters_of_sentencepiece_the_map_is_byte_for_byte_its_own() -> None:
    singles = {key: value for key, value in builtin_rules().items() if len(key) == 1}
    assert xlm_r_charsmap(singles) == builtin_charsmap()


def test_the_map_composes_sequences_and_folds_wide_letters_and_ligatures() -> None:
    normalizer = normalizers.Precompiled(builtin_charsmap())
    assert normalizer.normalize_str("e\u0301") == "\u00e9"
    assert normalizer.normalize_str("\uff46\uff55\uff4c\uff4c \ufb01") == "full fi"
