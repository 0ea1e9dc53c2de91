"""Thinking time of placers: CPU time per evaluation on a simulated problem.

Run it with::

    python -m device_placement.benchmarks.thinking_time

The simulator answers in microseconds, so nearly all of the time is the placer's own. The first
search also imports libraries and loads machine code; the others in the same process only think.
The last column is a checksum of all placements and times: searches with equal ones are equal.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from dataclasses import dataclass
from typing import ClassVar

from device_placement.agents.options import POSITIONAL, OptionGroups
from device_placement.agents.placers import make_placer
from device_placement.agents.placers.base import PlacerResult
from device_placement.benchmarks.study import LiveTable, judge, run
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.timing import median_interval

TARGETS_MS = {12: 5.0, 128: 20.0}  # of posterior_sampling on Inception-V3, by number of groups
BUDGETS = {12: 60}  # by number of groups; otherwise that of the options


@dataclass(frozen=True)
class ThinkingTimeConfig:
    """Options of the study."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {POSITIONAL: ("model",)}

    placers: tuple[str, ...] = ("posterior_sampling",)
    """Names of placers."""
    model: str = "inception_v3"
    """Bundled model (resnet50, inception_v3, bert_base, two_towers, diamond) or path of a file;
    with a + between them, several that run side by side."""
    schedule: str = "concurrent"
    """Simulated execution: sequential, concurrent, pipelined or max_load."""
    budget: int = 300
    """Distinct placements of each search; 60 with 12 groups."""
    repeats: int = 6
    """Searches after the first, with the same seed."""
    seed: int = 0
    """Seed of all random choices."""


def main(config: ThinkingTimeConfig) -> int:
    """Print one line per placer and number of groups."""
    columns = "placer:<20", "groups:>6", "evaluations:>13", "first, ms:>11.1f"
    table = LiveTable(
        *columns, "then, ms (95 % interval):>26", "  target:<17", "  placements and times:<1"
    )
    for name in config.placers:
        for most in (12, None):
            evaluator = make_evaluator(
                config.model, evaluator="simulator", schedule=config.schedule, max_groups=most
            )
            groups = evaluator.coarse.num_groups
            budget = BUDGETS.get(groups, config.budget)
            searches = [
                _think(name, evaluator, budget, config.seed) for _ in range(1 + config.repeats)
            ]
            (found, first_ms), *others = searches
            then_ms = [ms for _, ms in others]
            median, (low, high) = statistics.median(then_ms), median_interval(then_ms)
            target = TARGETS_MS.get(groups)
            judged = "" if target is None else judge(median <= target, f"{target:.0f}")
            table.add(
                name,
                groups,
                len(found.evaluations),
                first_ms,
                f"{median:.1f} ({low:.1f} - {high:.1f})",
                f"  {judged}",
                f"  {checksum(found)}",
            )
    return 0


def _think(name: str, evaluator: Evaluator, budget: int, seed: int) -> tuple[PlacerResult, float]:
    """Return the result of a search, and its milliseconds of CPU per evaluation."""
    start = time.process_time()
    found = make_placer(name).place(evaluator, budget, seed)
    spent_s = time.process_time() - start
    return found, 1e3 * spent_s / len(found.evaluations)


def checksum(found: PlacerResult) -> str:
    """Return a short hash of all placements and times of a search, in order."""
    return hashlib.sha256(repr(found.evaluations).encode()).hexdigest()[:12]


if __name__ == "__main__":
    run(main, ThinkingTimeConfig, __doc__)
