"""Free resources of the cluster, and the jobs that receive them."""

from __future__ import annotations

from collections.abc import Mapping

from serve_app.jobs.training_spec import TrainingSpec

_ROUNDING = 1e-6  # Ray adds fractions of a CPU


class ResourcePool:
    """CPUs and GPUs that were free at the start of a reconciliation, less those that jobs have received since."""

    def __init__(self, available: Mapping[str, float]) -> None:
        """Takes the cluster's free resources.

        Args:
            available: By Ray's name of the resource; empty means unknown, and then every job fits.
        """
        self._available = dict(available)

    def lacking(self, spec: TrainingSpec) -> str | None:
        """The resource that the job's workers lack, such as "1 GPU"; None if they can start."""
        for resource, wanted in _wanted(spec).items():
            if self._available and wanted > self._available.get(resource, 0.0) + _ROUNDING:
                return f"{wanted:g} {resource}"
        return None

    def give(self, spec: TrainingSpec) -> None:
        """Gives a job that was just started its resources: its workers reserve them seconds later."""
        for resource, wanted in _wanted(spec).items():
            if resource in self._available:
                self._available[resource] -= wanted


def _wanted(spec: TrainingSpec) -> Mapping[str, float]:
    """Needs of all workers together; GPUs first, since they are scarce."""
    return {"GPU": spec.gpus_per_worker * spec.num_workers, "CPU": spec.cpus_per_worker * spec.num_workers}
