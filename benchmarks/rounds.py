"""The order of the measurements: this service, in-process, the plain service, and again from the start.

Only one of them has work at any time. The Ray cluster is stopped for the others, because it uses some CPU
even when it idles; the others sleep.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bench import LIST_CLIENTS, LIST_SIZE, LOADS, QUIET_TEXTS, SINGLES, Bench
from benchmarks.children import BenchmarkError, OutOfTimeError, busy_core
from benchmarks.contenders import Clients, InProcessContender, Neighbours, PlainContender
from benchmarks.inprocess import Engine, Task
from benchmarks.rows import Case, Contender, Measurement, Rows
from benchmarks.service import Service
from benchmarks.service_round import ServiceRound
from benchmarks.texts import KINDS, Kind
from serve_app.models.openmp import available_cpus

_KNOWN_AT_ONCE: dict[Case, int] = {
    "1 client": 1,
    "32 clients": SINGLES,
    "lists": LIST_CLIENTS * LIST_SIZE,
    "all at once": 0,
}


@dataclass
class Run:
    """All rounds.

    Attributes:
        bench: What is shared.
        root: The repository.
        folder: The model's folder.
        threads: Torch threads, of the service as of the in-process model.
        rows: What was measured so far.
        health: What the service says of itself.
        niceness: The priority of the service's encoder, and so of all.
        learned: Numbers about the service as such, one for each round.
        done: Rounds that were measured.
    """

    bench: Bench
    root: Path
    folder: Path
    threads: int
    rows: Rows = field(default_factory=Rows)
    health: dict[str, Any] = field(default_factory=dict)
    niceness: int = 0
    learned: dict[str, list[float]] = field(default_factory=dict)
    done: int = 0
    _in_process: InProcessContender | None = None
    _plain: PlainContender | None = None

    def measure(self) -> None:
        """Round after round, as many as were planned and as the time allows.

        Raises:
            BenchmarkError: The time was over before there was anything to report.
        """
        try:
            for number in range(self.bench.plan.rounds):
                began = self.bench.elapsed_s
                self._service_round(number)
                self._in_process_round(number)
                self._plain_round(number)
                self.done = number + 1
                if self.bench.elapsed_s + (self.bench.elapsed_s - began) > self.bench.plan.budget_s:
                    break
        except OutOfTimeError:
            if not self.learned:
                raise BenchmarkError("the time was over before the first round of the service was") from None
            self.bench.say("the time is over; what is missing stays empty")
        finally:
            for contender in (self._in_process, self._plain):
                if contender is not None:
                    contender.stop()

    def _service_round(self, number: int) -> None:
        self.bench.say(f"round {number + 1}: starting the service")
        service = Service(self.root)
        try:
            if self._in_process is None:
                self._start_others(service)
            a_round = ServiceRound(self.bench, service, self.threads, number)
            self.rows.all += a_round.measure()
        finally:
            service.stop()
        self._remember("start_s", service.started_s)
        self._remember("forward_share_of_encoder_cpu", a_round.forward_share)
        for role, cores in a_round.idle_cores().items():
            self._remember(f"idle_cores_{role}", cores)

    def _remember(self, name: str, value: float) -> None:
        self.learned.setdefault(name, []).append(value)

    def _start_others(self, service: Service) -> None:
        """With the same device, dtype, threads and priority as the service; then they sleep."""
        self.health, self.niceness = service.health, service.cpu.niceness()
        tokens = {kind: texts.tokens for kind, texts in self.bench.texts.items()}
        device, dtype = self.health["device"], self.health["dtype"]
        engine = Engine(str(self.folder), device, dtype, self.threads, tokens, str(self.bench.reference))
        self._in_process = InProcessContender(engine, self.niceness)
        self._plain = PlainContender(self.folder, self.niceness)

    def _in_process_round(self, number: int) -> None:
        for kind in KINDS:
            for case in LOADS:
                self._encode(kind, case, number)
            if self.bench.plan.all_at_once and number == 0:
                self._encode(kind, "all at once", number)
            if int(available_cpus()) > self.threads:
                for case in LOADS[1:]:
                    self._encode(kind, case, number, contender="in-process, all CPUs")
        if self.bench.plan.busy:
            with busy_core():
                for case in LOADS:
                    self._encode("short", case, number, busy=True)

    def _encode(
        self, kind: Kind, case: Case, number: int, *, busy: bool = False, contender: Contender = "in-process"
    ) -> None:
        assert self._in_process is not None
        self.bench.check_time()
        role = "query" if case in {"1 client", "32 clients"} else "passage"
        spread = QUIET_TEXTS if case == "1 client" else 0
        neighbours = Neighbours()
        threads = self.threads if contender == "in-process" else int(available_cpus())
        task = Task(kind, _KNOWN_AT_ONCE[case], role, self.bench.seconds(case), spread, threads)
        result = self._in_process.run(task)
        values = self.bench.values(kind, result) | {"other_cores": neighbours.cores(result.cpu_s)}
        self._add(Measurement(contender, case, kind, busy, number, values))

    def _plain_round(self, number: int) -> None:
        for kind in KINDS:
            for case in LOADS[:2]:
                self._ask_plain(kind, case, number)
        if self.bench.plan.busy:
            with busy_core():
                self._ask_plain("short", "32 clients", number, busy=True)

    def _ask_plain(self, kind: Kind, case: Case, number: int, *, busy: bool = False) -> None:
        assert self._plain is not None
        self.bench.check_time()
        result = Clients(self.bench.load(self._plain.port, kind, case)).result()
        self._add(Measurement("plain", case, kind, busy, number, self.bench.values(kind, result)))

    def _add(self, row: Measurement) -> None:
        self.rows.all.append(row)
        name = f"{row.contender}, {row.case}, {row.kind}{', busy' * row.busy}"
        self.bench.say(f"{name}: {row.values['texts_per_s']:.1f} texts/s")
