"""A job on Ray Train: workers with their share of the cluster, restarted when one is lost."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from torch import distributed

from serve_app.domain.errors import ServiceError
from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.training_spec import TrainingSpec
from serve_app.models.openmp import PASSIVE
from training.ownership import Claim, Ownership
from training.reporting import Reporter
from training.trainer.heartbeat import heartbeat
from training.training_errors import OwnershipLostError, TrainingError, reason_of

logger = logging.getLogger(__name__)

RESTARTS = 5
"""Restarts of the workers, from the newest checkpoint. Enough to halve a mini-batch of 16 down to one text, for which
several workers must restart each time."""

_GROUP_TIMEOUT_S = 24 * 3600
"""Timeout of exchanges between workers: the first one measures the base, which may take hours on a CPU. Ray notices a
worker that dies."""

_NICENESS = 19  # the system's lowest priority; Ray's own for every process is 15

_QUIET = {
    "TOKENIZERS_PARALLELISM": "false",  # else a warning
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # a print() that datasets captures would appear in the log
}


def train_on_ray(spec: TrainingSpec, job_dir: Path, claim: Claim) -> Path:
    """Trains on the job's workers and waits for the end.

    Args:
        spec: The job.
        job_dir: Its folder, which every worker reaches under this path.
        claim: Service and attempt for which it is trained.

    Returns:
        The published folder.

    Raises:
        TrainingError: The job cannot succeed; or its workers were lost too often.
        OwnershipLostError: Another service trains the job.
        RayError: Ray itself failed; see ``errors.is_cut_off``.
    """
    Ownership(job_dir, claim).check(at_once=True)  # connecting to Ray may have taken long
    JobFolder(job_dir).worker_failure_file.unlink(missing_ok=True)
    worker: Any = _worker  # mypy sees the interface of Ray Train's first version
    run: dict[str, Any] = {"worker_runtime_env": {"env_vars": {**PASSIVE, **_QUIET}}}
    trainer = TorchTrainer(
        worker,
        train_loop_config={"spec": spec.to_json(), "job_dir": str(job_dir), "claim": asdict(claim)},
        torch_config=TorchConfig(backend="nccl" if spec.gpus_per_worker > 0 else "gloo", timeout_s=_GROUP_TIMEOUT_S),
        scaling_config=ScalingConfig(
            num_workers=spec.num_workers, use_gpu=spec.gpus_per_worker > 0, resources_per_worker=_resources(spec)
        ),
        run_config=RunConfig(
            name="run",
            storage_path=str(JobFolder(job_dir).ray_train),
            failure_config=FailureConfig(max_failures=RESTARTS),
            **run,
        ),
    )
    try:
        result: Any = trainer.fit()
    except ray.train.ControllerError as error:
        raise error.controller_failure from error
    except ray.train.TrainingFailedError as error:
        logger.exception("the workers failed")
        raise TrainingError(f"the training workers failed {RESTARTS + 1} times: {_cause(error)}") from error
    outcome = result.return_value
    if "lost" in outcome:
        raise OwnershipLostError(outcome["lost"])
    if "failed" in outcome:
        raise TrainingError(outcome["failed"])
    return Path(outcome["folder"])


def _resources(spec: TrainingSpec) -> dict[str, float]:
    resources = {"CPU": spec.cpus_per_worker}
    return resources | {"GPU": spec.gpus_per_worker} if spec.gpus_per_worker > 0 else resources


def _worker(config: dict[str, Any]) -> dict[str, str]:
    """Runs on every worker. Returns errors that another attempt cannot cure, and raises the others."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # without a package for kernels it warns, and works
    os.umask(0o077)  # on nodes that were started without it, too
    os.nice(_NICENESS)  # where serving and training share a core, serving goes first
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    job_dir = Path(config["job_dir"])
    if world_size == 1:
        _leave_group()
    ownership = Ownership(job_dir, Claim(**config["claim"]))
    try:
        ownership.check(at_once=True)
    except OwnershipLostError as error:
        return {"lost": error.reason}
    fatal = JobFolder(job_dir).worker_failure_file
    if fatal.is_file():
        return {"failed": fatal.read_text(encoding="utf-8")}
    reporter = Reporter(JobFolder(job_dir).updates_file if rank == 0 else None, ownership=ownership)
    try:
        with heartbeat(reporter):
            from training.job_run import train  # takes seconds, in which the job is under way already

            folder = train(
                TrainingSpec.from_json(config["spec"]),
                job_dir,
                reporter,
                rank=rank,
                world_size=world_size,
                gpu=get_device().index or 0,
                on_checkpoint=lambda step, loss: ray.train.report({"step": step, "loss": loss}),
            )
    except Exception as error:
        outcome = _outcome(error, job_dir, ownership, is_first=rank == 0)
        if world_size == 1:
            return outcome
        # The others may wait for this worker, so all must stop; and where one is lost, they fail, too.
        if "failed" in outcome and isinstance(error, ServiceError):
            fatal.write_text(outcome["failed"], encoding="utf-8")
        raise
    return {"folder": str(folder)}


def _outcome(error: Exception, job_dir: Path, ownership: Ownership, *, is_first: bool) -> dict[str, str]:
    """The outcome of a training that raised; a job that is no longer its own is left alone."""
    try:
        if isinstance(error, OwnershipLostError):
            raise error
        logger.error("the training failed", exc_info=error)
        ownership.check(at_once=True)  # the job's new owner may have caused the failure
    except OwnershipLostError as lost:
        logger.warning("%s", lost)
        return {"lost": lost.reason}
    if is_first:
        from training.trainer.checkpoints import remove_incomplete

        remove_incomplete(JobFolder(job_dir).checkpoints)  # on a full disk the report of the failure needs the room
    return {"failed": reason_of(error)}


def _leave_group() -> None:
    """Leaves the process group: even in a group of one worker every gradient has a second copy to exchange."""
    distributed.destroy_process_group()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK"):
        os.environ.pop(name, None)  # accelerate would make a new group


def _cause(error: BaseException) -> str:
    """The first worker's error in one line."""
    failures: Any = getattr(error, "worker_failures", None) or {}
    first = next(iter(failures.values()), error)
    return reason_of(getattr(first, "cause", None) or first)
