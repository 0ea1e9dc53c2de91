"""Scores of searches: how far from the optimum they end, and how soon they come near it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

BEST_SINGLE = "best single"
NEVER = math.inf


@dataclass(frozen=True)
class Row:
    """One run of one search on one problem."""

    problem: str
    placer: str
    seed: int
    bound_s: float  # what it proved; NaN: nothing
    evaluations: int
    wall_s: float
    improvements: tuple[tuple[int, float], ...]  # number of the evaluation, seconds: new bests

    @property
    def time_s(self) -> float:
        """The best time; NaN where nothing was valid."""
        return self.after(self.evaluations)

    def after(self, evaluations: int) -> float:
        """The best time after so many evaluations; NaN when there was none yet."""
        times = [time_s for number, time_s in self.improvements if number <= evaluations]
        return times[-1] if times else math.nan

    def within(self, time_s: float) -> float:
        """The number of the first evaluation that is at most so slow; inf when none is."""
        return next((number for number, one_s in self.improvements if one_s <= time_s), NEVER)


def improvements_of(times_s: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """The new bests among times in order; NaN: not valid.

    >>> improvements_of([3.0, math.nan, 2.0, 2.5])
    ((1, 3.0), (3, 2.0))
    """
    found: list[tuple[int, float]] = []
    for number, time_s in enumerate(times_s, start=1):
        if not math.isnan(time_s) and (not found or time_s < found[-1][1]):
            found.append((number, time_s))
    return tuple(found)


@dataclass(frozen=True)
class Scores:
    """The scores of all rows, by problem.

    Args:
        rows: of all problems and searches.
    """

    rows: Sequence[Row]

    @property
    def problems(self) -> list[str]:
        """The problems, in the order of the rows."""
        return list(dict.fromkeys(row.problem for row in self.rows))

    @property
    def placers(self) -> list[str]:
        """The searches, in the order of the rows, the best single first."""
        names = dict.fromkeys(row.placer for row in self.rows if not is_single(row))
        return [BEST_SINGLE, *names]

    def of(self, problem: str, placer: str) -> list[Row]:
        """The runs of a search; of the best single one."""
        mine = [row for row in self.rows if row.problem == problem]
        if placer != BEST_SINGLE:
            return [row for row in mine if row.placer == placer]
        singles = [row for row in mine if is_single(row) and not math.isnan(row.time_s)]
        return sorted(singles, key=lambda row: row.time_s)[:1]

    def bound_s(self, problem: str) -> float:
        """The best bound that was proven; NaN where none was."""
        mine = [row.bound_s for row in self.rows if row.problem == problem]
        return float(np.nanmax(mine)) if not np.isnan(mine).all() else math.nan

    def best_known_s(self, problem: str) -> float:
        """The fastest placement that any search found."""
        return float(np.nanmin([row.time_s for row in self.rows if row.problem == problem]))

    def proven(self, problem: str) -> bool:
        """Whether the best known placement is proven to be the optimum."""
        return self.best_known_s(problem) <= self.bound_s(problem) * (1 + 1e-6)

    def gaps(self, problem: str, placer: str, evaluations: int) -> list[float]:
        """The gap of each run after so many evaluations, to the bound."""
        bound_s = self.bound_s(problem)
        return [row.after(evaluations) / bound_s - 1 for row in self.of(problem, placer)]

    def evaluations_within(self, problem: str, placer: str, gap: float) -> float:
        """The median number of evaluations until the gap is so small; inf: more than half fail."""
        near_s = self.bound_s(problem) * (1 + gap)
        return median([row.within(near_s) for row in self.of(problem, placer)])


def is_single(row: Row) -> bool:
    """Whether a row is of a single."""
    return row.placer.startswith("all on ")


def median(numbers: Sequence[float]) -> float:
    """The median; NaN of nothing, and of what has a NaN."""
    if not numbers or any(math.isnan(number) for number in numbers):
        return math.nan
    return statistics.median(numbers)


def gap_cell(gaps: Sequence[float]) -> str:
    """A median and the quartiles, in percent.

    >>> gap_cell([0.01, 0.02, 0.04]), gap_cell([0.5]), gap_cell([])
    ('2.0 (1.5-3.0)', '50.0', '-')
    """
    if math.isnan(median(gaps)):
        return "-"
    low, high = np.quantile(gaps, [0.25, 0.75])
    spread = f" ({100 * low:.1f}-{100 * high:.1f})" if len(gaps) > 1 and high - low > 5e-4 else ""
    return f"{100 * max(0.0, median(gaps)):.1f}{spread}"


def format_table(
    scores: Scores, cell: Callable[[str, str], str], notes: Mapping[str, str] | None = None
) -> str:
    """Markdown: a row a search, a column a problem.

    Args:
        scores: which searches and problems there are.
        cell: the text for a problem and a search.
        notes: what to add to the name of a problem.
    """
    heads = [one + (notes or {}).get(one, "") for one in scores.problems]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for placer in scores.placers:
        cells = [cell(problem, placer) for problem in scores.problems]
        lines.append(f"| {placer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
