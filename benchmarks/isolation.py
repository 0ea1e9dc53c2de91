"""Cost of measuring in a separate process.

The same random placements are measured in this process and in a worker, in turns. The cost is the
part of the time that is spent neither compiling nor running; it is compared placement by
placement. Run it with::

    python -m device_placement.benchmarks.isolation
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from device_placement.benchmarks.study import (
    OneModelConfig,
    measuring_each,
    random_placements,
    run,
    timed,
)
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.timing import median_interval

LIMIT_S = 0.01
WAYS = {name: MeasureConfig(isolation=name) for name in ("none", "process")}


@dataclass(frozen=True)
class IsolationConfig(OneModelConfig):
    """Options of the study."""

    placements: int = 30
    """Random placements."""


def cost_s(evaluator: Evaluator, assignment: list[int]) -> float:
    """Return the seconds of an evaluation that are neither compiling nor running."""
    found, spent_s = timed(evaluator.evaluate, assignment)
    return spent_s - found.compile_s - found.run_s


def main(config: IsolationConfig) -> int:
    """Print both costs and their difference; return 1 when that is above 10 ms."""
    costs: dict[str, list[float]] = {name: [] for name in WAYS}
    with measuring_each(config, WAYS) as evaluators:
        coarse = evaluators["none"].coarse
        for assignment in random_placements(coarse, config.placements, config.seed):
            for name, evaluator in evaluators.items():
                costs[name].append(cost_s(evaluator, assignment))
    differences = [own - none for none, own in zip(costs["none"], costs["process"], strict=True)]
    low, high = median_interval(differences)
    for name, values in costs.items():
        print(f"isolation {name:<8}{1e3 * statistics.median(values):7.2f} ms per evaluation")
    median = statistics.median(differences)
    print(f"difference {1e3 * median:14.2f} ms ({1e3 * low:.2f} - {1e3 * high:.2f})")
    return 0 if median <= LIMIT_S else 1


if __name__ == "__main__":
    run(main, IsolationConfig, __doc__)
