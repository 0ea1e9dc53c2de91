"""Markdown tables of a benchmark: scores by suite and over all problems, and failed runs."""

from __future__ import annotations

import html
import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_placement.benchmarks.config import ScoresConfig
from device_placement.benchmarks.report.scores import (
    Scores,
    check_rliable,
    interquartile_means,
    median,
    probabilities_of_improvement,
)
from device_placement.benchmarks.suite.algorithms import sees_costs
from device_placement.benchmarks.suite.folder import read_folders
from device_placement.benchmarks.suite.results import ProblemKey, RunRow
from device_placement.benchmarks.suite.suites import MEASURED, SUITES
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.failures import MAX_CAUSES
from device_placement.envs.files import replaced
from device_placement.envs.rendering.text import count

BEST_SINGLE = "best single"
BASELINE = "random"
NEAR = 0.05, 0.01
EARLY = 0.25  # share of the budget after which gaps are shown as well
SEES_COSTS = "‡"
NOTE = f"""\
Efficiency: the optimum's time over that of the placement, as interquartile mean over problems and
seeds with its 95 % interval (stratified bootstrap; rliable). Better than random: the probability
that a run is. Evaluations: until the gap is reached, on the median problem, and on how many
problems more than half of the runs reach it; `-` if they do on half of them or fewer.
Seconds: of a run on the median problem. {SEES_COSTS}: sees the costs of groups and transfers."""


