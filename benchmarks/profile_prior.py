"""Evaluations that a profile saves when posterior sampling has it as the prior, measured here.

Each search runs without a profile, with one profiled run per device (auto), and with a profile that
is fitted to random placements, which count as evaluations, too. How many does each need until a
placement takes at most 1 % more than the best one that any search of the problem found? Run it
with::

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
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.openvino_evaluator import as_measuring
from device_placement.envs.profiling.measured_profile import profile_with
from device_placement.envs.profiling.random_placements import draw_placements

NEAR = 1.01  # times the best known
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
            except DevicePlacementError as error:
                progress(f"{name}: {error}")
                continue
            reached = _print(table, name, found) and reached
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


def evaluations_needed(result: PlacerResult, best_s: float) -> float:
    """Return how many evaluations led within 1 % of a time; inf if none did.

    >>> found = PlacerResult((1,), 1.0, (((0,), 2.0), ((1,), 1.0)), wall_s=0.0)
    >>> evaluations_needed(found, 0.995), evaluations_needed(found, 0.5)
    (2, inf)
    """
    limit_s = NEAR * best_s
    times_s = [time_s for _, time_s in result.evaluations]
    return next((n for n, time_s in enumerate(times_s, 1) if time_s <= limit_s), math.inf)


def _print(table: LiveTable, name: str, found: Mapping[str, Sequence[PlacerResult]]) -> bool:
    """Print the lines of a problem; return whether the fitted profile reaches the goal."""
    valid = [one for several in found.values() for one in several if one.assignment]
    best_s = min((one.time_s for one in valid), default=math.nan)
    medians: dict[str, float] = {}
    with contextlib.suppress(statistics.StatisticsError):
        for way, several in found.items():
            needed = [evaluations_needed(one, best_s) for one in several]
            medians[way] = statistics.median(needed)
            share = medians[way] / medians[NONE]
            text = "  " if way == NONE else f"  {share:.2f}, {judge(share <= GOAL, f'{GOAL:.2f}')}"
            least_s = min((one.time_s for one in several if one.assignment), default=math.nan)
            table.add(name, way, 1e3 * least_s, f"  {_listed(needed)}", _number(medians[way]), text)
    return bool(medians) and medians[FITTED] <= GOAL * medians[NONE]


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(map(_number, numbers))


def _number(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:g}"


if __name__ == "__main__":
    run(main, ProfilePriorConfig, __doc__)
