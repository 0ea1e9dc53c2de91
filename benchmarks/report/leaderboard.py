"""Leaderboard: a ranking per suite of the algorithms whose results are in some folders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from device_placement.benchmarks.report.scores import Estimate, Scores, interquartile_means, median
from device_placement.benchmarks.report.tables import (
    NEAR,
    Table,
    interval_cell,
    marked,
    number_cell,
    suite_title,
)
from device_placement.benchmarks.suite.folder import REPLAYS, read_folders
from device_placement.benchmarks.suite.results import ROWS, RunRow
from device_placement.benchmarks.suite.submission import RANKED, short_name, wrong_runs

REPETITIONS = 500  # of a bootstrap; the page is made often, and shows three digits
HEADS = ("rank", "algorithm", "efficiency", "evaluations to 5 %", "runs", "folder")


def leaderboard(results: Path) -> str:
    """Return the rankings of all simulated suites as Markdown.

    A run counts if it has been replayed and reproduces. An algorithm counts in a suite if it has
    all runs that the rules ask for.

    Args:
        results: folder with a folder per benchmark.
    """
    folders = sorted(path.parent for path in results.glob(f"*/{ROWS}"))
    entries: dict[str, list[tuple[RunRow, str]]] = {}
    for folder in folders:
        if (folder / REPLAYS).is_file():
            for row in read_folders([str(folder)], replayed=True):
                entries.setdefault(row.suite, []).append((row, folder.name))
    parts = []
    for suite in RANKED:
        if table := _ranking(suite, entries.get(suite, [])):
            parts += [f"### {suite_title(suite)}", table.markdown()]
    return "\n\n".join(parts)


def _ranking(suite: str, entries: Sequence[tuple[RunRow, str]]) -> Table | None:
    """Return the ranking of a suite; None if no algorithm has all its runs."""
    rows: list[RunRow] = []
    homes: dict[str, str] = {}
    for placer, home in dict.fromkeys((row.placer, home) for row, home in entries):
        own = [row for row, other in entries if (row.placer, other) == (placer, home)]
        if placer not in homes and not any(wrong_runs(own)):
            homes[placer] = home
            rows += own
    scores = Scores(rows)
    efficiencies = scores.efficiencies([suite])
    means: dict[str, Estimate] = {}
    if rows:
        means = interquartile_means(efficiencies, REPETITIONS)
    if not means:
        return None
    lines = []
    for rank, placer in enumerate(sorted(means, key=lambda name: -means[name].value), start=1):
        each = [scores.evaluations_within(one, placer, NEAR[0]) for one in scores.problems]
        near = sum(math.isfinite(one) for one in each)
        number = sum(row.placer == placer for row in rows)
        lines.append(
            [
                str(rank),
                marked(short_name(placer)),
                interval_cell(*means[placer]),
                f"{number_cell(median(each), '.0f')} ({near} of {len(each)})",
                str(number),
                f"`{homes[placer]}`",
            ]
        )
    return Table(HEADS, lines)
