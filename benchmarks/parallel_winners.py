"""The best placements that a benchmark found on devices that run side by side, measured again.

For each problem the fastest row of the benchmark runs under both executors, in turns with the
singles and with what OpenVINO does by itself with all cores. Run it with::

    python -m device_placement.benchmarks.parallel_winners FOLDER
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from device_placement.agents.options import POSITIONAL, OptionGroups
from device_placement.benchmarks.dataflow import compare_executors
from device_placement.benchmarks.study import LiveTable, run
from device_placement.benchmarks.suite.folder import read_folders
from device_placement.benchmarks.suite.problems import opened, problems_of
from device_placement.envs.evaluation import Evaluation
from device_placement.envs.measuring.compare import ALL_CORES, paired_ratio
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.openvino_evaluator import as_measuring

SUITE = "local_parallel"
# Goals for the gain over the best single.
GOALS = {"inception_v3 on halves": 1.4}
GOAL = 1.8  # of the others


@dataclass(frozen=True)
class ParallelWinnersConfig:
    """Options of the study."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {POSITIONAL: ("folder",)}

    folder: str
    """Folder of a benchmark of the suite local_parallel."""
    rounds: int = 30
    """Samples of each contender."""


def main(config: ParallelWinnersConfig) -> int:
    """Print a line for each problem; return 1 when a goal is missed."""
    rows = [row for row in read_folders([config.folder]) if row.suite == SUITE and row.assignment]
    table = LiveTable(
        "problem:<34",
        "found by:<20",
        "ms:>8.2f",
        "  over the best single:<28",
        "goal:>6.1f",
        "  over HETERO, same placement:<30",
        "  over AUTO, all cores:<26",
    )
    reached = True
    for name, problem in problems_of(SUITE).items():
        own = [row for row in rows if row.problem == name]
        if not own:
            continue
        best = min(own, key=lambda row: row.time_s)
        with opened(problem, MeasureConfig(executor="dataflow")) as evaluator:
            measuring = as_measuring(evaluator)
            found = compare_executors(measuring, best.assignment, config.rounds)
            singles = [*found][: len(measuring.devices)]
        winner = found["dataflow"]
        single = min(singles, key=lambda one: found[one].time_s)
        goal = GOALS.get(name, GOAL)
        reached = reached and paired_ratio(found[single], winner)[0] >= goal
        gains = [_gain(found[other], winner) for other in (single, "HETERO", ALL_CORES)]
        over_single, *others = (f"  {one}" for one in gains)
        table.add(name, best.placer, 1e3 * winner.time_s, over_single, goal, *others)
    return int(not reached)


def _gain(other: Evaluation, winner: Evaluation) -> str:
    """Return the speed-up over another contender, with its interval."""
    ratio, (low, high) = paired_ratio(other, winner)
    return f"{ratio:.3f}x ({low:.3f} - {high:.3f})"


if __name__ == "__main__":
    run(main, ParallelWinnersConfig, __doc__)
