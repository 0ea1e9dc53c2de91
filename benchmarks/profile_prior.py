"""Evaluations that a profile saves when posterior sampling has it as the prior, measured here.

Each search runs without a profile, with one profiled run per device (auto), and with a profile that
is fitted to random placements, which count as evaluations, too. How many does each need until the
best placement so far takes at most 1 % more than the best one that any search of the problem found?
A lucky measurement is not the best one: in the end, all placements that were the best so far of a
search, and may be near the best one, are timed once more, in turns. Run it with::

    python -m device_placement.benchmarks.profile_prior
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers.base import PlacerResult
from device_placement.agents.placers.posterior_sampling.placer import PosteriorSampling
from device_placement.benchmarks.study import LiveTable, judge, progress, run
from device_placement.benchmarks.suite.problems import opened, problems_of
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.measuring.compare import compare, paired_ratio, placed
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.openvino_evaluator import as_measuring
from device_placement.envs.profiling.measured_profile import profile_with
from device_placement.envs.profiling.random_placements import draw_placements

NEAR = 1.01  # times the best known
MAYBE_NEAR = 1.15  # times the fastest measurement: one that is slower is not timed again
TOGETHER = 12  # compiled models that fit into memory
MAX_SECONDS = 300.0  # for the samples of all of them
GOAL = 1 / 3  # of the evaluations without a profile
NONE, AUTO, FITTED = "none", "auto", "fitted"
WAYS = (NONE, AUTO, FITTED)


@dataclass(frozen=True)
class ProfilePriorConfig:
    """Options of the study."""

    suites: tuple[str, ...] = ("local_parallel", "local_accuracy")
    """Suites of problems that are measured here; one that this machine can't have is left out."""
    problems: tuple[str, ...] = ()
    """Names of problems; default: all of the suites."""
    budget: int = 60
    """Distinct placements of each search, singles included."""
    placements: int = 12
    """Random placements that the fitted profile is made of."""
    seeds: int = 3
    """Searches of each kind, with seeds 0, 1, ..."""
    max_samples: int | None = None
    """Most samples per measurement; default: 40."""
    rounds: int = 60
    """Samples of each placement that is timed again in the end."""


def main(config: ProfilePriorConfig) -> int:
    """Print a line for each problem and kind of prior; return 1 when the goal is missed."""
    table = LiveTable(
        "problem:<38",
        "profile:<8",
        "best, ms:>9.3f",
        "  evaluations, each seed:<25",
        "median:>7",
        "  of those without:<1",
    )
    reached = True
    for suite in config.suites:
        for name, problem in problems_of(suite).items():
            if config.problems and name not in config.problems:
                continue
            try:
                measuring = MeasureConfig(executor="auto", max_samples=config.max_samples)
                with opened(problem, measuring) as evaluator:
                    found = {way: _searches(evaluator, way, config, name) for way in WAYS}
                    times_s = _timed_in_turns(evaluator, found, config.rounds)
            except DevicePlacementError as error:
                progress(f"{name}: {error}")
                continue
            reached = _print(table, name, found, times_s) and reached
    return int(not reached)


def _searches(
    evaluator: Evaluator, way: str, config: ProfilePriorConfig, name: str
) -> list[PlacerResult]:
    found = []
    for seed in range(config.seeds):
        found.append(_placer(evaluator, way, config, seed).place(evaluator, config.budget, seed))
        progress(name, way, f"seed {seed}: {1e3 * found[-1].time_s:.3f} ms")
    return found


def _placer(
    evaluator: Evaluator, way: str, config: ProfilePriorConfig, seed: int
) -> PosteriorSampling:
    if way != FITTED:
        return PosteriorSampling(profile=AUTO if way == AUTO else "")
    measuring = as_measuring(evaluator)
    profile = profile_with(measuring, config.placements, seed)
    generator = np.random.default_rng(seed)
    first = draw_placements(measuring.coarse, config.placements, generator)
    return PosteriorSampling(profile=profile, first=tuple(first))


