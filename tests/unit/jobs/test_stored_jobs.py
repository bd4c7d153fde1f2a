"""The files of a job folder keep their form: one that an earlier version wrote is read, continued and written alike."""

from __future__ import annotations

import shutil
from pathlib import Path

from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.job_record import JobRecord, JobStatus
from serve_app.jobs.training_spec import TrainingSpec
from tests.unit.jobs.fake_cluster import DONE, World

ID = "0b8f6c1e-7d0a-4a52-9c56-1f3f6f0f2f11"
STORED = Path(__file__).parents[2] / "data" / "job_folder"


def test_records_and_specs_are_written_with_the_keys_that_they_were_read_with() -> None:
    record = (STORED / ID / "job.json").read_text()
    assert JobRecord.from_json(record).to_json() == record
    assert (JobRecord.from_json(record).failed_attempts, JobRecord.from_json(record).last_heartbeat_at) == (1, 1.0)
    spec = (STORED / ID / "spec.json").read_text()
    assert TrainingSpec.from_json(spec).to_json() == spec


async def test_a_job_that_an_earlier_version_started_is_continued(tmp_path: Path) -> None:
    world = World(tmp_path)
    shutil.copytree(STORED / ID, world.root / ID)
    record = await world.reconcile(ID)
    assert (record.attempts, record.failed_attempts, record.interruptions) == (3, 1, 1)
    assert [event.message for event in await world.jobs.events(ID)][6:] == [
        "starts again, attempt 2",
        "training on cpu, from step 10",
        "the cluster was restarted; training will resume from step 10",
        "restarting (attempt 3)",
    ]
    assert "printed by" in await world.jobs.logs(ID)
    world.report(DONE, job_id=ID)
    assert (await world.reconcile(ID)).status is JobStatus.COMPLETED
    assert JobFolder(world.root / ID).read_record() == await world.jobs.get(ID)
