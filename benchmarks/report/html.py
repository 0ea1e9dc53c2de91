"""Command `report`: write a benchmark as one HTML file that needs no network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device_placement.agents.runs.folder_lock import check_links
from device_placement.benchmarks.config import ReportConfig
from device_placement.benchmarks.report.figures import (
    draw_curves,
    draw_placement,
    draw_profile,
    draw_run_timeline,
    shown_placers,
)
from device_placement.benchmarks.report.scores import Scores, check_rliable, interquartile_means
from device_placement.benchmarks.report.tables import (
    NOTE,
    failure_lists,
    inline,
    suite_tables,
    suite_title,
)
from device_placement.benchmarks.suite.folder import read_problems, read_sessions
from device_placement.benchmarks.suite.results import ROWS, ProblemKey, RunRow, latest, read_rows
from device_placement.benchmarks.suite.suites import SIMULATED, Problem
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.files import replaced
from device_placement.envs.rendering.style import new_figure
from device_placement.envs.rendering.text import count

DPI = 90
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 84em; padding: 0 1em; }
table { border-collapse: collapse; display: block; margin: 1em 0; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: .25em .6em; text-align: right; }
th:first-child, td:first-child { text-align: left; }
td { white-space: nowrap; }
img { height: auto; max-width: 100%; }
caption { text-align: left; }
pre { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
"""


def report(config: ReportConfig) -> int:
    """Write the report, and return the exit status."""
    check_rliable()
    folder = Path(config.folder)
    rows = latest(read_rows(str(folder / ROWS)))
    if not rows:
        raise DevicePlacementError(
            f"There are no runs in {config.folder!r}; give the --out of a benchmark."
        )
    path = Path(config.out or folder / "report.html")
    if not config.out:
        check_links(folder)
    with replaced(path) as draft:
        draft.write_text(page(folder, rows), encoding="utf-8")
    print(f"Open {path} in a browser; it needs no network.")
    return 0


def page(folder: Path, rows: Sequence[RunRow]) -> str:
    """Return the whole page."""
    scores, problems = Scores(rows), read_problems(folder)
    parts = [
        f"<h1>Benchmark {html.escape(folder.name)}</h1>",
        f'<p>{count(len(rows), "run")}. <a href="#made">How they were made.</a></p>',
    ]
    for suite in dict.fromkeys(row.suite for row in rows):
        parts.append(f"<h2>{html.escape(suite_title(suite))}</h2>")
        parts += [table.html() for table in suite_tables(scores, suite)]
        parts.append(f"<p>{inline(NOTE)}</p>")
        means = interquartile_means(scores.efficiencies([suite]))
        placers = shown_placers(means)
        if placers:
            parts.append(_image(draw_profile(scores, [suite], placers), "performance profile"))
        for problem in (one for one in scores.problems if one[0] == suite):
            parts.append(f"<h3>{html.escape(problem[1])}</h3>")
            parts.append(_image(draw_curves(scores, problem, placers), "best so far"))
            winner = _winner(scores, problem)
            if winner is not None and problem in problems:
                parts += _placement(winner, problems[problem])
    for title, lines in failure_lists(rows).items():
        parts.append(f"<h2>{title}</h2><ul>")
        parts += [f"<li>{inline(line.removeprefix('- '))}</li>" for line in lines]
        parts.append("</ul>")
    parts += ['<h2 id="made">How the runs were made</h2>', *_sessions(folder)]
    body = "\n".join(parts)
    title = html.escape(folder.name)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _sessions(folder: Path) -> list[str]:
    """Return command, start, revision and machine of each call."""
    parts = []
    for session in read_sessions(folder):
        machine = ", ".join(f"{name} {value}" for name, value in session["machine"].items())
        text = f"Started {session['started']}, revision {session.get('revision')}; {machine}."
        command = html.escape(str(session.get("command")))
        parts.append(f"<pre>{command}</pre>\n<p>{html.escape(text)}</p>")
    return parts


def _winner(scores: Scores, problem: ProblemKey) -> RunRow | None:
    """Return the fastest run with a placement."""
    rows = [row for name in scores.placers for row in scores.of(problem, name) if row.assignment]
    return min(rows, key=lambda row: row.time_s, default=None)


def _placement(winner: RunRow, definition: Problem) -> list[str]:
    text = (
        f"The fastest, by {winner.placer} (seed {winner.seed}): {1e3 * winner.time_s:.4g} ms, "
        f"{winner.speedup:.3f} times as fast as {winner.single.removeprefix('all on ')} alone."
    )
    parts = [f"<p>{html.escape(text)}</p>"]
    try:
        parts.append(_picture(draw_placement(definition, winner)))
        if definition.evaluator == SIMULATED:
            parts.append(_image(draw_run_timeline(definition, winner), "timeline"))
    except DevicePlacementError as error:  # e.g. devices or files are missing here
        parts.append(f"<p>It can't be drawn here: {html.escape(str(error))}</p>")
    return parts


def _picture(pixels: Any) -> str:
    height, width, _ = pixels.shape
    figure = new_figure(width / DPI, height / DPI)
    figure.set_layout_engine("none")
    figure.figimage(pixels)
    return _image(figure, "the placement")


def _image(figure: Any, what: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    content = base64.b64encode(buffer.getvalue()).decode()
    return f'<p><img alt="{what}" src="data:image/png;base64,{content}"></p>'
