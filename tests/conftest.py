"""Shared by all tests that need a real service: one cluster for the whole run."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several on this machine; torch reads this when it is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import httpx
import pytest

from tests.keyed import BODY_S, HEAD_S, SILENT_S, write_keys
from tests.service_process import STARTER, STARTER_FOLDER, Service, fast_environment, running
from tests.tiny_models import build_bge_m3_tiny, build_e5_tiny, build_reranker_tiny

E5_BFLOAT16 = "e5-bfloat16"
E5_TINY = "e5-tiny"
M3 = "bge-m3-small"
M3_TINY = "bge-m3-tiny"
CROSS_ENCODER = "reranker-tiny"
GPU_SHARE = 0.05  # where there is a GPU: all models of a test service must fit on one, and a fine-tune
HEAD_TIMEOUT = "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"  # its second line; see configs/serve.env
_ASKS_IN_A_ROW = 6  # connections are spread over the ingress replicas, and each of them must know the model


class OneAtATime:
    """Stops the service that runs before it starts the next one: an idle cluster takes a tenth of two cores."""

    def __init__(self) -> None:
        self._running = ExitStack()

    def start(self, folder: Path, args: dict[str, Any], **environment: str) -> Service:
        """A new service, ready."""
        self.stop()
        return self._running.enter_context(running(folder, args, **environment))

    def stop(self) -> None:
        """Ends the service that runs, if there is one."""
        self._running.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need none of the two services come first, then those of ``exposed``, then those of ``service``."""
    services = ("exposed", "service")
    items.sort(key=lambda item: max((services.index(name) + 1 for name in _fixtures_of(item) & {*services}), default=0))


def pytest_collection_finish() -> None:
    """What the libraries made at import need not be searched for garbage, and not so often: that takes seconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of the service: the starter models as links, the tiny ones built."""
    folder = tmp_path_factory.mktemp("service") / "models"
    folder.mkdir()
    for name, target in {STARTER: STARTER_FOLDER, E5_BFLOAT16: STARTER_FOLDER, M3: STARTER_FOLDER.parent / M3}.items():
        if not target.is_dir():
            pytest.fail("a starter model is missing: make models")
        (folder / name).symlink_to(target)
    build_e5_tiny(folder / E5_TINY)
    build_bge_m3_tiny(folder / M3_TINY)
    build_reranker_tiny(folder / CROSS_ENCODER)
    return folder


@pytest.fixture(scope="session")
def one_at_a_time() -> Iterator[OneAtATime]:
    services = OneAtATime()
    yield services
    services.stop()


@pytest.fixture(scope="session")
def service(models_dir: Path, one_at_a_time: OneAtATime) -> Service:
    """Starter and tiny models, all but ``e5-bfloat16`` in float32; the starter E5 is the default.

    Two replicas of the ingress, of the default encoder, of the tiny E5 and of the tiny reranker, so that the same
    cluster serves the fault tests and shows whether every replica knows a fine-tune. Fine-tunes are trained as on a CPU
    without AVX512, where Q-LoRA takes another way.
    """
    models = [
        _model(STARTER, 2),
        _model(E5_BFLOAT16, dtype="bfloat16"),
        _model(M3),
        _model(M3_TINY),
        _model(E5_TINY, 2),
    ]
    args: dict[str, Any] = {
        "models_dir": str(models_dir),
        "models": models,
        "rerankers": [_model(M3), _model(M3_TINY, 2), _model(CROSS_ENCODER, kind="cross-encoder")],
        "ingress": {"num_replicas": 2},
        "training": {
            "jobs_dir": str(models_dir.parent / "jobs"),
            "cpus_per_worker": 0.1,
            "gpu_share": GPU_SHARE,
            "env": {"ATEN_CPU_CAPABILITY": "avx2"},
        },
    }
    service = one_at_a_time.start(models_dir.parent, args)
    _wait_for_every_model(service)
    return service


@pytest.fixture(scope="session")
def exposed(tmp_path_factory: pytest.TempPathFactory, one_at_a_time: OneAtATime) -> Service:
    """A service with API keys (``tests.keyed``), small on purpose: tiny models, a short queue, two HTTP replicas.

    Its time-outs are a few seconds, so that tests see what is cut and who may be silent longer; ``tests.keyed`` has
    them. No fine-tune ever finds room.
    """
    folder = tmp_path_factory.mktemp("exposed")
    build_e5_tiny(folder / "models" / E5_TINY)
    build_bge_m3_tiny(folder / "models" / M3_TINY)
    write_keys(folder / "api-keys")
    models = [{**_model(name), "batching": {"max_backlog_tokens": 3000}} for name in (E5_TINY, M3_TINY)]
    args: dict[str, Any] = {
        "models_dir": str(folder / "models"),
        "models": models,
        "rerankers": models[1:],
        "ingress": {"num_replicas": 2, "num_cpus": 0.1},
        "limits": {"body_timeout_s": BODY_S},
        "training": {"jobs_dir": str(folder / "jobs"), "cpus_per_worker": 64},
        "security": {"api_keys_file": str(folder / "api-keys")},
    }
    shipped = fast_environment()[HEAD_TIMEOUT]
    assert "request 10s" in shipped
    timeouts = {
        HEAD_TIMEOUT: shipped.replace("request 10s", f"request {HEAD_S}s"),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(SILENT_S),
    }
    return one_at_a_time.start(folder, args, **timeouts)


@pytest.fixture(scope="session")
def starter_folder() -> Path:
    """The folder of the starter E5."""
    return STARTER_FOLDER


def _fixtures_of(item: pytest.Item) -> set[str]:
    """The names of all fixtures that a test needs, those of fixtures included."""
    return set(item.fixturenames) if isinstance(item, pytest.Function) else set()


def _model(name: str, replicas: int = 1, **more: str) -> dict[str, Any]:
    sizes = {"num_replicas": replicas, "num_cpus": 0.05, "gpu_share": GPU_SHARE, "threads": 1}
    return {"name": name, "dtype": "float32", **sizes, **more}


def _wait_for_every_model(service: Service, timeout_s: float = 240) -> None:
    """/readyz answers 200 while models beside the default one still load."""
    deadline = time.monotonic() + timeout_s
    for model in httpx.get(f"{service.url}/models").json()["models"]:
        bodies = {
            "embed": ("/vectorize", {"text": "ready?", "model": model["name"]}),
            "rerank": ("/rerank", {"query": "ready?", "candidates": ["yes"], "model": model["name"]}),
        }
        for path, body in (bodies[use] for use in model["serves"]):
            in_a_row = 0
            while in_a_row < _ASKS_IN_A_ROW:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{path} of {model['name']} did not become ready")
                answered = httpx.post(service.url + path, json=body, timeout=30).status_code == 200
                in_a_row = in_a_row + 1 if answered else 0
                if not answered:
                    time.sleep(0.3)
