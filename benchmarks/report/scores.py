"""Scores of a benchmark: final gaps, speed of convergence, and aggregates with 95 % intervals."""

from __future__ import annotations

import importlib
import importlib.util
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from device_placement.benchmarks.suite.results import ProblemKey, RunRow
from device_placement.envs.arrays import Float64
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import NAN

PROVEN = 1e-6  # relative: largest distance of a proven optimum from the bound


@dataclass(frozen=True)
class Scores:
    """Scores of all runs; failed ones have none.

    Args:
        rows: of any suites and placers; each run once.
    """

    rows: Sequence[RunRow]

    @cached_property
    def problems(self) -> list[ProblemKey]:
        """Suite and name of each problem, in the order of the rows."""
        return list(dict.fromkeys((row.suite, row.problem) for row in self.rows))

    @cached_property
    def placers(self) -> list[str]:
        """The placers, in the order of the rows."""
        return list(dict.fromkeys(row.placer for row in self.rows))

    def of(self, problem: ProblemKey, placer: str) -> list[RunRow]:
        """Return the runs of a placer that have a result."""
        return [
            row for row in self._by_problem[problem] if row.placer == placer and not row.failure
        ]

    @cached_property
    def _by_problem(self) -> Mapping[ProblemKey, list[RunRow]]:
        found: dict[ProblemKey, list[RunRow]] = {problem: [] for problem in self.problems}
        for row in self.rows:
            found[row.suite, row.problem].append(row)
        return found

    def bound_s(self, problem: ProblemKey) -> float:
        """Return the best bound that any run proved; NaN if none did."""
        bounds = [row.bound_s for row in self._by_problem[problem] if not math.isnan(row.bound_s)]
        return max(bounds, default=NAN)

    def best_known_s(self, problem: ProblemKey) -> float:
        """Return the fastest time that any run found, singles included; NaN if there is none."""
        rows = self._by_problem[problem]
        times = [time_s for row in rows for time_s in (row.time_s, row.single_s)]
        return min((time_s for time_s in times if not math.isnan(time_s)), default=NAN)

    def proven(self, problem: ProblemKey) -> bool:
        """Return whether the best known placement is proven to be the optimum."""
        return self.best_known_s(problem) <= self.bound_s(problem) * (1 + PROVEN)

    def floor_s(self, problem: ProblemKey) -> float:
        """Return what gaps refer to: the bound, or the best known if nothing is proven."""
        bound_s = self.bound_s(problem)
        return self.best_known_s(problem) if math.isnan(bound_s) else bound_s

    def single_s(self, problem: ProblemKey) -> float:
        """Return the time of the best single; NaN if none is valid."""
        singles = [row.single_s for row in self._by_problem[problem]]
        return min((time_s for time_s in singles if not math.isnan(time_s)), default=NAN)

    def single_gap(self, problem: ProblemKey) -> float:
        """Return the gap of the best single; NaN if none is valid."""
        return self.single_s(problem) / self.floor_s(problem) - 1

    def num_failed(self, problem: ProblemKey, placer: str) -> int:
        """Return how many runs of a placer failed while others did not."""
        rows = [row for row in self._by_problem[problem] if row.placer == placer]
        failed = sum(bool(row.failure) for row in rows)
        return failed if failed < len(rows) else 0

    def gaps(self, problem: ProblemKey, placer: str, evaluations: float = math.inf) -> list[float]:
        """Return each run's gap after some evaluations; NaN if it had no result yet."""
        floor_s = self.floor_s(problem)
        return [row.after(evaluations) / floor_s - 1 for row in self.of(problem, placer)]

    def speedups(self, problem: ProblemKey, placer: str) -> list[float]:
        """Return the speed-up of each run over the best single that it saw."""
        return [row.speedup for row in self.of(problem, placer)]

    def evaluations_within(self, problem: ProblemKey, placer: str, gap: float) -> float:
        """Return the median number of evaluations to reach a gap; inf: half or more fail."""
        near_s = self.floor_s(problem) * (1 + gap)
        rows = [row for row in self._by_problem[problem] if row.placer == placer]
        return median([row.within(near_s) for row in rows])

    def wall_s(self, problem: ProblemKey, placer: str) -> float:
        """Return the median wall time of the runs that were not interrupted."""
        walls = [row.wall_s for row in self.of(problem, placer)]
        return median([wall_s for wall_s in walls if not math.isnan(wall_s)])

    def efficiencies(self, suites: Sequence[str]) -> dict[str, Float64]:
        """Return the share of the best speed that each run reaches: optimum over time, 0 to 1.

        Args:
            suites: whose problems count.

        Returns:
            (num_seeds, num_problems) of each placer that has a result of every problem. A failed
            run counts 0 if others did not fail.
        """
        problems = [
            one
            for one in self.problems
            if one[0] in suites and not math.isnan(self.floor_s(one))  # else no run found any
        ]
        matrices = {}
        for placer in self.placers:
            columns = []
            for problem in problems:
                rows = [row for row in self._by_problem[problem] if row.placer == placer]
                times = np.array([math.inf if row.failure else row.time_s for row in rows])
                columns.append(self.floor_s(problem) / times)
            if columns and len({len(one) for one in columns}) == 1 and all(map(np.any, columns)):
                matrices[placer] = np.stack(columns, axis=1)
        return matrices


