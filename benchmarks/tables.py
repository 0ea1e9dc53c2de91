"""Scores as Markdown: a table a suite, and what came of all its problems together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from device_placement.benchmarks.aggregates import (
    check_rliable,
    interquartile_means,
    probabilities_of_improvement,
)
from device_placement.benchmarks.folders import read_folders
from device_placement.benchmarks.markup import (
    NOTHING,
    Table,
    failed_note,
    gap_cell,
    interval_cell,
    number_cell,
    percent_cell,
    quartiles_cell,
)
from device_placement.benchmarks.readme import compact_table, with_table
from device_placement.benchmarks.records import ProblemKey, RunRow
from device_placement.benchmarks.scores import Scores, median
from device_placement.benchmarks.suites import MEASURED, SUITES
from device_placement.envs.files import replaced
from device_placement.envs.rendering import count

BEST_SINGLE = "best single"
BASELINE = "random"
NEAR = 0.05, 0.01
EARLY = 0.25  # share of the budget after which gaps are shown as well
NOTE = """\
Efficiency: the optimum's time over that of the placement, as interquartile mean over problems and
seeds with its 95 % interval (stratified bootstrap; rliable). Better than random: the probability
that a run is. Evaluations: until the gap is so small, on the median problem, and on how many
problems more than half of the runs get there; `-` where they do on half of them or fewer.
Seconds: of a run on the median problem."""


def report(rows: Sequence[RunRow]) -> str:
    """All suites, one after the other, and what failed, as Markdown."""
    scores = Scores(rows)
    parts = []
    for suite in dict.fromkeys(row.suite for row in rows):
        parts += [f"### {suite_title(suite)}", *(t.markdown() for t in suite_tables(scores, suite))]
    failed = failures(rows)
    return "\n\n".join([*parts, NOTE, *(["Failed:\n\n" + "\n".join(failed)] if failed else [])])


def suite_title(suite: str) -> str:
    """The name of a suite, and what it is."""
    return f"{suite}: {SUITES[suite].summary}" if suite in SUITES else suite


def suite_tables(scores: Scores, suite: str) -> list[Table]:
    """Every problem at the end and, where it is simulated, early; all problems together."""
    tables = [suite_table(scores, suite)]
    if not _measured(suite):
        budget = max(row.budget for row in scores.rows if row.suite == suite)
        tables.append(suite_table(scores, suite, round(EARLY * budget)))
    return [*tables, summary_table(scores, [suite])]


def suite_table(scores: Scores, suite: str, evaluations: float = math.inf) -> Table:
    """A row a placer, a column a problem: gaps in percent, or speed-ups; medians and quartiles.

    Args:
        scores: of all suites.
        suite: which one. One that is simulated shows gaps to the optimum or, marked by a dagger,
            to the bound or best known; one that is measured speed-ups over the best single.
        evaluations: after which the gaps are shown; by default at the end.
    """
    problems = [one for one in scores.problems if one[0] == suite]
    measured = _measured(suite)
    heads = ["speed-up over the best single" if measured else "gap in %"]
    if math.isfinite(evaluations):
        heads = [f"gap in % after {evaluations:.0f}"]
    heads += [
        name + ("" if measured or scores.proven((suite, name)) else " †") for _, name in problems
    ]
    singles = ["1.000"] * len(problems)
    if not measured:
        singles = [percent_cell(scores.single_gap(one)) for one in problems]
    lines = [[BEST_SINGLE, *singles]]
    present = {row.placer for row in scores.rows if row.suite == suite}
    for placer in (one for one in scores.placers if one in present):
        cells = [
            (
                quartiles_cell(scores.speedups(one, placer))
                if measured
                else gap_cell(scores.gaps(one, placer, evaluations))
            )
            + failed_note(scores.num_failed(one, placer))
            for one in problems
        ]
        lines.append([f"`{placer}`", *cells])
    return Table(heads, lines)


def summary_table(scores: Scores, suites: Sequence[str]) -> Table:
    """A row a placer: all problems of some suites together."""
    problems = [one for one in scores.problems if one[0] in suites]
    efficiencies = scores.efficiencies(suites)
    means = interquartile_means(efficiencies)
    better = (
        probabilities_of_improvement(efficiencies, BASELINE) if BASELINE in efficiencies else {}
    )
    heads = ["", "efficiency", "better than random"]
    heads += [f"evaluations to {100 * gap:g} %" for gap in NEAR] + ["seconds"]
    lines = []
    for placer in sorted(means, key=lambda name: -means[name].value):
        cells = [f"`{placer}`", interval_cell(*means[placer])]
        cells.append(interval_cell(*better[placer]) if placer in better else NOTHING)
        cells += [_evaluations(scores, problems, placer, gap) for gap in NEAR]
        cells.append(number_cell(median([scores.wall_s(one, placer) for one in problems])))
        lines.append(cells)
    return Table(heads, lines)


def failures(rows: Sequence[RunRow]) -> list[str]:
    """What failed and why, a line of Markdown each; nothing when nothing did."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.failure:
            reasons.setdefault((row.placer, row.failure), []).append(row.problem)
    return [
        f"- `{placer}` ({count(len(where), 'run')}; {', '.join(dict.fromkeys(where))}): {reason}"
        for (placer, reason), where in reasons.items()
    ]


def _measured(suite: str) -> bool:
    problems = SUITES[suite].problems.values() if suite in SUITES else ()
    return any(one.evaluator == MEASURED for one in problems)


def _evaluations(scores: Scores, problems: Sequence[ProblemKey], placer: str, gap: float) -> str:
    each = [scores.evaluations_within(problem, placer, gap) for problem in problems]
    near = sum(math.isfinite(one) for one in each)
    return f"{number_cell(median(each), '.0f')} ({near} of {len(each)})"


@dataclass(frozen=True)
class ScoresConfig:
    """What to show."""

    folders: tyro.conf.Positional[tuple[str, ...]]
    """Folders of benchmarks."""
    readme: str = ""
    """Markdown file to write a small table of the simulated suites into, between its marks; only of
    what was replayed."""


def show_scores(config: ScoresConfig) -> int:
    """Print the tables of the runs in some folders."""
    check_rliable()
    rows = read_folders(config.folders, replayed=bool(config.readme))
    print(report(rows))
    if config.readme:
        suites = [one for one in dict.fromkeys(row.suite for row in rows) if not _measured(one)]
        path = Path(config.readme)
        text = with_table(path.read_text(encoding="utf-8"), compact_table(Scores(rows), suites))
        with replaced(path) as draft:
            draft.write_text(text, encoding="utf-8")
    return 0
