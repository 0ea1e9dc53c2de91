"""What does it cost to measure in a process of its own?

The same random placements are measured in this process and in a worker, in turns. What is
neither compiling nor running is the cost of either way; they are compared placement by
placement. Run it with::

    python -m device_placement.benchmarks.isolation
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass

import numpy as np
import tyro

from device_placement.agents.placers.baselines import random_assignment
from device_placement.envs.evaluation import Evaluator, single_assignments
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.machine import describe_machine
from device_placement.envs.measuring.timing import median_interval

LIMIT_S = 0.01


@dataclass(frozen=True)
class IsolationConfig:
    """What to measure."""

    model: str = "resnet50"
    """Model, as load_model takes it."""
    devices: str = "auto"
    """Devices, as everywhere."""
    placements: int = 30
    """Random placements."""
    seed: int = 0
    """Seed of the placements."""


def cost_s(evaluator: Evaluator, assignment: list[int]) -> float:
    """What an evaluation takes besides compiling and running, in seconds."""
    start = time.perf_counter()
    found = evaluator.evaluate(assignment)
    return time.perf_counter() - start - found.compile_s - found.run_s


def main(config: IsolationConfig) -> int:
    """Print both costs and their difference; 1 when that is above 10 ms."""
    print(", ".join(f"{key} {value}" for key, value in describe_machine().items()))
    evaluators = {
        name: make_evaluator(config.model, config.devices, isolation=name, store=None)
        for name in ("none", "process")
    }
    for evaluator in evaluators.values():  # starts the worker and fixes the reference
        for single in single_assignments(evaluator).values():
            evaluator.evaluate(single)
    generator = np.random.default_rng(config.seed)
    costs: dict[str, list[float]] = {name: [] for name in evaluators}
    for _ in range(config.placements):
        assignment = random_assignment(evaluators["none"].coarse, generator)
        for name, evaluator in evaluators.items():
            costs[name].append(cost_s(evaluator, assignment))
    differences = [own - none for none, own in zip(costs["none"], costs["process"], strict=True)]
    low, high = median_interval(differences)
    for name, values in costs.items():
        print(f"isolation {name:<8}{1e3 * statistics.median(values):7.2f} ms an evaluation")
    median = statistics.median(differences)
    print(f"difference {1e3 * median:14.2f} ms ({1e3 * low:.2f} - {1e3 * high:.2f})")
    return 0 if median <= LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(IsolationConfig, description=__doc__)))
