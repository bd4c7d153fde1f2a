"""Which fine-tunes are in memory, for whom, and which of them go. The models are fakes; the folders are real."""

from __future__ import annotations

import asyncio
import gc
import shutil
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serve_app.domain.embeddings import ModelVersion
from serve_app.domain.errors import ModelLoadError, ModelNotFoundError, ServiceError, UnavailableError
from serve_app.models.embedder import EmbeddingModel, TextToEncode
from serve_app.models.fine_tune_cache import FineTuneCache
from serve_app.models.loader import load_model
from serve_app.models.model_source import describe
from tests.unit.models.fake_models import HOME, FakeTransformer, Workshop
from tests.unit.models.fine_tune_examples import build_adapter, build_full


def named(name: str, job_id: str = "job-1") -> ModelVersion:
    return ModelVersion(name, job_id)


def transformer_of(model: EmbeddingModel) -> FakeTransformer:
    assert isinstance(model.transformer, FakeTransformer)
    return model.transformer


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@asynccontextmanager
async def using(workshop: Workshop, *names: str) -> AsyncIterator[list[EmbeddingModel]]:
    """The models of these names, all in memory until the block ends."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(workshop.cache.use(named(name))) for name in names]


async def use(workshop: Workshop, *names: str) -> None:
    """Uses models one after the other, for a moment each."""
    for name in names:
        async with using(workshop, name):
            pass


# ------------------------------------------------------------------ what a caller gets


async def test_a_replicas_own_model_is_there_without_a_load(workshop: Workshop) -> None:
    async with workshop.cache.use(None) as model:
        assert model is workshop.home
    assert (workshop.loads, workshop.on_device, workshop.in_memory) == ([], 0, [])


async def test_a_whole_fine_tune_is_loaded_on_request_and_then_stays(workshop: Workshop) -> None:
    workshop.full("laws")
    assert workshop.loads == []
    async with using(workshop, "laws") as [first]:
        assert transformer_of(first).folder == workshop.models_dir / "laws"
    async with using(workshop, "laws") as [second]:
        assert second is first
    assert (workshop.loads, workshop.on_device) == (["laws"], 0), "whole models are loaded beside the forwards"


async def test_an_adapter_computes_on_the_replicas_own_model(workshop: Workshop) -> None:
    workshop.adapter("laws")
    async with using(workshop, "laws") as [model]:
        assert model.transformer is workshop.home.transformer
        assert model.adapter in transformer_of(workshop.home).adapters.loaded
        assert workshop.home.adapter is None
    assert (workshop.loads, workshop.on_device) == ([], 1), "adapters are changed where forwards run"


async def test_two_versions_of_a_name_are_two_models(workshop: Workshop) -> None:
    workshop.full("laws")
    async with using(workshop, "laws") as [old]:
        shutil.rmtree(workshop.models_dir / "laws")
        workshop.full("laws", job_id="job-2")
        async with workshop.cache.use(named("laws", "job-2")) as new:
            assert new is not old
    assert len(workshop.cache.loaded) == 2


# ------------------------------------------------------------------ many callers, one load


@pytest.mark.parametrize("kind", ["full", "adapter"])
async def test_callers_that_come_at_once_share_one_load(workshop: Workshop, kind: str) -> None:
    getattr(workshop, kind)("laws")

    async def get() -> EmbeddingModel:
        async with using(workshop, "laws") as [model]:
            await asyncio.sleep(0)
            return model

    models = await asyncio.gather(*(get() for _ in range(20)))
    assert len(set(map(id, models))) == 1
    assert len(workshop.loads) + workshop.on_device == 1


async def test_the_own_model_and_models_in_memory_serve_while_another_loads(workshop: Workshop) -> None:
    workshop.full("ready")
    workshop.full("slow")
    await use(workshop, "ready")
    workshop.gate.clear()
    waiting = asyncio.ensure_future(use(workshop, "slow"))
    await workshop.until_loading("slow")
    async with using(workshop, "ready"), workshop.cache.use(None) as own:
        assert own is workshop.home
        assert not waiting.done()
    workshop.gate.set()
    await waiting


@pytest.mark.parametrize("leaving", [1, 2])
async def test_callers_that_leave_do_not_stop_a_load(workshop: Workshop, leaving: int) -> None:
    workshop.full("laws")
    workshop.gate.clear()
    callers = [asyncio.ensure_future(use(workshop, "laws")) for _ in range(2)]
    await workshop.until_loading("laws")
    for caller in callers[:leaving]:
        caller.cancel()
    await asyncio.gather(*callers[:leaving], return_exceptions=True)
    assert all(caller.cancelled() for caller in callers[:leaving])
    workshop.gate.set()
    await asyncio.gather(*callers[leaving:])
    await use(workshop, "laws")
    assert workshop.loads == ["laws"]


async def test_models_that_load_at_once_do_not_take_the_same_room(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, max_bytes=100)
    for name in ("a", "b"):
        workshop.full(name, 60)
    await asyncio.gather(use(workshop, "a"), use(workshop, "b"))
    assert len(workshop.in_memory) == 1


# ------------------------------------------------------------------ loads that fail


async def outcome_of(workshop: Workshop, model_version: ModelVersion) -> ServiceError | None:
    try:
        async with workshop.cache.use(model_version):
            return None
    except ServiceError as error:
        return error


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (ModelLoadError("the weights are cut short"), "'laws' cannot be loaded: the weights are cut short"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), "too little memory .* 'laws'"),
    ],
)
async def test_a_load_that_fails_is_an_error_for_all_callers_and_is_tried_again_after_half_a_minute(
    workshop: Workshop, failure: Exception, says: str
) -> None:
    workshop.full("laws")
    workshop.failure = failure
    errors = await asyncio.gather(*(outcome_of(workshop, named("laws")) for _ in range(3)))
    assert [type(error) for error in errors] == [UnavailableError] * 3
    workshop.failure = None
    for workshop.now_s in (0.0, 20.0, 29.0):
        with pytest.raises(UnavailableError, match=says) as caught:
            await use(workshop, "laws")
        assert caught.value.retry_after_s == pytest.approx(30 - workshop.now_s)
    assert (workshop.loads, workshop.in_memory) == (["laws"], [])
    workshop.now_s = 30.0
    await use(workshop, "laws")
    assert (workshop.loads, workshop.in_memory) == (["laws"] * 2, ["laws"])


async def test_another_version_is_loaded_though_the_one_before_could_not_be(workshop: Workshop) -> None:
    workshop.full("laws")
    workshop.failure = ModelLoadError("the weights are cut short")
    assert isinstance(await outcome_of(workshop, named("laws")), UnavailableError)
    shutil.rmtree(workshop.models_dir / "laws")
    workshop.full("laws", job_id="job-2")
    workshop.failure = None
    assert await outcome_of(workshop, named("laws", "job-2")) is None


async def test_a_bug_is_not_called_unavailable(workshop: Workshop) -> None:
    workshop.full("laws")
    workshop.failure = TypeError("no such thing")
    with pytest.raises(TypeError):
        await use(workshop, "laws")


async def test_a_broken_adapter_is_an_error_and_lets_its_base_go(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, max_bytes=100)
    workshop.full("base", 60)
    workshop.adapter("broken", base="base")
    (tmp_path / "broken" / "adapter_config.json").unlink()
    with pytest.raises(UnavailableError, match="no adapter in"):
        await use(workshop, "broken")
    workshop.full("other", 60)
    await use(workshop, "other")
    assert workshop.in_memory == ["other"]


async def test_an_adapter_whose_base_is_nowhere_is_unavailable(workshop: Workshop) -> None:
    workshop.adapter("laws", base="elsewhere")
    with pytest.raises(UnavailableError, match="its base 'elsewhere' is not served here"):
        await use(workshop, "laws")


async def test_an_adapter_on_an_adapter_is_unavailable(workshop: Workshop) -> None:
    workshop.adapter("laws")
    workshop.adapter("taxes", base="laws")
    with pytest.raises(UnavailableError, match="its base 'laws' is not served here"):
        await use(workshop, "taxes")


async def test_a_fine_tune_that_is_gone_is_not_found(workshop: Workshop) -> None:
    with pytest.raises(ModelNotFoundError, match="'laws' is gone"):
        await use(workshop, "laws")


async def test_another_fine_tune_of_the_same_name_is_not_the_one_that_was_meant(workshop: Workshop) -> None:
    workshop.full("laws", job_id="job-2")
    with pytest.raises(ModelNotFoundError, match="'laws' is gone"):
        await use(workshop, "laws")
    assert workshop.loads == []


# ------------------------------------------------------------------ room


async def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, max_bytes=300)
    for name in "abcd":
        workshop.full(name, 100)
    await use(workshop, "a", "b", "c", "a", "d")
    assert workshop.in_memory == ["a", "c", "d"]
    await use(workshop, "b")
    assert workshop.in_memory == ["a", "b", "d"]


async def test_no_more_leave_than_are_in_the_way(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, max_bytes=300)
    for name, size in {"a": 100, "b": 100, "c": 100, "d": 150}.items():
        workshop.full(name, size)
    await use(workshop, "a", "b", "c", "d")
    assert workshop.in_memory == ["c", "d"]


async def test_a_model_in_use_stays_loaded(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, max_bytes=200)
    for name in "abc":
        workshop.full(name, 100)
    async with using(workshop, "a"):
        await use(workshop, "b", "c")
        assert workshop.in_memory == ["a", "c"]
    await use(workshop, "b")
    assert workshop.in_memory == ["b", "c"]


async def test_a_caller_that_fails_or_leaves_releases_its_model(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, max_bytes=100)
    workshop.full("a", 100)
    workshop.full("b", 100)
    with pytest.raises(ZeroDivisionError):
        async with using(workshop, "a"):
            raise ZeroDivisionError
    await use(workshop, "b")
    assert workshop.in_memory == ["b"]


async def test_memory_full_of_models_in_use_is_a_temporary_error(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, max_bytes=200)
    for name in "abc":
        workshop.full(name, 100)
    async with using(workshop, "a", "b") as models:
        with pytest.raises(UnavailableError, match="full of models in use") as caught:
            await use(workshop, "c")
        assert caught.value.retry_after_s is not None
        async with using(workshop, "a", "b") as still:
            assert still == models
    await use(workshop, "c")
    assert workshop.loads == ["a", "b", "c"]


async def test_a_model_over_the_bound_is_refused_with_the_name_of_the_setting(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, max_bytes=2**20)
    workshop.full("small", 100)
    workshop.full("large", 2**20 + 1)
    await use(workshop, "small")
    with pytest.raises(UnavailableError, match="max_fine_tunes_gib"):
        await use(workshop, "large")
    assert workshop.in_memory == ["small"], "nothing leaves for what cannot come"
    assert workshop.loads == ["small"]


async def test_an_adapter_that_leaves_is_taken_out_where_forwards_run(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, max_bytes=15)
    workshop.adapter("a")
    workshop.adapter("b")
    await use(workshop, "a", "b")
    loaded = transformer_of(workshop.home).adapters.loaded
    assert [folder.name for folder in loaded.values()] == ["b"]
    assert workshop.on_device == 3


async def test_memory_is_given_back_after_the_model_is_gone(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, max_bytes=100)
    workshop.full("a", 100)
    workshop.full("b", 100)
    async with using(workshop, "a") as models:
        old = weakref.ref(models.pop())
    gone: list[bool] = []

    def look() -> None:
        deadline = time.monotonic() + 5  # the thread that has loaded it lets go of it a moment after it has answered
        while old() is not None and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        gone.append(old() is None)

    transformer_of(workshop.home).released.append(look)
    await use(workshop, "b")
    assert gone == [True]


# ------------------------------------------------------------------ adapters on whole fine-tunes


async def test_an_adapter_on_a_whole_fine_tune_computes_on_it(workshop: Workshop) -> None:
    workshop.full("laws")
    workshop.adapter("taxes", base="laws")
    async with using(workshop, "taxes", "laws") as [adapter, base]:
        assert adapter.transformer is base.transformer
        assert adapter.adapter in transformer_of(base).adapters.loaded
        assert base.adapter is None
    assert workshop.loads == ["laws"]


async def test_an_adapter_keeps_its_base_in_memory_until_it_is_unloaded(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, max_bytes=200)
    workshop.full("base", 100)
    workshop.adapter("adapter", 20, base="base")
    for name in "ab":
        workshop.full(name, 60)
    await use(workshop, "adapter", "a")
    async with using(workshop, "adapter"):
        await use(workshop, "b")
        assert workshop.in_memory == ["adapter", "b", "base"], "the base is the oldest and stays"
    workshop.full("large", 200)
    await use(workshop, "large")
    assert workshop.in_memory == ["large"], "when the adapter goes, its base may"


async def test_many_adapters_on_one_fine_tune_load_it_once(workshop: Workshop) -> None:
    workshop.full("base")
    names = [f"adapter{i}" for i in range(5)]
    for name in names:
        workshop.adapter(name, base="base")
    await asyncio.gather(*(use(workshop, name) for name in names))
    assert workshop.loads == ["base"]
    assert workshop.in_memory == sorted([*names, "base"])


# ------------------------------------------------------------------ with real models


async def test_real_fine_tunes_compute_what_they_compute_alone(e5_tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(e5_tiny, tmp_path / HOME)
    build_full(tmp_path / "full", tmp_path / HOME, seed=3)
    build_adapter(tmp_path / "adapter", tmp_path / HOME, seed=1)
    build_adapter(tmp_path / "adapter-on-full", tmp_path / "full", seed=2)
    texts = [TextToEncode(np.array([0, 10, 11, 2], np.int32))]

    def load(name: str, folder: str | None = None) -> EmbeddingModel:
        return load_model(describe(name, tmp_path / (folder or name)), device="cpu", dtype="float32")

    def vector(model: EmbeddingModel) -> Any:
        (result,) = model.encode(texts)
        assert not isinstance(result, ServiceError), result
        return result.dense

    expected = {"full": vector(load("e5-full", "full"))}
    for name, base in {"adapter": HOME, "adapter-on-full": "full"}.items():
        alone = load("e5", base)
        alone.adapter = alone.transformer.adapters.load(tmp_path / name)
        expected[name] = vector(alone)
    cache: FineTuneCache[EmbeddingModel] = FineTuneCache(
        HOME,
        home := load(HOME),
        models_dir=tmp_path,
        max_bytes=10**7,
        load=lambda source: load_model(source, device="cpu", dtype="float32"),
        wrap=lambda model: model,
        on_device=asyncio.to_thread,
    )
    own = vector(home)
    for name in [*expected, *reversed(expected)]:
        async with cache.use(named(name)) as model:
            np.testing.assert_allclose(vector(model), expected[name], atol=1e-6)
            assert float(expected[name] @ own) < 0.99
        np.testing.assert_allclose(vector(home), own, atol=1e-6)
