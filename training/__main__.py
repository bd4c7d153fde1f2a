"""``python -m training JOB_DIR``: runs one fine-tune to its end, or goes on with one that was cut off.

``python -m training submit PAIRS --model-name NAME`` is the client of a running service (``training.submit``).

The last line of ``JOB_DIR/training.jsonl`` says how it ended, ``done`` or ``failed``; a file without either belongs to
a process that died, or that lost its cluster or its job: such a job is not over. The exit code is 0 or 1.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.training_spec import CLUSTER_VARIABLE, TrainingSpec
from serve_app.models.openmp import wait_passively
from training.ownership import Claim, Ownership
from training.publication import cleanup, published_by
from training.reporting import Reporter
from training.training_errors import OwnershipLostError, TrainingError, is_cut_off, reason_of

logger = logging.getLogger("training")

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def main(arguments: list[str]) -> int:
    """The exit code of the job in the folder that the only argument names, or of ``submit``."""
    if arguments[:1] == ["submit"]:
        from training.submit import main as submit

        return submit(arguments[1:])
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m training JOB_DIR\n       python -m training submit --help", file=sys.stderr)
        return 2
    job_dir = Path(arguments[0]).resolve()
    folder = JobFolder(job_dir)
    _log_to(folder.log_file("driver"))
    claim = Claim.of_environment()
    reporter = Reporter(folder.updates_file, ownership=Ownership(job_dir, claim))
    try:
        reporter.check_ownership()
        run(job_dir, reporter, claim)
        reporter.done()
    except OwnershipLostError as error:
        logger.warning("%s", error)
        return 1
    except Exception as error:
        if is_cut_off(error):
            logger.exception("the cluster is gone; whoever started the job may start it again")
            return 1
        logger.exception("the job failed")
        try:
            reporter.failed(reason_of(error))
        except (OSError, OwnershipLostError):  # no room for this line either: the job counts as one that died
            logger.exception("the failure could not be reported")
        return 1
    return 0


def run(job_dir: Path, reporter: Reporter, claim: Claim | None = None) -> None:
    """Publishes the job's result, unless an earlier run has done so.

    Raises:
        TrainingError: The job can not succeed.
        OwnershipLostError: Another service has it trained.
    """
    spec = _read_spec(job_dir)
    folder = published_by(spec)
    if folder is None:
        _start_ray()
        from training.trainer.ray_train import train_on_ray

        train_on_ray(spec, job_dir, claim or Claim())
    else:  # it died between the rename and the last line
        reporter.published(model_name=spec.model_name, folder=folder)
    reporter.check_ownership()  # the checkpoints may be another attempt's
    cleanup(spec, job_dir)


def _read_spec(job_dir: Path) -> TrainingSpec:
    try:
        return JobFolder(job_dir).read_spec()
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"the job's spec.json can not be read: {error}") from error


def _start_ray() -> None:
    """Joins the cluster that started the job; outside of one, has Ray on this machine alone.

    A helper actor of Ray Train asks the cluster's API whether the training's controller is still alive, and takes the
    workers away if it is not known. It looks for an API on the whole machine, and that of another cluster knows
    nothing of ours; so it is told where to ask. Alone there is no API: nobody answers on port 9, and it lets us be.
    """
    wait_passively()
    import ray

    address = os.environ.get(CLUSTER_VARIABLE) or os.environ.get("RAY_ADDRESS")
    if address:
        os.environ["RAY_ADDRESS"] = address  # whatever else in this process asks for the cluster
    ask = {"RAY_ADDRESS": address} if address else {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}
    ray.init(address=address or "local", include_dashboard=None if address else False, runtime_env={"env_vars": ask})


def _log_to(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT)
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter(_LOG_FORMAT))
    logging.getLogger().addHandler(file)


if __name__ == "__main__":
    os.umask(0o077)  # what a training writes is its user's alone, the published model included
    sys.exit(main(sys.argv[1:]))
