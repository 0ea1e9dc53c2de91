"""Contiguous stages as in GPipe (Huang et al., NeurIPS 2019): one per device, balanced in time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers.base import PlacerResult, Trace, check_options
from device_placement.agents.placers.search_space import Choice, SearchSpace, needed_costs
from device_placement.envs.arrays import Float64
from device_placement.envs.costs import Costs
from device_placement.envs.evaluation import Evaluator

PRECISION = 1e-9  # relative, of the largest stage


@dataclass(frozen=True)
class Stages:
    """Contiguous stages, one per device, with the smallest maximum time.

    Units are in the order of their first group. A stage has the compute time of its units,
    without transfers, and fits into its device's memory. What devices that share memory hold
    together is not considered, so a cut may be invalid. Every order of every set of devices
    is cut and evaluated, single devices included; a cut that breaks constraints is repaired
    first. If these are more than `max_orders`, only the fastest device, the fastest two and so on
    are used, the fastest first. Nothing is random.

    Raises:
        DevicePlacementError: when an option is out of range.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator(
    ...     "resnet50", "CPU,GPU", evaluator="simulator", hardware="paper", schedule="pipelined"
    ... )
    >>> found = Stages().place(evaluator, budget=10, seed=0).assignment
    >>> sum(one != other for one, other in zip(found, found[1:]))
    1
    """

    max_orders: int = 100
    """Maximum number of device orders to try."""

    def __post_init__(self) -> None:
        check_options(self, max_orders=(1, math.inf))

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`.

        Raises:
            DevicePlacementError: when the evaluator measures and so has no costs.
        """
        costs = needed_costs(evaluator)
        trace, space = Trace(evaluator, budget), SearchSpace.of(evaluator)
        compute_s = np.zeros(space.allowed.shape)
        np.add.at(compute_s, space.unit, costs.compute_s)
        sizes = np.zeros(space.num_units)
        np.add.at(sizes, space.unit, costs.group_bytes)
        for order in self._orders(costs):
            choice = cut(compute_s, sizes, costs.reachable_bytes(), order)
            if choice is not None and not trace.spent:
                trace.evaluate(space.assignment(space.repaired(choice)))
        return trace.result()

    def _orders(self, costs: Costs) -> list[tuple[int, ...]]:
        devices, lengths = costs.num_devices, range(1, costs.num_devices + 1)
        if sum(math.perm(devices, length) for length in lengths) <= self.max_orders:
            return [
                order
                for length in lengths
                for order in itertools.permutations(range(devices), length)
            ]
        fastest = np.argsort(costs.compute_s.sum(axis=0), kind="stable").tolist()
        return [tuple(fastest[:length]) for length in lengths][: self.max_orders]


def cut(
    compute_s: Float64, sizes: Float64, memory_bytes: Float64, order: Sequence[int]
) -> Choice | None:
    """Return the contiguous stages on devices in this order with the smallest maximum time.

    Args:
        compute_s: (num_units, num_devices) inf where a unit can't run.
        sizes: (num_units,) bytes.
        memory_bytes: (num_devices,) of each device.
        order: devices, the first stage's first; the last ones may stay empty.

    Returns:
        (num_units,) devices, or None when there is no such cut.
    """
    high = float(np.where(np.isfinite(compute_s), compute_s, 0.0).max(axis=1).sum())
    high *= 1.0 + PRECISION  # sums are rounded
    costs = np.where(np.isfinite(compute_s), compute_s, 1.0 + 2.0 * high)  # more than any stage
    total_s = np.concatenate([np.zeros((1, costs.shape[1])), costs.cumsum(axis=0)])
    total_bytes = np.concatenate([[0.0], sizes.cumsum()])

    def fill(limit_s: float) -> list[int] | None:
        """Return where the stages end when each takes all it can within a time."""
        ends = [0]
        for device in order:
            in_time = total_s[ends[-1], device] + limit_s
            in_memory = total_bytes[ends[-1]] + memory_bytes[device]
            reached = total_s[:, device].searchsorted(in_time, "right")
            ends.append(int(min(reached, total_bytes.searchsorted(in_memory, "right"))) - 1)
        return ends if ends[-1] == len(sizes) else None

    low, best = 0.0, fill(high)
    while best is not None and high - low > PRECISION * high:
        middle = (low + high) / 2
        ends = fill(middle)
        low, high, best = (middle, high, best) if ends is None else (low, middle, ends)
    return None if best is None else np.repeat(np.array(order), np.diff(best))
