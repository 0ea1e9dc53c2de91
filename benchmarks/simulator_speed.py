"""Speed of the simulator, alone and in environments, and its growth with the number of ops.

Run it with::

    python -m device_placement.benchmarks.speed --simulator
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil

from device_placement.benchmarks.study import LiveTable, judge
from device_placement.envs.costs import FREE, Costs
from device_placement.envs.simulation.schedule import SCHEDULES, schedule_times
from device_placement.envs.simulation.workloads import load_workload

NAME = "device_placement.envs:SimulatedDevicePlacement-v0"
NUM_DEVICES = 4
HORIZON = 20  # the default of the environments
SINGLE_US = 100.0  # targets: microseconds of a step of one environment,
VECTOR_STEPS_PER_S = 200_000.0  # steps per second of 256 copies,
ENOUGH, ENOUGH_S = 3, 1.0  # calls that are always timed; more within this many seconds
LARGEST = {"dataflow": 10_000}  # ops to time a schedule up to, whose sets grow with the square
MAX_SLOPE = 1.1  # exponent of the number of ops in the time of a placement


@dataclass(frozen=True)
class SpeedTarget:
    """A graph that the schedules are timed on, and how fast they should be."""

    file: str  # of the dnn-partitioning data
    num_ops: int
    placements_per_s: Mapping[str, float]  # by schedule


TARGETS = (
    SpeedTarget(
        "OperatorGraphs_bert_l-3_inference.json",
        235,
        {"sequential": 1_500_000, "concurrent": 500_000, "dataflow": 50_000},
    ),
    SpeedTarget(
        "OperatorGraphs_bert_l-6_training.json",
        1071,
        {"sequential": 300_000, "concurrent": 80_000, "dataflow": 8_000},
    ),
)


@dataclass(frozen=True)
class Effort:
    """Extent of the study."""

    repeats: int = 9  # of everything, fewer where they take long
    batch: int = 1024  # too many for the branch predictor to memorise
    num_envs: int = 256
    steps: int = 1000  # of one environment
    growth: Sequence[int] = (100, 316, 1000, 3162, 10_000, 31_623, 100_000)  # ops


def run(data: str = "", seed: int = 0, effort: Effort | None = None) -> int:
    """Print every figure beside its target.

    Args:
        data: folder of the dnn-partitioning files; without it, random graphs of their sizes.
        seed: of graphs and placements.
        effort: how much to time.
    """
    effort = effort or Effort()
    generator = np.random.default_rng(seed)
    in_use = psutil.cpu_percent(interval=1.0)
    print(f"processor time, quickest of {effort.repeats}; {in_use:.0f} % in use by others\n")
    columns = "placements/s:<16", "ops:>10", "schedule alone:>16,.0f", "from rows:>11,.0f"
    table = LiveTable(*columns, "  target:<1")
    for target in TARGETS:
        costs = target_costs(target, data, generator)
        for schedule in SCHEDULES:
            alone, rows = placement_rates(costs, schedule, generator, effort)
            wanted = target.placements_per_s.get(schedule)
            judged = "" if wanted is None else judge(alone >= wanted, f"{wanted:,.0f}")
            table.add(schedule, costs.num_groups, alone, rows, f"  {judged}")
    rate = vector_steps_per_s(effort)
    judged = judge(rate >= VECTOR_STEPS_PER_S, f"{VECTOR_STEPS_PER_S:,.0f}")
    print(f"\n{effort.num_envs} copies of ResNet-50, assign: {rate:,.0f} steps/s  {judged}")
    for checker in (True, False):
        step_us = single_step_us(checker, effort)
        label = "with" if checker else "without"
        judged = judge(step_us <= SINGLE_US, f"{SINGLE_US:.0f}")
        print(f"one ResNet-50, {label} Gymnasium's checker: {step_us:.0f} us/step  {judged}")
    print()
    sizes = (f"{ops:,}:>10.2f" for ops in effort.growth)
    table = LiveTable("us/placement:<14", *sizes, "slope:>7.2f", "  target:<1")
    for schedule in SCHEDULES:
        times = growth(schedule, seed, effort)
        slope = log_log_slope(effort.growth[: len(times)], times)
        times += [math.nan] * (len(effort.growth) - len(times))
        judged = judge(slope <= MAX_SLOPE, str(MAX_SLOPE))
        table.add(schedule, *(1e6 * one for one in times), slope, f"  {judged}")
    return 0


def target_costs(target: SpeedTarget, data: str, generator: np.random.Generator) -> Costs:
    """Return the costs of its file on a CPU and three accelerators, or random ones of its size."""
    if not data:
        return layered_costs(target.num_ops, generator)
    loaded = load_workload(Path(data) / target.file, accelerators=NUM_DEVICES - 1)
    return loaded.evaluator().costs


def layered_costs(num_ops: int, generator: np.random.Generator, width: int = 10) -> Costs:
    """Draw costs of layers of ops, each fed by one or two ops of the previous layer."""
    consumer = np.arange(width, num_ops)
    consumer = np.append(consumer, consumer[generator.random(consumer.size) < 0.3])
    producer = (consumer // width - 1) * width + generator.integers(0, width, consumer.size)
    edges = np.unique(np.stack([producer, consumer]), axis=1)
    tensor_group, starts = np.unique(edges[0], return_index=True)
    apart = 1.0 - np.eye(NUM_DEVICES)
    return Costs(
        compute_s=generator.random((num_ops, NUM_DEVICES)),
        tensor_group=tensor_group.astype(np.int32),
        tensor_bytes=generator.random(tensor_group.size),
        reader_start=np.append(starts, edges.shape[1]).astype(np.int32),
        reader=edges[1].astype(np.int32),
        latency_s=0.1 * apart,
        s_per_byte=apart,
        subgraph_s=np.zeros(NUM_DEVICES),
        group_bytes=np.zeros(num_ops),
        memory_bytes=np.full(NUM_DEVICES, np.inf),
        pays=np.ones(NUM_DEVICES, dtype=np.bool_),
        colour=np.full(num_ops, FREE, dtype=np.int32),
    )


def placement_rates(
    costs: Costs, schedule: str, generator: np.random.Generator, effort: Effort
) -> tuple[float, float]:
    """Return placements per second: the schedule alone, and `schedule_times` with every rule."""
    shape = effort.batch, costs.num_groups
    rows = generator.integers(0, costs.num_devices, shape, dtype=np.uint8)
    columns = np.ascontiguousarray(rows.T)
    alone = quickest_s(lambda: SCHEDULES[schedule].times(costs, columns), effort.repeats)
    whole = quickest_s(lambda: schedule_times(costs, rows, schedule), effort.repeats)
    return effort.batch / alone, effort.batch / whole


def vector_steps_per_s(effort: Effort) -> float:
    """Return steps per second of native copies; resets take time but are not counted."""
    envs: Any = gym.make_vec(NAME, effort.num_envs, "vector_entry_point", horizon=HORIZON)
    envs.action_space.seed(0)
    actions = [envs.action_space.sample() for _ in range(HORIZON)]
    envs.reset(seed=0)

    def episode() -> None:
        for action in (*actions, actions[0]):  # the last one resets
            envs.step(action)

    return effort.num_envs * HORIZON / quickest_s(episode, effort.repeats)


def single_step_us(checker: bool, effort: Effort) -> float:
    """Return the microseconds of a step of one environment of `gym.make`, without resets."""
    env: Any = gym.make(NAME, horizon=10**9, disable_env_checker=not checker)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(effort.steps)]
    env.reset(seed=0)

    def steps() -> None:
        for action in actions:
            env.step(action)

    return 1e6 * quickest_s(steps, effort.repeats) / effort.steps


def growth(schedule: str, seed: int, effort: Effort) -> list[float]:
    """Return the seconds of a placement of each number of ops, up to the schedule's `LARGEST`."""
    times = []
    for num_ops in effort.growth:
        if num_ops > LARGEST.get(schedule, num_ops):
            break
        generator = np.random.default_rng(seed)
        costs = layered_costs(num_ops, generator)
        shape = num_ops, effort.batch
        columns = generator.integers(0, NUM_DEVICES, shape, dtype=np.uint8)
        whole_s = quickest_s(lambda: SCHEDULES[schedule].times(costs, columns), effort.repeats)  # noqa: B023
        times.append(whole_s / effort.batch)
    return times


def log_log_slope(sizes: Sequence[int], times: Sequence[float]) -> float:
    """Fit a power of the size to the times, and return its exponent.

    >>> round(log_log_slope([1, 10, 100], [2.0, 20.0, 200.0]), 6)
    1.0
    """
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def quickest_s(call: Callable[[], object], repeats: int) -> float:
    """Return the processor seconds of the quickest of some calls, after an untimed one.

    Processor time and the quickest call are used, as other processes only ever slow calls down.
    """
    call()
    times: list[float] = []
    while len(times) < repeats and (len(times) < ENOUGH or sum(times) < ENOUGH_S):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)