def report(rows: Sequence[RunRow]) -> str:
    """Return the tables of all suites, and the failed runs, as Markdown."""
    scores = Scores(rows)
    parts = []
    for suite in dict.fromkeys(row.suite for row in rows):
        parts += [f"### {suite_title(suite)}", *(t.markdown() for t in suite_tables(scores, suite))]
    parts.append(NOTE)
    for title, lines in failure_lists(rows).items():
        parts.append(f"{title}:\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def suite_title(suite: str) -> str:
    """Return the name and the summary of a suite."""
    return f"{suite}: {SUITES[suite].summary}" if suite in SUITES else suite


def suite_tables(scores: Scores, suite: str) -> list[Table]:
    """Return tables of problems at the end and, if simulated, early, and of all together."""
    tables = [suite_table(scores, suite)]
    if not _measured(scores.rows, suite):
        budget = max(row.budget for row in scores.rows if row.suite == suite)
        tables.append(suite_table(scores, suite, round(EARLY * budget)))
    return [*tables, summary_table(scores, [suite])]


def suite_table(scores: Scores, suite: str, evaluations: float = math.inf) -> Table:
    """Return gaps in percent, or speed-ups, by placer and problem: medians and quartiles.

    Args:
        scores: of all suites.
        suite: its name. A simulated suite has gaps to the optimum or, marked by a dagger, to the
            bound or best known; a measured one has speed-ups over the best single. Placers that
            see costs are marked, too.
        evaluations: after which the gaps are shown; by default at the end.
    """
    problems = [one for one in scores.problems if one[0] == suite]
    measured = _measured(scores.rows, suite)
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
        lines.append([marked(placer), *cells])
    return Table(heads, lines)


def marked(placer: str) -> str:
    """Return a placer's name as code, marked if it sees costs.

    >>> marked("random"), marked("cp_sat")
    ('`random`', '`cp_sat` ‡')
    """
    return f"`{placer}` {SEES_COSTS}" if sees_costs(placer) else f"`{placer}`"


def summary_table(scores: Scores, suites: Sequence[str]) -> Table:
    """Return one row per placer over all problems of some suites."""
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
        cells = [marked(placer), interval_cell(*means[placer])]
        cells.append(interval_cell(*better[placer]) if placer in better else NOTHING)
        cells += [_evaluations(scores, problems, placer, gap) for gap in NEAR]
        cells.append(number_cell(median([scores.wall_s(one, placer) for one in problems])))
        lines.append(cells)
    return Table(heads, lines)


def failures(rows: Sequence[RunRow]) -> list[str]:
    """Return the failed runs and their reasons, one line of Markdown each."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.failure:
            reasons.setdefault((row.placer, row.failure), []).append(row.problem)
    return [
        f"- `{placer}` ({count(len(where), 'run')}; {', '.join(dict.fromkeys(where))}): {reason}"
        for (placer, reason), where in reasons.items()
    ]


def invalid_placements(rows: Sequence[RunRow]) -> list[str]:
    """Return how many placements failed on each problem and why, one line of Markdown each."""
    causes: dict[ProblemKey, Counter[str]] = {}
    totals: Counter[ProblemKey] = Counter()
    for row in rows:
        key = row.suite, row.problem
        totals[key] += row.evaluations
        if row.invalid:
            causes.setdefault(key, Counter()).update(row.invalid)
    return [
        f"- {key[1]} ({number} of {totals[key]} placements): {cause}"
        for key, found in causes.items()
        for cause, number in found.most_common(MAX_CAUSES)
    ]


def failure_lists(rows: Sequence[RunRow]) -> dict[str, list[str]]:
    """Return the lists of failed runs and of failed placements by title; no empty ones."""
    lists = {"Failed": failures(rows), "Placements that failed": invalid_placements(rows)}
    return {title: lines for title, lines in lists.items() if lines}


def _measured(rows: Sequence[RunRow], suite: str) -> bool:
    """Return whether a suite is measured; of one's own, the rows tell."""
    if suite in SUITES:
        return any(one.evaluator == MEASURED for one in SUITES[suite].problems.values())
    return any(row.measured for row in rows if row.suite == suite)


def _evaluations(scores: Scores, problems: Sequence[ProblemKey], placer: str, gap: float) -> str:
    each = [scores.evaluations_within(problem, placer, gap) for problem in problems]
    near = sum(math.isfinite(one) for one in each)
    return f"{number_cell(median(each), '.0f')} ({near} of {len(each)})"


def show_scores(config: ScoresConfig) -> int:
    """Print the tables of the runs in some folders."""
    check_rliable()
    rows = read_folders(config.folders, replayed=bool(config.readme))
    print(report(rows))
    if config.readme:
        found = dict.fromkeys(row.suite for row in rows)
        suites = [one for one in found if not _measured(rows, one)]
        path = Path(config.readme)
        text = with_table(path.read_text(encoding="utf-8"), compact_table(Scores(rows), suites))
        with replaced(path) as draft:
            draft.write_text(text, encoding="utf-8")
    return 0


NOTHING = "-"  # in a cell


@dataclass(frozen=True)
class Table:
    """Table of text cells.

    >>> print(Table(["a", "b"], [["1", "`2`"]]).markdown())
    | a | b |
    | --- | --- |
    | 1 | `2` |
    """

    heads: Sequence[str]
    lines: Sequence[Sequence[str]]
    caption: str = ""

    def markdown(self) -> str:
        """Return the table as Markdown, with the caption as a paragraph above."""
        rows = [self.heads, ["---"] * len(self.heads), *self.lines]
        text = "\n".join("| " + " | ".join(map(_in_a_cell, row)) + " |" for row in rows)
        return f"{self.caption}\n\n{text}" if self.caption else text

    def html(self) -> str:
        """Return the table as HTML."""
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        head = "".join(f"<th>{inline(one)}</th>" for one in self.heads)
        body = "".join(
            "<tr>" + "".join(f"<td>{inline(cell)}</td>" for cell in line) + "</tr>"
            for line in self.lines
        )
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _in_a_cell(text: str) -> str:
    return text.replace("|", r"\|")  # names of files may have one


def number_cell(number: float, form: str = ".1f") -> str:
    """Format a number, if there is one.

    >>> number_cell(2.345), number_cell(float("nan"))
    ('2.3', '-')
    """
    return format(number, form) if math.isfinite(number) else NOTHING


def percent_cell(share: float) -> str:
    """Format a share in percent; negative ones, from rounding, become zero.

    >>> percent_cell(0.0123), percent_cell(-1e-12)
    ('1.2', '0.0')
    """
    return number_cell(100 * max(0.0, share)) if math.isfinite(share) else NOTHING


def interval_cell(value: float, low: float, high: float, form: str = ".3f") -> str:
    """Format a number and its interval.

    >>> interval_cell(0.912, 0.9, 0.92)
    '0.912 (0.900-0.920)'
    """
    return f"{value:{form}} ({low:{form}}-{high:{form}})" if math.isfinite(value) else NOTHING


def quartiles_cell(numbers: Sequence[float], form: str = ".3f") -> str:
    """Format the median and the quartiles.

    >>> quartiles_cell([1.0, 2.0, 4.0]), quartiles_cell([])
    ('2.000 (1.500-3.000)', '-')
    """
    if not numbers or not np.isfinite(numbers).all():
        return NOTHING
    low, high = np.quantile(numbers, [0.25, 0.75])
    return interval_cell(statistics.median(numbers), low, high, form)


def gap_cell(gaps: Sequence[float]) -> str:
    """Format the median and, if they differ, the quartiles, in percent.

    >>> gap_cell([0.01, 0.02, 0.04]), gap_cell([0.5]), gap_cell([])
    ('2.0 (1.5-3.0)', '50.0', '-')
    """
    if not gaps or not np.isfinite(gaps).all():
        return NOTHING
    percents = [100 * max(0.0, gap) for gap in gaps]
    differ = np.ptp(np.quantile(percents, [0.25, 0.75])) > 0.05
    return quartiles_cell(percents, ".1f") if differ else number_cell(statistics.median(percents))


def failed_note(number: int) -> str:
    """Return the note that follows in a cell when some runs failed.

    >>> failed_note(0), failed_note(2)
    ('', ', 2 failed')
    """
    return f", {number} failed" if number else ""


def inline(text: str) -> str:
    """Return text as HTML: escaped, with backticks as code.

    >>> inline("`a` < b")
    '<code>a</code> &lt; b'
    """
    parts = html.escape(text).split("`")
    return "".join(f"<code>{part}</code>" if odd % 2 else part for odd, part in enumerate(parts))


SINGLE = "single"  # the placer, which finds the best single
BEGIN, END = "<!-- scores -->", "<!-- /scores -->"


def compact_table(scores: Scores, suites: Sequence[str]) -> Table:
    """Return median gaps in percent by placer and problem.

    †: the optimum is not known. ‡: the placer sees costs.

    Placers that found nothing valid anywhere are left out; `report` shows why.
    """
    problems = [one for one in scores.problems if one[0] in suites]
    heads = ["", *(name + ("" if scores.proven((s, name)) else " †") for s, name in problems)]
    lines = [["best single", *(percent_cell(scores.single_gap(one)) for one in problems)]]
    for placer in scores.placers:
        gaps = {one: median(scores.gaps(one, placer)) for one in problems}
        if placer == SINGLE or all(map(math.isnan, gaps.values())):
            continue
        cells = [
            percent_cell(gap) + failed_note(scores.num_failed(one, placer))
            for one, gap in gaps.items()
        ]
        lines.append([marked(placer), *cells])
    return Table(heads, lines)


def with_table(text: str, table: Table) -> str:
    """Return a text with the table between its two marks.

    Raises:
        DevicePlacementError: when it lacks them.
    """
    pattern = re.compile(f"{BEGIN}\n.*?{END}", flags=re.DOTALL)
    if not pattern.search(text):
        raise DevicePlacementError(f"There is no {BEGIN} followed by {END} in the text; add them.")
    return pattern.sub(lambda _: f"{BEGIN}\n{table.markdown()}\n{END}", text)
