"""What the cluster has left for training, and who gets it."""

from __future__ import annotations

from collections.abc import Mapping

from serve_app.jobs.training_spec import TrainingSpec

_ROUNDING = 1e-6  # Ray adds fractions of a CPU


class ResourcePool:
    """CPUs and GPUs that nobody has reserved, as they were at the start of a look, less what was given away since."""

    def __init__(self, available: Mapping[str, float]) -> None:
        """Takes what the cluster says.

        Args:
            available: By Ray's name of the resource; nothing means unknown, and then everything fits.
        """
        self._available = dict(available)

    def lacking(self, spec: TrainingSpec) -> str | None:
        """What the job's workers lack, in words; None if they can start."""
        for resource, wanted in _wanted(spec).items():
            if self._available and wanted > self._available.get(resource, 0.0) + _ROUNDING:
                return f"{wanted:g} {resource}"
        return None

    def give(self, spec: TrainingSpec) -> None:
        """To a job that was started just now: its workers reserve it seconds later, and the next one must know."""
        for resource, wanted in _wanted(spec).items():
            if resource in self._available:
                self._available[resource] -= wanted


def _wanted(spec: TrainingSpec) -> Mapping[str, float]:
    """By all workers together; GPUs first, since they are what is short."""
    return {"GPU": spec.gpus_per_worker * spec.num_workers, "CPU": spec.cpus_per_worker * spec.num_workers}
