"""One round of this service: idle, a query beside lists, quiet and loaded, beside a busy core."""

from __future__ import annotations

import time

from benchmarks.bench import LIST_CLIENTS, LOADS, QUIET_TEXTS, Bench
from benchmarks.children import BenchmarkError, busy_core
from benchmarks.contenders import Clients
from benchmarks.cpu import ROLES, CpuUse
from benchmarks.load import Load, LoadResult
from benchmarks.rows import Case, Measurement
from benchmarks.service import Service
from benchmarks.texts import KINDS, Kind

_BULK_SIZE = 256
_ENDLESS_S = 120.0
_COMPUTING_S = 0.5  # CPU time after which the device is surely busy
_DROP_S = 3.0  # after which the work of clients that went away should be dropped


class ServiceRound:
    """Measures a service that has just been started."""

    def __init__(self, bench: Bench, service: Service, threads: int, number: int) -> None:
        """Takes the service and the number of its torch threads; ``number`` is the round's."""
        self._bench = bench
        self._service = service
        self._threads = threads
        self._number = number
        self._idle: list[CpuUse] = []
        self.forward_share = 0.0

    def measure(self) -> list[Measurement]:
        """Everything."""
        self._wait_for_metrics()
        found = [self._query_beside_lists()]
        found += [self._loaded(kind, case) for kind in KINDS for case in LOADS]
        if self._bench.plan.busy:
            with busy_core():
                found += [self._loaded("short", case, busy=True) for case in LOADS]
        return found

    def idle_cores(self) -> dict[str, float]:
        """Cores that each role uses without requests."""
        seconds = sum(idle.seconds for idle in self._idle)
        return {role: sum(idle.by_role[role] for idle in self._idle) / seconds for role in ROLES}

    def _wait_for_metrics(self) -> None:
        """Until Ray has published the forwards of the start."""
        time.sleep(max(0.0, self._service.ready_at + self._bench.plan.idle_s - time.monotonic()))

    def _watch(self, seconds: float) -> CpuUse:
        before = self._service.cpu.read()
        time.sleep(seconds)
        return self._service.cpu.read().since(before)

    def _query_beside_lists(self) -> Measurement:
        bench, service, port = self._bench, self._service, self._service.port
        forwards, threads = service.forwards(), service.cpu.encoder_threads()
        long, short = bench.texts["mixed"].tokens, bench.texts["short"].tokens
        bulk = Clients(Load(port, "mixed", long, LIST_CLIENTS, _ENDLESS_S, _BULK_SIZE))
        self._wait_until_computing(sum(threads.values()))
        began = time.monotonic()
        query = Load(port, "short", short, 1, bench.plan.seconds, spread=QUIET_TEXTS, reference=str(bench.reference))
        probe = Clients(query).result()
        self.forward_share = service.cpu.find_forward_threads(threads, self._threads)
        bulk.hang_up()
        lasted = time.monotonic() - began
        dropped = self._watch(_DROP_S)
        self._idle.append(self._watch(bench.plan.idle_s - _DROP_S))
        forwards = service.forwards() - forwards
        values = bench.values("short", probe) | {"forwards": float(forwards)}
        values["forward_s_after_the_lists_went"] = dropped.forward
        if forwards > 0:  # the device was never free, so the time between two ends is the time of a forward
            values["forward_ms"] = lasted / forwards * 1000
        bench.say(f"service, query beside lists: p50 {probe.p50_ms:.0f} ms, p99 {probe.p99_ms:.0f} ms")
        return Measurement("service", "query beside lists", "short", False, self._number, values)

    def _wait_until_computing(self, cpu_before_s: float) -> None:
        """Until the lists have reached the device."""
        deadline = time.monotonic() + _ENDLESS_S / 4
        while sum(self._service.cpu.encoder_threads().values()) < cpu_before_s + _COMPUTING_S:
            if time.monotonic() > deadline:
                raise BenchmarkError("the lists did not reach the device")
            time.sleep(0.05)

    def _loaded(self, kind: Kind, case: Case, *, busy: bool = False) -> Measurement:
        bench, cpu = self._bench, self._service.cpu
        bench.check_time()
        clients = Clients(bench.load(self._service.port, kind, case))
        before = cpu.read()
        used: list[CpuUse] = []
        result = clients.result(lambda: used.append(cpu.read().since(before)))
        values = bench.values(kind, result) | self._cpu_values(used[0], result)
        bench.say(f"service, {case}, {kind}{', busy' * busy}: {values['texts_per_s']:.1f} texts/s")
        return Measurement("service", case, kind, busy, self._number, values)

    def _cpu_values(self, used: CpuUse, result: LoadResult) -> dict[str, float]:
        """CPU milliseconds of a request, by role; what the cluster uses anyway is taken off."""
        requests = max(1, result.requests)
        idle = self.idle_cores()
        by_role = {role: (used.by_role[role] - idle[role] * used.seconds) / requests * 1000 for role in ROLES}
        others = used.machine - used.around - used.forward - result.client_cpu_s
        return {f"{role}_cpu_ms": value for role, value in by_role.items()} | {
            # no request passes through the rest of Ray: less than idling there is no merit of the requests
            "around_cpu_ms": sum(by_role.values()) - min(0.0, by_role["ray"]),
            "around_and_idle_cpu_ms": used.around / requests * 1000,
            "forward_cpu_ms": used.forward / requests * 1000,
            "other_cores": max(0.0, others / used.seconds),
        }