def median(numbers: Sequence[float]) -> float:
    """Return the median; NaN if there are no numbers or any is NaN."""
    if not numbers or any(math.isnan(number) for number in numbers):
        return NAN
    return statistics.median(numbers)


REPETITIONS = 2000  # of a bootstrap


class Estimate(NamedTuple):
    """Number and its 95 % interval."""

    value: float
    low: float
    high: float


def interquartile_means(
    efficiencies: Mapping[str, Float64], repetitions: int = REPETITIONS
) -> dict[str, Estimate]:
    """Return interquartile means over seeds and problems, with stratified bootstrap intervals.

    Args:
        efficiencies: (num_seeds, num_problems) of each placer.
        repetitions: of the bootstrap.

    >>> interquartile_means({"one": np.array([[1.0, 0.5], [1.0, 0.5]])})["one"].value
    0.75
    """

    def mean(scores: Float64) -> Any:
        """Compute ``rliable.metrics.aggregate_iqm`` to the last bit, twenty times as fast."""
        cut = scores.size // 4
        middle = np.partition(scores.ravel(), (cut, scores.size - cut - 1))[cut : scores.size - cut]
        return middle.mean()

    return _estimate(efficiencies, mean, repetitions)


def probabilities_of_improvement(
    efficiencies: Mapping[str, Float64], over: str
) -> dict[str, Estimate]:
    """Return the probability that a run of each placer is better than one of another placer.

    Args:
        efficiencies: (num_seeds, num_problems) of each placer, the other one's included.
        over: the other placer.
    """

    def probability(one: Float64, two: Float64) -> Any:
        """Compute ``rliable.metrics.probability_of_improvement`` a hundred times as fast."""
        return np.mean((one[:, None] > two) + 0.5 * (one[:, None] == two))

    other = efficiencies[over]
    pairs = {name: [one, other] for name, one in efficiencies.items() if name != over}
    return _estimate(pairs, probability)


def profiles(efficiencies: Mapping[str, Float64], least: Float64) -> dict[str, Float64]:
    """Return performance profiles: the share of runs that reach each efficiency.

    Args:
        efficiencies: (num_seeds, num_problems) of each placer.
        least: (num_levels,) efficiencies.

    Returns:
        (3, num_levels) the share, and its 95 % interval, of each placer.
    """

    def shares(scores: Float64) -> Float64:
        return np.asarray((scores[None] >= least[:, None, None]).mean(axis=(1, 2)))

    values, spans = _intervals(efficiencies, shares)
    return {name: np.stack([values[name], *spans[name]]) for name in values}


def _estimate(
    scores: Mapping[str, Any], function: Callable[..., Any], repetitions: int = REPETITIONS
) -> dict[str, Estimate]:
    values, spans = _intervals(scores, lambda *given: np.array([function(*given)]), repetitions)
    return {
        name: Estimate(*map(float, (value[0], *spans[name][:, 0])))
        for name, value in values.items()
    }


def _intervals(
    scores: Mapping[str, Any], function: Callable[..., Float64], repetitions: int = REPETITIONS
) -> tuple[dict[str, Float64], dict[str, Float64]]:
    """Return the function's values, (num_values,), and 95 % intervals, (2, num_values)."""
    library = _rliable("library")
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002 - the library draws from the global generator
    try:
        values, spans = library.get_interval_estimates(dict(scores), function, reps=repetitions)
    finally:
        np.random.set_state(before)  # noqa: NPY002
    return values, spans


def check_rliable() -> None:
    """Check that rliable is installed, before hours of work.

    Raises:
        DevicePlacementError: when it is missing.
    """
    if importlib.util.find_spec("rliable") is None:
        raise DevicePlacementError(
            "A benchmark's scores need rliable: pip install 'device-placement[benchmark]'"
        )


def _rliable(module: str) -> Any:
    check_rliable()
    return importlib.import_module(f"rliable.{module}")
