"""An evaluator over costs that are written by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from itertools import product

import numpy as np

from costs import random_costs
from device_placement.envs.costs import Costs
from device_placement.envs.devices import parse_devices
from device_placement.envs.evaluation import BaseEvaluator, Evaluation
from device_placement.envs.simulation.schedule import schedule_times
from scripted import hand_made


class CostsEvaluator(BaseEvaluator):
    """Predicts what a schedule says of the costs; what these do not allow is invalid.

    Args:
        costs: of groups, tensors and devices, the latter called ``CPU``, ``GPU.0`` ...
        schedule: a name of `SCHEDULES`.
    """

    def __init__(self, costs: Costs, schedule: str = "sequential") -> None:
        names = ["CPU", *(f"GPU.{number}" for number in range(costs.num_devices - 1))]
        producer = np.repeat(costs.tensor_group, np.diff(costs.reader_start))
        size = np.repeat(costs.tensor_bytes, np.diff(costs.reader_start))
        edge_index = np.stack([producer, costs.reader]).astype(np.int32)
        coarse = hand_made(costs.num_groups, edge_index, size)
        supported = np.isfinite(costs.compute_s)
        graph = dataclasses.replace(coarse.graph, devices=tuple(names), supported=supported)
        self.coarse = dataclasses.replace(coarse, graph=graph, supported=supported)
        self.devices = parse_devices(names)
        self.costs = costs
        self.schedule = schedule
        self.num_calls = 0

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        self.num_calls += 1
        time_s = float(schedule_times(self.costs, np.array([assignment]), self.schedule)[0])
        if not np.isfinite(time_s):
            return Evaluation.invalid("not allowed")
        return Evaluation(time_s=time_s, samples_s=(time_s,), interval_s=(time_s, time_s))

    def optimum(self) -> float:
        """The time of the best of all placements; inf when none is allowed."""
        every = product(range(self.costs.num_devices), repeat=self.costs.num_groups)
        return float(schedule_times(self.costs, np.array(list(every)), self.schedule).min())


def coloured_and_small(seed: int) -> CostsEvaluator:
    """Eight groups of which four share two colours, three devices of which one is small."""
    generator = np.random.default_rng(seed)
    costs = random_costs(
        generator,
        8,
        3,
        colour=np.array([-1, 5, -1, 2, 5, -1, 2, -1], dtype=np.int32),
        group_bytes=np.ones(8),
        memory_bytes=np.array([4.0, 5.0, 1.0]),
    )
    costs.compute_s[1, 0] = costs.compute_s[6, 2] = math.inf
    return CostsEvaluator(costs, "concurrent")
