from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.m3_reference import M3Reference, by_text

TEXT_OF = {0: "<s>", 4: "a", 5: "a", 6: "b", 8: "<mask>"}


@pytest.mark.parametrize("weights", [{4: 0.2, 5: 0.7, 6: 0.1}, {5: 0.7, 6: 0.1, 4: 0.2}])
def test_the_larger_weight_wins_where_two_ids_decode_alike(weights: dict[int, float]) -> None:
    assert by_text(weights, {0, 8}, TEXT_OF.__getitem__) == {"a": 0.7, "b": 0.1}


def test_special_tokens_never_appear() -> None:
    assert by_text({0: 1.0, 8: 2.0, 6: 0.5}, {0, 8}, TEXT_OF.__getitem__) == {"b": 0.5}


def test_a_folder_without_a_head_is_refused(tmp_path: Path) -> None:
    (tmp_path / "colbert_linear.pt").write_bytes(b"a head")
    with pytest.raises(FileNotFoundError, match=r"sparse_linear\.pt"):
        M3Reference(tmp_path)


def test_importing_the_reference_does_not_import_flagembedding() -> None:
    code = "import sys, tests.m3_reference; print('FlagEmbedding' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.split() == ["False", "False"]
