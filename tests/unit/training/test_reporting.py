"""Lines for the tracker, and the picture of the loss."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from serve_app.jobs.job_folder import JobFolder
from tests.training_lines import read_lines
from training.loss_curve import POINTS, draw_loss, loss_svg
from training.reporting import Reporter

SVG = "{http://www.w3.org/2000/svg}"


def progress(reporter: Reporter, step: int, loss: float) -> None:
    reporter.progress(step=step, total_steps=9, epoch=0.5, loss=loss, learning_rate=1e-3, tokens_per_second=10.0,
                      seconds_left=1.0)  # fmt: skip


def curve_of(svg: str) -> list[tuple[float, float]]:
    line = ElementTree.fromstring(svg).find(f"{SVG}polyline")
    assert line is not None
    points = [point.split(",") for point in line.attrib["points"].split()]
    return [(float(x), float(y)) for x, y in points]


def test_every_line_is_json_with_time_and_type(tmp_path: Path) -> None:
    reporter = Reporter(JobFolder(tmp_path).updates_file, clock=lambda: 12.3456)
    reporter.started(total_steps=9, train_pairs=8, eval_pairs=2, device="cpu", dtype="float32", world_size=1,
                     resumed_step=0)  # fmt: skip
    progress(reporter, 1, 2.5)
    reporter.checkpoint(1)
    reporter.metrics("after", {"ndcg@10": 0.5})
    reporter.event("info", "ü")
    reporter.published(model_name="m", folder=tmp_path)
    reporter.failed("why")
    reporter.done()
    lines = [json.loads(line) for line in (JobFolder(tmp_path).updates_file).read_text(encoding="utf-8").splitlines()]
    assert {line["time"] for line in lines} == {12.346}
    types = ["started", "progress", "checkpoint", "metrics", "event", "published", "failed", "done"]
    assert [line["type"] for line in lines] == types
    assert lines[3] == {"time": 12.346, "type": "metrics", "when": "after", "ndcg@10": 0.5}
    assert read_lines(tmp_path) == lines


def test_a_half_line_of_a_dead_process_does_not_spoil_the_next(tmp_path: Path) -> None:
    (JobFolder(tmp_path).updates_file).write_text('{"time": 1, "type": "done"}\n{"time": 2, "ty')
    Reporter(JobFolder(tmp_path).updates_file).event("info", "alive")
    lines = read_lines(tmp_path)
    assert [line["type"] for line in lines] == ["done", "event"]


def test_all_workers_but_the_first_are_silent(tmp_path: Path) -> None:
    silent = Reporter(None)
    silent.done()
    assert not silent.enabled
    assert not list(tmp_path.iterdir())


def test_the_picture_shows_each_step_once_with_its_latest_loss(tmp_path: Path) -> None:
    reporter = Reporter(JobFolder(tmp_path).updates_file)
    for step, loss in [(1, 4.0), (2, 3.0), (3, 9.0), (2, 2.0), (3, 1.0)]:  # resumed behind step 1
        progress(reporter, step, loss)
    draw_loss(tmp_path, "a <b> & c")
    svg = (tmp_path / "loss.svg").read_text(encoding="utf-8")
    heights = [y for _, y in curve_of(svg)]
    assert len(heights) == 3
    assert heights == sorted(heights)  # falling loss: y grows downwards
    assert "a &lt;b&gt; &amp; c" in svg
    texts = [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert {"step", "loss", "0", "5"} <= set(texts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.svg", "training.jsonl"]


def test_nothing_is_drawn_before_the_first_step(tmp_path: Path) -> None:
    draw_loss(tmp_path, "title")
    assert not (tmp_path / "loss.svg").exists()


@pytest.mark.parametrize("points", [[(1, 0.0)], [(0, 1e-9)], [(1, 1e6), (2, 3.0)], [(i, 1.0 + i) for i in range(5000)]])
def test_any_curve_stays_inside_of_its_picture(points: list[tuple[int, float]]) -> None:
    curve = curve_of(loss_svg(points, "t"))
    assert len(curve) == min(len(points), POINTS)
    assert all(64 <= x <= 624 and 32 - 1e-6 <= y <= 272 for x, y in curve)
