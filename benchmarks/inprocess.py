"""The limit: sentence-transformers in one process, without a network, with the texts known in advance.

``python -m benchmarks.inprocess`` reads an ``Engine`` from its input, then one ``Task`` a line, and
writes one result a line. In between it waits and costs nothing.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.texts import KINDS, Kind, Texts, make_texts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_PREFIX = {"query": "query: ", "passage": "passage: "}  # of the E5 family; written out, because this is not our code
_REFERENCE_TEXTS = 64
_TRIAL_TEXTS = 64


@dataclass(frozen=True)
class Engine:
    """How the model is loaded: as the service loads it.

    Attributes:
        folder: The model's folder.
        device: As /health says.
        dtype: As /health says.
        threads: Torch threads.
        tokens: Tokens of each text, for each kind.
        reference: The file to write vectors of the first texts to.
    """

    folder: str
    device: str
    dtype: str
    threads: int
    tokens: dict[Kind, tuple[int, ...]]
    reference: str


@dataclass(frozen=True)
class Task:
    """One measurement.

    Attributes:
        kind: Which texts.
        group: Texts that are known at once; 0 is the whole pool.
        role: ``query`` or ``passage``.
        seconds: How long; a group that was begun is finished.
        spread: Use only the first ``spread`` texts of the pool (0: all).
        threads: Torch threads, if not the engine's.
    """

    kind: Kind
    group: int
    role: str
    seconds: float
    spread: int = 0
    threads: int = 0


@dataclass(frozen=True)
class TaskResult:
    """What came out; ``tokens`` are those of the texts, without padding."""

    tokens: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_s: float
    batch_size: int


class InProcess:
    """A loaded model and the texts."""

    def __init__(self, engine: Engine) -> None:
        """Loads the model and writes the reference vectors."""
        import torch
        from sentence_transformers import SentenceTransformer

        self._threads, self._set_threads = engine.threads, torch.set_num_threads
        self._set_threads(self._threads)
        self._model: SentenceTransformer = SentenceTransformer(
            engine.folder, device=engine.device, model_kwargs={"dtype": getattr(torch, engine.dtype)}
        )
        self._texts = {k: Texts(k, tuple(make_texts(k)), tuple(engine.tokens[k])) for k in KINDS}
        self._sizes = (8, 16, 32) if engine.device == "cpu" else (32, 128, 512)
        self._best: dict[tuple[Kind, int], int] = {}
        self._write_reference(engine.reference)

    def run(self, task: Task) -> TaskResult:
        """Encodes group after group of neighbours in the pool."""
        texts = self._texts[task.kind]
        pool = task.spread or len(texts.values)
        group = task.group or pool
        size = self._batch_size(task.kind, group)
        self._set_threads(task.threads or self._threads)
        took, tokens = [], 0
        began, cpu = time.perf_counter(), time.process_time()
        for start in itertools.count(0, group):
            indices = [i % pool for i in range(start, start + group)]
            took.append(self._encode([texts.values[i] for i in indices], task.role, size))
            tokens += sum(texts.tokens[i] for i in indices)
            if time.perf_counter() - began >= task.seconds:
                break
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        self._set_threads(self._threads)
        p50, p99 = (np.percentile(took, [50, 99]) * 1000).tolist()
        return TaskResult(tokens, seconds, p50, p99, cpu, size)

    def _batch_size(self, kind: Kind, group: int) -> int:
        """The fastest of a few; tried once for each kind and size of group, on a part of a large one."""
        key = (kind, min(group, _TRIAL_TEXTS))
        if key not in self._best:
            trial = self._texts[kind].values[: key[1]]
            sizes = [size for size in self._sizes if size < 2 * group]
            self._best[key] = min(sizes or [1], key=lambda size: self._encode(trial, "query", size)) if group > 1 else 1
        return self._best[key]

    def _encode(self, texts: Any, role: str, batch_size: int) -> float:
        began = time.perf_counter()
        self._vectors(texts, role, batch_size)
        return time.perf_counter() - began

    def _vectors(self, texts: Any, role: str, batch_size: int) -> Any:
        prefix = _PREFIX[role]
        return self._model.encode(
            [prefix + text for text in texts],
            batch_size=batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
        )

    def _write_reference(self, path: str) -> None:
        first = {kind: self._texts[kind].values[:_REFERENCE_TEXTS] for kind in KINDS}
        np.savez(path, **{f"{kind}-{role}": self._vectors(first[kind], role, 16) for kind in KINDS for role in _PREFIX})


if __name__ == "__main__":
    in_process = InProcess(Engine(**json.loads(sys.stdin.readline())))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(in_process.run(Task(**json.loads(line))))), flush=True)
