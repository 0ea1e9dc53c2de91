"""Fit of device, transfer and subgraph costs to the measured times of placements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Float64
from device_placement.envs.costs import Costs
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.simulation.profile import HardwareProfile
from device_placement.envs.simulation.schedule import sequential

OUTLIER = 0.02  # relative errors beyond this weigh linearly instead of quadratically
FORMULA = (
    "time = sum over devices d of f(d) profiled(d) + s(d) subgraphs(d), and over pairs (a, b) of "
    "l(a, b) moves(a, b) + bytes(a, b) / w(a, b); f, s, l and w are fitted"
)
MIN_FACTOR = 0.1  # lower bound of factors on op times, so that no device becomes free
NEGLIGIBLE = 1e-6  # a cost with a smaller share of the time is set to 0


@dataclass(frozen=True)
class Agreement:
    """Agreement of predicted times with measured ones."""

    num_placements: int
    mean_error: float  # mean of |predicted / measured - 1|; NaN without placements
    rank_correlation: float  # Spearman's; NaN where all times of one kind are the same

    @classmethod
    def between(cls, predicted_s: Float64, measured_s: Float64) -> Agreement:
        """Compare two arrays of (num_placements,) seconds, and return their agreement.

        >>> Agreement.between(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
        Agreement(num_placements=3, mean_error=0.08333333333333333, rank_correlation=1.0)
        """
        from scipy.stats import rankdata

        error = correlation = float("nan")
        if measured_s.size:
            error = float(np.abs(predicted_s / measured_s - 1).mean())
        if measured_s.size and np.ptp(predicted_s) and np.ptp(measured_s):
            ranks = rankdata(predicted_s), rankdata(measured_s)
            correlation = float(np.corrcoef(*ranks)[0, 1])
        return cls(int(measured_s.size), error, correlation)


def calibrate(
    profile: HardwareProfile,
    coarse: CoarseGraph,
    placements: NDArray[np.integer],
    times_s: Sequence[float] | Float64,
) -> HardwareProfile:
    """Return the profile whose `sequential` times are nearest to the measured ones.

    The fit has a factor f of at least `MIN_FACTOR` on the op times of each device, latency l and
    bandwidth w of each ordered pair of devices, and the extra cost s of each subgraph on a
    device. The time is linear in f, s, l and 1 / w (`FORMULA`).

    It is non-negative least squares on the relative errors with the soft L1 loss (SciPy's
    ``least_squares``), so that outliers have little weight. Costs that the placements can't
    distinguish may be attributed to either.

    Args:
        profile: its op times are multiplied by the factors; its other costs are replaced.
        coarse: the groups that were placed.
        placements: (num_placements, num_groups) device numbers.
        times_s: (num_placements,) measured.

    Raises:
        PlacementError: when the profile is of another model.
    """
    costs = profile.costs(coarse)
    devices = np.ascontiguousarray(np.asarray(placements).T, dtype=np.uint8)
    columns = [sequential(unit, devices) for unit in list_units(costs)]
    lowest = np.zeros(len(columns))
    lowest[: costs.num_devices] = MIN_FACTOR
    return _with_costs(profile, _fit(np.stack(columns, axis=1), np.asarray(times_s), lowest))


def list_pairs(num_devices: int) -> list[tuple[int, int]]:
    """Return the ordered pairs of different devices."""
    return [(a, b) for a in range(num_devices) for b in range(num_devices) if a != b]


def list_units(costs: Costs) -> list[Costs]:
    """Return, for each fitted cost, costs in which it is 1 and the others are 0."""
    number = costs.num_devices
    nothing = replace(
        costs,
        compute_s=np.zeros_like(costs.compute_s),
        latency_s=np.zeros((number, number)),
        s_per_byte=np.zeros((number, number)),
        subgraph_s=np.zeros(number),
    )
    links = [_one((number, number), pair) for pair in list_pairs(number)]
    return [
        *(replace(nothing, compute_s=_column(costs.compute_s, d)) for d in range(number)),
        *(replace(nothing, latency_s=link) for link in links),
        *(replace(nothing, s_per_byte=link) for link in links),
        *(replace(nothing, subgraph_s=_one((number,), (d,))) for d in range(number)),
    ]


def _one(shape: tuple[int, ...], place: tuple[int, ...]) -> Float64:
    values = np.zeros(shape)
    values[place] = 1.0
    return values


def _column(values: Float64, device: int) -> Float64:
    kept = np.zeros_like(values)
    kept[:, device] = values[:, device]
    return kept


def _fit(columns: Float64, times_s: Float64, lowest: Float64) -> Float64:
    """Return each cost, (num_costs,), from how often it is paid, (num_placements, num_costs).

    No cost is below `lowest`, (num_costs,); a cost that no placement pays is NaN.
    """
    from scipy.optimize import least_squares

    paid = columns.any(axis=0)
    relative = columns[:, paid] / times_s[:, None]
    mean = relative.mean(axis=0)  # scales all columns alike, so that one step size suits all
    matrix: Float64 = relative / mean

    def errors(shares: Float64) -> Float64:
        return np.asarray(matrix @ shares - 1)

    def slopes(_: Float64) -> Float64:
        return matrix

    low = lowest[paid] * mean
    found = least_squares(
        errors,
        np.maximum(1 / len(mean), 2 * low),
        jac=slopes,
        bounds=(low, np.inf),
        loss="soft_l1",
        f_scale=OUTLIER,
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
    )
    values = np.full(columns.shape[1], np.nan)
    values[paid] = np.where(found.x > NEGLIGIBLE, found.x, 0.0) / mean
    return values


def _with_costs(profile: HardwareProfile, values: Float64) -> HardwareProfile:
    """Return the profile with its costs replaced by fitted ones, in the order of `list_units`."""
    number = len(profile.devices)
    pairs = list_pairs(number)
    factors, latencies, s_per_byte, subgraphs = np.split(
        values, np.cumsum([number, len(pairs), len(pairs)])
    )
    latency_s, bytes_per_s = np.zeros((number, number)), np.full((number, number), np.inf)
    for pair, latency, slowness in zip(pairs, latencies, s_per_byte, strict=True):
        latency_s[pair] = np.nan_to_num(latency)
        bytes_per_s[pair] = 1 / slowness if slowness > 0 else np.inf
    return replace(
        profile,
        op_s=profile.op_s * np.where(np.isnan(factors), 1.0, factors),
        latency_s=latency_s,
        bytes_per_s=bytes_per_s,
        subgraph_s=np.nan_to_num(subgraphs),
    )
