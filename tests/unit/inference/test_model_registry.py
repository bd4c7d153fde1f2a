"""Which model a name means, with models on disk and deployments that are not there."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from serve_app.domain.embeddings import DENSE, ModelVersion
from serve_app.domain.errors import CapabilityError, ConfigurationError, ModelNotFoundError, UnavailableError
from serve_app.domain.profiles import Capability, TextRole
from serve_app.inference import model_registry as catalogue_module
from serve_app.inference.model_registry import ModelRegistry, require_free_aliases
from serve_app.inference.served_model import ServedModel
from serve_app.models.model_source import describe
from tests.unit.inference.fake_caller import FakeCaller
from tests.unit.models.fine_tune_examples import write_manifest

HYBRID = frozenset({Capability.DENSE, Capability.SPARSE, Capability.COLBERT})
NOTHING: frozenset[Capability] = frozenset()
PATIENCE_S = 10.0


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(catalogue_module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def models(models_dir: Path, e5_tiny: Path, bge_m3_tiny: Path) -> ModelRegistry[FakeCaller]:
    """``e5-first``, ``e5-second`` and ``bge-m3`` are configured."""
    found = {"e5-first": e5_tiny, "e5-second": e5_tiny, "bge-m3": bge_m3_tiny}
    return ModelRegistry({name: served(name, folder) for name, folder in found.items()}, models_dir)


def served(name: str, folder: Path) -> ServedModel[FakeCaller]:
    source = describe(name, folder)
    return ServedModel(source, source.profile.capabilities, FakeCaller())


def whole(folder: Path, like: Path, *, base: str, job_id: str = "job-1", family: str = "e5") -> Path:
    """A whole fine-tune without its weights, which these tests do not read."""
    shutil.copytree(like, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.pt"))
    return write_manifest(folder, base=base, kind="full", job_id=job_id, family=family)


OTHERS = ModelRegistry({"cross": SimpleNamespace()}, Path("nowhere"))  # type: ignore[dict-item]


async def pick(
    models: ModelRegistry[FakeCaller], name: str | None, needed: frozenset[Capability] = DENSE
) -> ServedModel[FakeCaller]:
    return await models.pick(name, needed, "what is wanted", others=OTHERS)


# ------------------------------------------------------------------ configured models


async def test_the_default_is_the_first_capable_model(models: ModelRegistry[FakeCaller]) -> None:
    assert (await pick(models, None, DENSE)).source.name == "e5-first"
    assert (await pick(models, None, HYBRID)).source.name == "bge-m3"


async def test_a_configured_model_is_meant_by_its_name(models: ModelRegistry[FakeCaller]) -> None:
    for name in ("e5-first", "e5-second", "bge-m3"):
        found = await pick(models, name)
        assert found is models.configured[name]
        assert found.model_version is None


@pytest.mark.parametrize(
    "name",
    ["text-embedding-3-small", "openai/text-embedding-3-small", "openai/e5-second", "hosted_vllm/e5-second",
     "litellm_proxy/openai/e5-second"],
)  # fmt: skip
async def test_a_provider_prefix_and_an_alias_lead_to_the_model(models: ModelRegistry[FakeCaller], name: str) -> None:
    named = ModelRegistry(models.configured, Path("nowhere"), {"text-embedding-3-small": "e5-second"})
    assert (await pick(named, name)).source.name == "e5-second"
    assert await named.has(name)


async def test_a_prefix_leads_to_fine_tunes_too_and_the_whole_name_comes_first(
    models: ModelRegistry[FakeCaller], models_dir: Path, e5_tiny: Path
) -> None:
    whole(models_dir / "mine", e5_tiny, base="e5-first")
    assert (await pick(models, "openai/mine")).source.name == "mine"
    both = ModelRegistry({"openai/e5-first": models.configured["bge-m3"], **models.configured}, models_dir)
    assert (await pick(both, "openai/e5-first")).source.name == "bge-m3"


@pytest.mark.parametrize("name", ["openai/nothing", "openai/", "someone/e5-first", "/e5-first", "openai"])
async def test_other_prefixes_are_part_of_the_name(models: ModelRegistry[FakeCaller], name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        await pick(models, name)


@pytest.mark.parametrize("name", ["openai/" * 3 + "e5-first", "openai/" * 20_000 + "x", "x" * 257], ids=len)
async def test_a_long_name_is_bounded_work(
    models: ModelRegistry[FakeCaller], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    looked_up: list[str] = []

    def find(name: str, _: Path) -> None:
        looked_up.append(name)

    monkeypatch.setattr(catalogue_module, "find_fine_tune", find)
    with pytest.raises(ModelNotFoundError) as caught:
        await pick(models, name)
    assert len(caught.value.message) < 300
    assert len(set(looked_up)) == (3 if len(name) < 256 else 0)


def test_an_alias_that_is_the_name_of_a_fine_tune_is_refused_at_start(models_dir: Path, e5_tiny: Path) -> None:
    whole(models_dir / "mine", e5_tiny, base="e5-first")
    require_free_aliases({"other": "e5-first"}, models_dir)
    with pytest.raises(ConfigurationError, match="'mine' of 'e5-first' is the name of a fine-tune"):
        require_free_aliases({"mine": "e5-first"}, models_dir)


async def test_without_a_capable_model_the_default_is_refused(models: ModelRegistry[FakeCaller]) -> None:
    with pytest.raises(CapabilityError, match="no served model supports what is wanted"):
        await pick(models, None, frozenset({Capability.PAIR_SCORE}))


async def test_an_unknown_name_is_refused_with_the_names_that_are_served(models: ModelRegistry[FakeCaller]) -> None:
    with pytest.raises(ModelNotFoundError, match=r"'nothing' .* e5-first, e5-second, bge-m3, cross, and") as caught:
        await pick(models, "nothing")
    assert caught.value.status == 404


async def test_an_incapable_model_is_refused_with_the_capable_ones(models: ModelRegistry[FakeCaller]) -> None:
    with pytest.raises(CapabilityError, match=r"'e5-first' does not support what is wanted; models that do: bge-m3$"):
        await pick(models, "e5-first", HYBRID)
    with pytest.raises(CapabilityError, match=r"models that do: none$") as caught:
        await pick(models, "e5-first", frozenset({Capability.PAIR_SCORE}))
    assert caught.value.status == 400


async def test_a_model_that_is_served_for_something_else_is_not_unknown(models: ModelRegistry[FakeCaller]) -> None:
    with pytest.raises(CapabilityError, match="'cross' does not support what is wanted; models that do: e5-first, "):
        await pick(models, "cross")


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "", ".staging", "/etc"])
async def test_a_name_that_leads_out_of_the_directory_is_unknown(
    models: ModelRegistry[FakeCaller], models_dir: Path, name: str
) -> None:
    write_manifest(models_dir / ".staging", base="e5-first")
    with pytest.raises(ModelNotFoundError):
        await pick(models, name)


# ------------------------------------------------------------------ fine-tunes come and go


async def test_a_fine_tune_is_served_as_soon_as_its_folder_is_there(
    models: ModelRegistry[FakeCaller], models_dir: Path
) -> None:
    with pytest.raises(ModelNotFoundError):
        await pick(models, "laws")
    write_manifest(models_dir / "laws", base="e5-second", job_id="job-7")
    found = await pick(models, "laws")
    assert found.source.name == "laws"
    assert found.model_version == ModelVersion("laws", "job-7")
    assert found.caller is models.configured["e5-second"].caller


async def test_a_fine_tune_is_found_while_large_bodies_hold_all_threads(
    models: ModelRegistry[FakeCaller], models_dir: Path
) -> None:
    gate = threading.Event()
    bodies = [asyncio.ensure_future(asyncio.to_thread(gate.wait, PATIENCE_S)) for _ in range(100)]
    write_manifest(models_dir / "mine", base="e5-first")
    try:
        assert (await asyncio.wait_for(pick(models, "mine"), PATIENCE_S / 2)).source.name == "mine"
    finally:
        gate.set()
        await asyncio.gather(*bodies)


async def test_a_fine_tune_does_what_its_host_does_and_no_more(
    models: ModelRegistry[FakeCaller], models_dir: Path
) -> None:
    write_manifest(models_dir / "laws", base="e5-first")
    write_manifest(models_dir / "acts", base="bge-m3", family="bge-m3")
    assert (await pick(models, "acts", HYBRID)).capabilities == HYBRID
    with pytest.raises(CapabilityError, match="'laws' does not support"):
        await pick(models, "laws", HYBRID)


async def test_an_adapter_that_was_trained_with_other_prompts_than_its_base_has_is_not_served(
    models: ModelRegistry[FakeCaller], models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_manifest(models_dir / "laws", base="e5-first", family="e5-instruct")
    with pytest.raises(UnavailableError, match="cannot be read"):
        await pick(models, "laws")
    assert "records the family 'e5-instruct', but its base 'e5-first' is served as 'e5'" in caplog.text


async def test_the_fine_tune_is_sent_with_the_texts(models: ModelRegistry[FakeCaller], models_dir: Path) -> None:
    write_manifest(models_dir / "laws", base="e5-first", job_id="job-7")
    tuned, base = await pick(models, "laws"), await pick(models, "e5-first")
    texts = ["how do I read a file?"]
    batches = [served.batch(await served.tokenise(texts, TextRole.QUERY)) for served in (tuned, base)]
    assert batches[0].ids.tolist() == batches[1].ids.tolist(), "prefix and vocabulary are those of the base"
    assert [batch.model_version for batch in batches] == [ModelVersion("laws", "job-7"), None]


async def test_the_state_shows_the_manifest(models: ModelRegistry[FakeCaller], models_dir: Path) -> None:
    write_manifest(models_dir / "laws", base="e5-first", kind="qlora")
    state = (await pick(models, "laws")).state()
    assert (state.name, state.base, state.kind) == ("laws", "e5-first", "qlora")
    assert state.created == "2026-01-02T03:04:05+00:00"
    assert state.metrics == {"before": {"mrr@10": 0.5}, "after": {"mrr@10": 0.75}}
    assert (state.device, state.dtype) == ("cpu", "float32")


async def test_a_fine_tune_made_anew_is_the_new_one_within_a_second(
    models: ModelRegistry[FakeCaller], models_dir: Path, clock: Clock
) -> None:
    write_manifest(models_dir / "laws", base="e5-first", job_id="old")
    first = await pick(models, "laws")
    write_manifest(models_dir / "laws", base="e5-first", job_id="new")
    clock.now += 1.0
    second = await pick(models, "laws")
    assert (first.model_version, second.model_version) == (ModelVersion("laws", "old"), ModelVersion("laws", "new"))


async def test_a_deleted_fine_tune_is_unknown_within_a_second_and_may_come_back(
    models: ModelRegistry[FakeCaller], models_dir: Path, clock: Clock
) -> None:
    folder = write_manifest(models_dir / "laws", base="e5-first", job_id="old")
    await pick(models, "laws")
    shutil.rmtree(folder)
    clock.now += 1.0
    with pytest.raises(ModelNotFoundError):
        await pick(models, "laws")
    write_manifest(folder, base="e5-second", job_id="new")
    assert (await pick(models, "laws")).model_version == ModelVersion("laws", "new")


async def test_a_known_fine_tune_is_not_read_again_for_every_request(
    models: ModelRegistry[FakeCaller], models_dir: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(models_dir / "laws", base="e5-first")
    first = await pick(models, "laws")
    clock.now += 1.0
    assert await pick(models, "laws") is first, "the same version keeps its vocabulary"
    monkeypatch.setattr(catalogue_module, "find_fine_tune", lambda *_: pytest.fail("the disk is read"))
    clock.now += 0.9
    assert await pick(models, "laws") is first


async def test_a_configured_model_is_never_hidden_by_a_fine_tune_of_its_name(
    models: ModelRegistry[FakeCaller], models_dir: Path
) -> None:
    write_manifest(models_dir / "e5-first", base="e5-second")
    assert (await pick(models, "e5-first")).model_version is None


# ------------------------------------------------------------------ who computes


async def test_a_whole_fine_tune_has_its_own_limits_and_its_ancestors_host(
    models: ModelRegistry[FakeCaller], models_dir: Path, e5_tiny: Path
) -> None:
    folder = whole(models_dir / "laws", e5_tiny, base="e5-second")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 99}))
    found = await pick(models, "laws")
    assert found.source.max_tokens == 99
    assert found.source.folder == folder
    assert found.caller is models.configured["e5-second"].caller


async def test_the_host_of_a_fine_tune_of_a_fine_tune_is_the_configured_ancestor(
    models: ModelRegistry[FakeCaller], models_dir: Path, e5_tiny: Path
) -> None:
    whole(models_dir / "laws", e5_tiny, base="e5-second")
    whole(models_dir / "acts", e5_tiny, base="laws")
    write_manifest(models_dir / "taxes", base="acts")
    for name in ("acts", "taxes"):
        assert (await pick(models, name)).caller is models.configured["e5-second"].caller
    assert (await pick(models, "taxes")).source.folder == models_dir / "acts", "an adapter reads its base's vocabulary"


async def test_a_whole_fine_tune_whose_ancestors_are_gone_is_hosted_by_its_family(
    models: ModelRegistry[FakeCaller], models_dir: Path, e5_tiny: Path, bge_m3_tiny: Path
) -> None:
    whole(models_dir / "laws", e5_tiny, base="gone")
    whole(models_dir / "acts", bge_m3_tiny, base="gone", family="bge-m3")
    assert (await pick(models, "laws")).caller is models.configured["e5-first"].caller
    assert (await pick(models, "acts", HYBRID)).caller is models.configured["bge-m3"].caller


async def test_a_whole_fine_tune_of_a_family_that_is_not_served_is_unknown(
    models: ModelRegistry[FakeCaller], models_dir: Path, bge_m3_tiny: Path
) -> None:
    whole(models_dir / "acts", bge_m3_tiny, base="gone", family="bge-m3")
    only_e5 = ModelRegistry({"e5-first": models.configured["e5-first"]}, models_dir)
    with pytest.raises(ModelNotFoundError):
        await pick(only_e5, "acts")
    assert list(only_e5.all()) == [models.configured["e5-first"]]


async def test_an_adapter_whose_base_is_not_served_is_unknown(
    models: ModelRegistry[FakeCaller], models_dir: Path
) -> None:
    write_manifest(models_dir / "laws", base="e5-elsewhere")
    with pytest.raises(ModelNotFoundError, match="'laws'"):
        await pick(models, "laws")


async def test_an_adapter_on_an_adapter_is_unknown(models: ModelRegistry[FakeCaller], models_dir: Path) -> None:
    write_manifest(models_dir / "laws", base="e5-first")
    write_manifest(models_dir / "taxes", base="laws")
    with pytest.raises(ModelNotFoundError, match="'taxes'"):
        await pick(models, "taxes")


async def test_fine_tunes_that_name_each_other_as_base_end_the_search(
    models: ModelRegistry[FakeCaller], models_dir: Path
) -> None:
    write_manifest(models_dir / "laws", base="taxes")
    write_manifest(models_dir / "taxes", base="laws")
    with pytest.raises(ModelNotFoundError):
        await asyncio.wait_for(pick(models, "laws"), 10)


# ------------------------------------------------------------------ all of them


def names(models: ModelRegistry[FakeCaller]) -> list[str]:
    return [served.source.name for served in models.all()]


def test_all_models_are_the_configured_ones_and_the_fine_tunes_that_can_be_served(
    models: ModelRegistry[FakeCaller], models_dir: Path, e5_tiny: Path
) -> None:
    whole(models_dir / "zebras", e5_tiny, base="e5-first")
    write_manifest(models_dir / "acts", base="bge-m3", family="bge-m3")
    write_manifest(models_dir / "orphan", base="e5-elsewhere")
    write_manifest(models_dir / "e5-second", base="e5-first")
    assert names(models) == ["e5-first", "e5-second", "bge-m3", "acts", "zebras"]


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
async def test_a_fine_tune_with_a_broken_folder_is_unavailable_and_hides_no_other(
    models: ModelRegistry[FakeCaller], models_dir: Path, e5_tiny: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken = whole(models_dir / "broken", e5_tiny, base="e5-first")
    (broken / file).unlink()
    write_manifest(models_dir / "laws", base="e5-first")
    assert names(models) == ["e5-first", "e5-second", "bge-m3", "laws"]
    with pytest.raises(UnavailableError, match=r"'broken' cannot be read; the log says why$"):
        await pick(models, "broken")
    assert file in caplog.messages[-1]


async def test_the_list_shows_a_fine_tune_made_anew_at_once(
    models: ModelRegistry[FakeCaller], models_dir: Path
) -> None:
    write_manifest(models_dir / "laws", base="e5-first", job_id="old")
    await pick(models, "laws")
    write_manifest(models_dir / "laws", base="e5-first", job_id="new")
    assert [served.model_version for served in models.all()][-1] == ModelVersion("laws", "new")


def test_a_deployment_without_fine_tunes_needs_no_directory(models: ModelRegistry[FakeCaller], tmp_path: Path) -> None:
    assert [s.source.name for s in ModelRegistry(models.configured, tmp_path / "nowhere").all()] == [*models.configured]


async def test_a_configured_model_keeps_its_own_source(models: ModelRegistry[FakeCaller], models_dir: Path) -> None:
    write_manifest(models_dir / "laws", base="e5-first")
    found = await pick(models, "laws")
    assert found.source == replace(models.configured["e5-first"].source, name="laws")
    assert models.configured["e5-first"].source.name == "e5-first"


def test_the_list_reads_the_vocabulary_of_a_fine_tune_once(
    models: ModelRegistry[FakeCaller], models_dir: Path, e5_tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = whole(models_dir / "laws", e5_tiny, base="e5-first")
    listed = list(models.all())
    monkeypatch.setattr(catalogue_module, "ServedModel", lambda *_: pytest.fail("it is read again"))
    assert [a is b for a, b in zip(models.all(), listed, strict=True)] == [True] * 4
    shutil.rmtree(folder)
    assert names(models) == ["e5-first", "e5-second", "bge-m3"]


async def test_a_listed_fine_tune_is_searched_for_before_it_is_used(
    models: ModelRegistry[FakeCaller], models_dir: Path, clock: Clock
) -> None:
    clock.now = 0.0
    folder = write_manifest(models_dir / "laws", base="e5-first")
    assert names(models)[-1] == "laws"
    shutil.rmtree(folder)
    with pytest.raises(ModelNotFoundError):
        await pick(models, "laws")