def _timed_in_turns(
    evaluator: Evaluator, found: Mapping[str, Sequence[PlacerResult]], rounds: int
) -> dict[tuple[int, ...], float]:
    """Time all placements in turns that were the best so far of a search, and may be near the best.

    Returns:
        Their times in seconds: that of one of them, times the median ratio to it, round by round.
    """
    bests = dict(best for several in found.values() for one in several for best in _bests(one))
    near = sorted(bests, key=bests.__getitem__)
    near = [one for one in near if bests[one] <= MAYBE_NEAR * bests[near[0]]]
    measuring, times_s = as_measuring(evaluator), dict[tuple[int, ...], float]()
    reference_s = math.nan
    for first in range(0, len(near), TOGETHER):
        some = dict(enumerate(near[first : first + TOGETHER]))
        contenders = [placed(measuring, str(number), one) for number, one in some.items()]
        reference = placed(measuring, "reference", near[0])
        again = compare(measuring, [reference, *contenders], rounds, max_seconds=MAX_SECONDS)
        if not first:
            reference_s = again["reference"].time_s
        for number, one in some.items():
            times_s[one] = reference_s * paired_ratio(again[str(number)], again["reference"])[0]
    return {one: time_s for one, time_s in times_s.items() if not math.isnan(time_s)}


def _bests(result: PlacerResult) -> list[tuple[tuple[int, ...], float]]:
    """Return the placements that were the best when they were evaluated, with their times."""
    bests: list[tuple[tuple[int, ...], float]] = []
    for assignment, time_s in result.evaluations:
        if time_s < min((best_s for _, best_s in bests), default=math.inf):
            bests.append((assignment, time_s))
    return bests


def evaluations_needed(result: PlacerResult, times_s: Mapping[tuple[int, ...], float]) -> float:
    """Return after how many evaluations the best one was within 1 % of the best known.

    Args:
        result: of a search; its own times tell which placement was the best at any moment.
        times_s: what placements take, in seconds. Others are not near.

    Returns:
        The number; inf if none was.

    >>> found = PlacerResult((1,), 1.0, (((0,), 2.0), ((1,), 1.0)), wall_s=0.0)
    >>> evaluations_needed(found, {(0,): 2.0, (1,): 1.1}), evaluations_needed(found, {(2,): 0.5})
    (2, inf)
    """
    limit_s = NEAR * min(times_s.values(), default=math.nan)
    order = [assignment for assignment, _ in result.evaluations]
    near = [one for one, _ in _bests(result) if times_s.get(one, math.inf) <= limit_s]
    return order.index(near[0]) + 1 if near else math.inf


def _print(
    table: LiveTable,
    name: str,
    found: Mapping[str, Sequence[PlacerResult]],
    times_s: Mapping[tuple[int, ...], float],
) -> bool:
    """Print the lines of a problem; return whether the fitted profile reaches the goal."""
    medians: dict[str, float] = {}
    with contextlib.suppress(statistics.StatisticsError):
        for way, several in found.items():
            needed = [evaluations_needed(one, times_s) for one in several]
            medians[way] = statistics.median(needed)
            text = "  " if way == NONE else f"  {_share(medians[way], medians[NONE])}"
            own = [times_s.get(best, math.nan) for one in several for best, _ in _bests(one)]
            least_s = min((one for one in own if not math.isnan(one)), default=math.nan)
            table.add(name, way, 1e3 * least_s, f"  {_listed(needed)}", _number(medians[way]), text)
    return math.isfinite(medians.get(FITTED, math.inf)) and medians[FITTED] <= GOAL * medians[NONE]


def _share(needed: float, without: float) -> str:
    """Return the share of the evaluations that a profile leaves, and whether that is the goal."""
    if math.isinf(needed):
        return "never"
    share = needed / without
    return f"{share:.2f}, {judge(share <= GOAL, f'{GOAL:.2f}')}"


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(map(_number, numbers))


def _number(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:g}"


if __name__ == "__main__":
    run(main, ProfilePriorConfig, __doc__)
