"""The loss curve of a training: one SVG file, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from serve_app.domain.files import replace_file
from serve_app.jobs.job_folder import JobFolder
from serve_app.jobs.job_folder_readers import read_all_updates
from serve_app.jobs.job_updates import UpdateType

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 32, 48  # margins
POINTS = 500  # more cannot be distinguished at this width

_STYLE = (
    "svg{color:#24292f;background:#fff}.line{stroke:#0969da}"
    "@media(prefers-color-scheme:dark){svg{color:#d0d7de;background:#161b22}.line{stroke:#58a6ff}}"
    "text{font:12px sans-serif;fill:currentColor}.grid{stroke:currentColor;opacity:.2}"
)


def draw_loss(job_dir: Path, title: str) -> None:
    """Writes ``loss.svg`` from the progress lines of ``training.jsonl``; nothing if there are none yet."""
    points = {
        step: loss
        for update in read_all_updates(JobFolder(job_dir))
        if update.type is UpdateType.PROGRESS
        and (step := update.count("step")) is not None
        and (loss := update.number("loss")) is not None
    }  # a resumed job takes steps again: the last one counts
    if points:
        # a reader sees the old picture or the new one
        replace_file(
            JobFolder(job_dir).loss_curve_file, loss_svg(sorted(points.items()), title).encode(), durable=False
        )


def loss_svg(points: Sequence[tuple[int, float]], title: str) -> str:
    """The SVG text of a loss curve.

    Args:
        points: Steps in rising order, and their finite losses; at least one.
        title: Above the curve.
    """
    points = [points[i * len(points) // POINTS] for i in range(POINTS)] if len(points) > POINTS else points
    last = max(points[-1][0], 1)
    ceiling = _round_up(max(loss for _, loss in points))

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(loss: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * loss / ceiling

    grid = []
    for part in range(5):
        loss, step = ceiling * part / 4, last * part / 4
        grid.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(loss):.1f}" y2="{y(loss):.1f}"/>')
        grid.append(f'<text x="{LEFT - 8}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.3g}</text>')
        grid.append(f'<text x="{x(step):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{round(step)}</text>')
    curve = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in points)
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f"<style>{_STYLE}</style>",
            f'<text x="{LEFT}" y="20" font-weight="bold">{_escape(title)}</text>',
            *grid,
            f'<polyline class="line" fill="none" stroke-width="1.5" points="{curve}"/>',
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">step</text>',
            f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">loss</text>',
            "</svg>\n",
        ]
    )


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten; 1 for zero."""
    if value <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if value <= step * power * (1 + 1e-9))


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
