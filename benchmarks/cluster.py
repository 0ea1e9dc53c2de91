"""Cost, faults and growth of measuring on a cluster, with processes on this machine.

The parts, each of which can be run alone (`--parts cost,kills`)::

    cost     what measuring through a cluster adds to an evaluation, paired with measuring here
    suite    a suite with two workers, in turns with two processes here; the rows must be equal
    kills    workers that are killed while they measure
    restart  a scheduler that is killed, and started again
    stop     a worker that is stopped for a while, as a machine that hangs
    network  a connection to the scheduler that carries nothing for a while
    scale    evaluations a second with many targets, whose measurements only take their time

Run it with::

    python -m device_placement.benchmarks.cluster
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_placement.benchmarks.isolation import LIMIT_S, cost_s
from device_placement.benchmarks.on_cluster.faults import kills, network, restart, stop
from device_placement.benchmarks.on_cluster.processes import COMMAND, ClusterStudyConfig, Started
from device_placement.benchmarks.on_cluster.scale import scale
from device_placement.benchmarks.study import (
    judge,
    measuring_each,
    progress,
    random_placements,
    run,
    timed,
)
from device_placement.benchmarks.suite.results import RunRow, read_rows
from device_placement.envs.errors import choose
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.timing import median_interval

MOST_RATIO = 1.15  # of the suite's times


def cost(config: ClusterStudyConfig) -> bool:
    """Compare the cost of an evaluation through the cluster with that here, in pairs."""
    with Started() as started:
        started.start_targets("target")
        ways = {"here": MeasureConfig(), "cluster": MeasureConfig(on=started.address)}
        costs: dict[str, list[float]] = {name: [] for name in ways}
        with measuring_each(config, ways) as evaluators:
            coarse = evaluators["here"].coarse
            for one in random_placements(coarse, config.placements, config.seed):
                for name, evaluator in evaluators.items():
                    costs[name].append(cost_s(evaluator, one))
    added = [there - here for here, there in zip(costs["here"], costs["cluster"], strict=True)]
    median_s, (low, high) = sorted(added)[len(added) // 2], median_interval(added)
    print(
        f"cost     {1e3 * median_s:.2f} ms per evaluation ({1e3 * low:.2f} - {1e3 * high:.2f}) "
        f"added by the cluster: {judge(median_s <= LIMIT_S, f'at most {1e3 * LIMIT_S:g} ms')}"
    )
    return median_s <= LIMIT_S


def plain_rows(folder: Path) -> dict[Any, RunRow]:
    """Return the rows of a benchmark by key, without times of the run."""
    rows = read_rows(str(folder / "runs.csv"))
    return {row.key: dataclasses.replace(row, wall_s=0.0, session=0) for row in rows}


def suite(config: ClusterStudyConfig) -> bool:
    """Run a suite with two workers and with two processes here, in turns."""
    chosen = ("--suite", config.suite, "--placers", config.placers, "--seeds", str(config.seeds))
    times: dict[str, list[float]] = {"--jobs 2": [], "2 workers": []}
    equal = True
    with Started() as started:
        started.start_targets("a", "b")
        ways = {"--jobs 2": ("--jobs", "2"), "2 workers": ("--on", started.address)}
        for number in range(config.repeats):
            folders: dict[str, Path] = {}
            for name, words in ways.items():
                folders[name] = started.folder / f"{len(folders)}-{number}"
                command = [*COMMAND, "benchmark", *chosen, *words, "--out", str(folders[name])]
                _, taken_s = timed(subprocess.run, command, check=True, capture_output=True)
                times[name].append(taken_s)
                progress(f"{name}: {taken_s:.1f} s")
            first, second = map(plain_rows, folders.values())
            equal = equal and {*map(repr, first.values())} == {*map(repr, second.values())}
    ratio = min(times["2 workers"]) / min(times["--jobs 2"])
    listed = "; ".join(
        f"{name} {', '.join(f'{one:.1f}' for one in taken)} s" for name, taken in times.items()
    )
    print(
        f"suite    {listed}; ratio of the shortest {ratio:.2f}: "
        f"{judge(ratio <= MOST_RATIO, f'at most {MOST_RATIO}')}; {len(first)} rows each, "
        f"{'equal' if equal else 'NOT EQUAL'}"
    )
    return equal and ratio <= MOST_RATIO


PARTS: dict[str, Callable[[ClusterStudyConfig], bool]] = {
    "cost": cost,
    "suite": suite,
    "kills": kills,
    "restart": restart,
    "stop": stop,
    "network": network,
    "scale": scale,
}


def main(config: ClusterStudyConfig) -> int:
    """Run the parts; return 1 when one misses its target."""
    chosen = [choose("part", name.strip(), PARTS) for name in config.parts.split(",")]
    reached = [part(config) for part in chosen]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    run(main, ClusterStudyConfig, __doc__)
