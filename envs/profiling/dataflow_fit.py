"""Fit of region, crossing and transfer costs to times measured with the executor `dataflow`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Float64, PlacementColumns
from device_placement.envs.costs import Costs
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.profiling.fit import MIN_FACTOR, NEGLIGIBLE, list_pairs, list_units
from device_placement.envs.simulation.profile import HardwareProfile
from device_placement.envs.simulation.schedule import dataflow, find_roots, sequential

DATAFLOW_FORMULA = (
    "time under the schedule dataflow; factors on the profiled op times, split factors, region and "
    "crossing costs of devices, latencies and bandwidths of pairs are fitted"
)
OUTLIER = 0.05  # relative errors beyond this weigh linearly instead of quadratically
STEP = 1e-3  # of a cost's share, for slopes
STARTS = (0.01, 0.1)  # shares of every cost at which a search begins
RIDGE = 0.02  # relative error that a cost must save per share of the time, to hold on to it


def calibrate_dataflow(
    profile: HardwareProfile,
    coarse: CoarseGraph,
    placements: NDArray[np.integer],
    times_s: Sequence[float] | Float64,
) -> HardwareProfile:
    """Return the profile whose `dataflow` times are nearest to the measured ones.

    Fitted are a factor of at least `MIN_FACTOR` on the op times of each device, its split factor,
    the cost of a region and that of a crossing tensor of each device, and latency and bandwidth of
    each ordered pair. Without singles among the placements, both factors can't be told apart.

    It is least squares on the relative errors with the soft L1 loss (SciPy's ``least_squares``), as
    in `calibrate`, from several starts, as the time is only piecewise linear in the costs. A small
    penalty keeps costs at 0 that explain nothing.

    Args:
        profile: its op times are multiplied by the factors; its other costs are replaced.
        coarse: the groups that were placed.
        placements: (num_placements, num_groups) device numbers.
        times_s: (num_placements,) measured.

    Raises:
        PlacementError: when the profile is of another model.
    """
    from scipy.optimize import least_squares

    problem = _Problem.of(profile, coarse, placements, np.asarray(times_s, dtype=np.float64))
    number = problem.frame.num_devices
    lowest = np.zeros(problem.unit_s.size)
    lowest[:number] = MIN_FACTOR
    found = [
        least_squares(
            problem.errors,
            np.append(np.ones(number), np.full(problem.unit_s.size - number, start)),
            jac=problem.slopes,
            bounds=(lowest, np.inf),
            loss="soft_l1",
            f_scale=OUTLIER,
            max_nfev=100,
        )
        for start in STARTS
    ]
    best = min(found, key=lambda one: float(one.cost))
    return problem.profile_of(np.where(best.x > NEGLIGIBLE, best.x, 0.0))


@dataclass(frozen=True)
class _Problem:
    """Costs to find: factors on op times, and shares of the mean time that other costs take."""

    profile: HardwareProfile
    frame: Costs
    placements: PlacementColumns  # (num_groups, num_placements)
    times_s: Float64  # (num_placements,)
    # (num_costs,) what a share of 1 is; 0: no placement pays the cost; 1 for the factors
    unit_s: Float64

    @classmethod
    def of(
        cls,
        profile: HardwareProfile,
        coarse: CoarseGraph,
        placements: NDArray[np.integer],
        times_s: Float64,
    ) -> _Problem:
        """Return the problem of some measured placements."""
        columns = np.ascontiguousarray(np.asarray(placements).T, dtype=np.uint8)
        frame = profile.costs(coarse)
        paid = (_counts(frame, columns) / times_s).mean(axis=1)
        unit_s = np.divide(1.0, paid, out=np.zeros_like(paid), where=paid > 0)
        units = np.append(np.ones(frame.num_devices), unit_s)
        return cls(profile, frame, columns, times_s, units)

    def errors(self, shares: Float64) -> Float64:
        """Return relative errors of the times, and the penalties of the costs."""
        predicted_s = dataflow(self._costs(shares), self.placements)
        penalties = RIDGE * shares[self.frame.num_devices :]
        return np.concatenate([predicted_s / self.times_s - 1, penalties])

    def slopes(self, shares: Float64) -> Float64:
        """Return the slopes of the errors, by finite differences."""
        here = self.errors(shares)
        steps = STEP * np.eye(shares.size)
        return np.stack([(self.errors(shares + step) - here) / STEP for step in steps], axis=1)

    def profile_of(self, shares: Float64) -> HardwareProfile:
        """Return the profile with the costs of these shares."""
        found = self._costs(shares)
        with np.errstate(divide="ignore"):
            bytes_per_s = 1.0 / found.s_per_byte
        return replace(
            self.profile,
            op_s=self.profile.op_s * shares[: self.frame.num_devices],
            latency_s=found.latency_s,
            bytes_per_s=bytes_per_s,
            subgraph_s=np.zeros(self.frame.num_devices),
            split_factor=found.split_factor,
            region_s=found.region_s,
            crossing_s=found.crossing_s,
        )

    def _costs(self, shares: Float64) -> Costs:
        number, pairs = self.frame.num_devices, list_pairs(self.frame.num_devices)
        ends = np.cumsum([number, number, len(pairs), len(pairs), number])
        factors, split, latencies, slowness, region_s, crossing_s = np.split(
            shares * self.unit_s, ends
        )
        latency_s, s_per_byte = np.zeros((number, number)), np.zeros((number, number))
        for pair, latency, slow in zip(pairs, latencies, slowness, strict=True):
            latency_s[pair], s_per_byte[pair] = latency, slow
        return replace(
            self.frame,
            compute_s=self.frame.compute_s * factors,
            latency_s=latency_s,
            s_per_byte=s_per_byte,
            split_factor=1.0 + split,
            region_s=region_s,
            crossing_s=crossing_s,
        )


def _counts(costs: Costs, columns: PlacementColumns) -> Float64:
    """Return how often each cost is paid, (num_costs, num_placements), if all ran in turn.

    Tensors that cross between regions of one device are not counted: the unit may be rough.
    """
    number, pairs = costs.num_devices, list_pairs(costs.num_devices)
    links = number + 2 * len(pairs)
    paid = np.stack([sequential(unit, columns) for unit in list_units(costs)[:links]])
    paid[:number] *= (columns != columns[0]).any(axis=0)  # the split factors
    sent = np.zeros((number, columns.shape[1]))
    np.add.at(sent, [source for source, _ in pairs], paid[number : number + len(pairs)])
    return np.concatenate([paid, _count_regions(costs, columns), sent])


def _count_regions(costs: Costs, columns: PlacementColumns) -> Float64:
    """Return the number of regions of each device, (num_devices, num_placements)."""
    is_root = np.arange(costs.num_groups)[:, None] == find_roots(costs, columns).T
    is_root &= ~costs.regional.is_idle[:, None]
    return np.stack(
        [((columns == device) & is_root).sum(axis=0) for device in range(costs.num_devices)]
    ).astype(np.float64)
