"""``python -m training JOB_DIR``: runs one fine-tune, or resumes one that was interrupted.

``python -m training submit PAIRS --model-name NAME`` is the client of a running service (``training.submit``).

The last line of ``JOB_DIR/training.jsonl`` is ``done`` or ``failed``. A file without either belongs to a process that
died, or lost its cluster or its job; such a job has not ended. The exit code is 0 or 1.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.training_spec import CLUSTER_VARIABLE, TrainingSpec
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
            logger.exception("the cluster is lost; the job may be restarted")
            return 1
        logger.exception("the job failed")
        try:
            reporter.failed(reason_of(error))
        except (OSError, OwnershipLostError):  # no room for this line either: the job counts as lost
            logger.exception("the failure could not be reported")
        return 1
    return 0


def run(job_dir: Path, reporter: Reporter, claim: Claim | None = None) -> None:
    """Trains and publishes, unless an earlier attempt has published.

    Raises:
        TrainingError: The job cannot succeed.
        OwnershipLostError: Another service trains it.
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
        raise TrainingError(f"the job's spec.json cannot be read: {error}") from error


def _start_ray() -> None:
    """Joins the cluster that started the job; outside of one, starts Ray on this machine alone.

    An actor of Ray Train asks the cluster's API for the state of the training's controller, and stops the workers if
    the API does not know it. By default it finds any API on the machine, which may belong to another cluster, so its
    address is set here. Without a cluster there is no API: port 9 does not answer, and the actor does nothing.
    """
    import ray

    address = os.environ.get(CLUSTER_VARIABLE) or os.environ.get("RAY_ADDRESS")
    if address:
        os.environ["RAY_ADDRESS"] = address  # for other code of this process that looks for the cluster
    ask = {"RAY_ADDRESS": address} if address else {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}
    ray.init(address=address or "local", include_dashboard=None if address else False, runtime_env={"env_vars": ask})


def _log_to(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT)
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter(_LOG_FORMAT))
    logging.getLogger().addHandler(file)


if __name__ == "__main__":
    os.umask(0o077)  # files of a training, the published model included, are private to its user
    sys.exit(main(sys.argv[1:]))
