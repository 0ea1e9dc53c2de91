"""Speed of the vector environment over many problems, and of its parts.

Run it with::

    python -m device_placement.benchmarks.speed --problems
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import psutil

from device_placement.benchmarks.study import LiveTable, judge
from device_placement.envs.cost_features import KnownCosts, PartialFeatures
from device_placement.envs.problem_vector_env import ProblemVectorEnv
from device_placement.envs.problems.generator import generate_problem
from device_placement.envs.simulation.partial_schedule import PartialSchedules
from device_placement.envs.simulation.simulator import SimulatedEvaluator

TARGET = 50_000  # group steps per second on one core, features and new problems included


@dataclass(frozen=True)
class Effort:
    """Extent of the study."""

    problems: int = 48  # that are drawn
    steps: int = 300  # of all copies, in each repeat
    repeats: int = 5
    shapes: Sequence[tuple[int, int]] = ((128, 16), (512, 16), (128, 1))
    """Copies, and copies per problem."""


def run(seed: int = 0, effort: Effort | None = None) -> int:
    """Print group steps per second of whole environments, and microseconds of the parts.

    Args:
        seed: of the first problem, and of the actions.
        effort: how much to time.
    """
    effort = effort or Effort()
    in_use = psutil.cpu_percent(interval=1.0)
    print(f"processor time, median of {effort.repeats}; {in_use:.0f} % in use by others\n")
    seeds = range(seed, seed + effort.problems)
    generate_s = _seconds(lambda: [generate_problem(one) for one in seeds], 1)
    problems = [generate_problem(one) for one in seeds]
    groups = sum(one.coarse.num_groups for one in problems)
    print(
        f"{len(problems)} problems of {groups / len(problems):.0f} groups on average; "
        f"drawing one takes {1e3 * generate_s / len(problems):.1f} ms\n"
    )
    table = LiveTable("copies:<8", "per problem:>12", "steps/s:>10,.0f", "  target:<1")
    for copies, shared in effort.shapes:
        speed = _steps_per_s(problems, copies, shared, seed, effort, generate_s / groups)
        table.add(copies, shared, speed, "  " + judge(speed >= TARGET, f"{TARGET:,}"))
    print("\nwith 128 copies, 16 per problem\n")
    _print_parts(problems[:8], seed, effort)
    return 0


def _steps_per_s(
    problems: Sequence[SimulatedEvaluator],
    copies: int,
    shared: int,
    seed: int,
    effort: Effort,
    drawing_s: float,
) -> float:
    """Return group steps per second with random actions, the drawing of problems included.

    Args:
        problems: taken in turn.
        copies: number of copies.
        shared: copies per problem.
        seed: of the actions.
        effort: steps and repeats.
        drawing_s: seconds of drawing a problem, per group.
    """
    envs = ProblemVectorEnv(copies, itertools.cycle(problems), copies_per_problem=shared)
    envs.reset()
    generator = np.random.default_rng(seed)

    def go() -> None:
        for _ in range(effort.steps):
            masks = envs.action_masks()
            envs.step(np.where(masks, generator.random(masks.shape), -1.0).argmax(axis=1))

    go()  # compiles
    step_s = _seconds(go, effort.repeats) / (effort.steps * copies)
    return 1.0 / (step_s + drawing_s / shared)


def _print_parts(problems: Sequence[SimulatedEvaluator], seed: int, effort: Effort) -> None:
    """Print microseconds per group step of what an environment's step is made of."""
    rows = np.arange(16 * len(problems))
    of = rows // 16
    known = [KnownCosts(one.costs, one.schedule) for one in problems]
    partial = PartialSchedules([one.costs for one in known], [one.schedule for one in known], 128)
    features = PartialFeatures(known, len(rows))
    fewest = min(one.coarse.num_groups for one in problems)
    devices = np.random.default_rng(seed).integers(2, size=(fewest, len(rows)))
    ways: dict[str, PartialSchedules | PartialFeatures] = {
        "place a group and look at the next one": partial,
        "the same with features": features,
    }
    table = LiveTable("part:<40", "us per group step:>18.2f")
    for name, way in ways.items():

        def go(way: PartialSchedules | PartialFeatures = way) -> None:
            way.begin(rows, of)
            for row in devices:
                way.place(rows, row)

        go()
        table.add(name, 1e6 * _seconds(go, effort.repeats) / devices.size)


def _seconds(function: Callable[[], object], repeats: int) -> float:
    """Return the median processor time of a function."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return median(times)
