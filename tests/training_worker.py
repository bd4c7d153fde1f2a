"""Workers that train jobs together without Ray, each a process: ``python -m tests.training_worker JOB_DIR...``.

A job that is to be killed behind a step says so in a file, and is trained again at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count, repeat
from pathlib import Path

import torch
from torch import distributed

import training.trainer.contrastive_trainer
import training.trainer.trainable_model
from serve_app.jobs.job_folder import JobFolder
from serve_app.launch.ports import free_port
from tests.service_process import ROOT
from training.job_run import train
from training.reporting import Reporter
from training.trainer.timed_checkpoints import TimedCheckpointCallback

DIES_AFTER = "dies_after"  # holds the step
_TIMEOUT_S = 240


class Killed(Exception):
    """Stands for the sudden death of all workers."""


@contextmanager
def workers(job_dirs: Sequence[Path], logs: Path, *, world_size: int = 2) -> Iterator[None]:
    """They train while the block runs, and have ended well behind it.

    Raises:
        AssertionError: They failed or took too long; what one of them printed is in the message.
    """
    common = {
        "WORLD_SIZE": f"{world_size}", "LOCAL_WORLD_SIZE": f"{world_size}", "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{free_port()}", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    processes = []
    for rank in range(world_size):
        env = {**os.environ, **common, "RANK": f"{rank}", "LOCAL_RANK": f"{rank}"}
        command = [sys.executable, "-m", "tests.training_worker", *map(str, job_dirs)]
        with (logs / f"worker-{rank}.log").open("wb") as out:
            processes.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT))
    try:
        yield
        deadline = time.monotonic() + _TIMEOUT_S
        while any(process.poll() is None for process in processes) and not any(p.returncode for p in processes):
            assert time.monotonic() < deadline, "the workers take too long"
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for rank, process in enumerate(processes):
        assert process.returncode == 0, (logs / f"worker-{rank}.log").read_text()[-4000:]


def take_part(job_dir: Path, *, rank: int = 0, world_size: int = 1, dies_after: int = 0) -> None:
    """One worker's share of a job."""

    def on_checkpoint(step: int, loss: float) -> None:
        if step == dies_after:
            raise Killed

    spec = JobFolder(job_dir).read_spec()
    reporter = Reporter(JobFolder(job_dir).updates_file if rank == 0 else None)
    train(spec, job_dir, reporter, rank=rank, world_size=world_size, on_checkpoint=on_checkpoint)


def main(job_dirs: Sequence[str]) -> None:
    """Trains the jobs one after the other."""
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group("gloo")
    training.trainer.trainable_model.choose_dtype = lambda *_: (
        torch.float32
    )  # as in the process that they are compared with
    for job_dir in map(Path, job_dirs):
        # a checkpoint is due behind the second step, by the clock of the first worker alone
        ticks = repeat(0.0) if rank else count(0.0, 50.0)
        training.trainer.contrastive_trainer.TimedCheckpointCallback = partial(
            TimedCheckpointCallback, clock=partial(next, ticks)
        )
        if (mark := job_dir / DIES_AFTER).is_file():
            try:
                take_part(job_dir, rank=rank, world_size=world_size, dies_after=int(mark.read_text()))
            except Killed:
                print("all workers are dead")
            else:
                raise AssertionError("there was no such checkpoint")
        take_part(job_dir, rank=rank, world_size=world_size)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
