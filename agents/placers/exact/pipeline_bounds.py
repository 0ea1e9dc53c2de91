"""Lower bounds of the time under ``pipelined`` where data only goes forward, for many devices.

Exact programs have a variable per group and device, too many for tens of devices. Here devices are
merged instead: a placement on a line of devices is also one on fewer, larger ones, so an optimum of
those is a bound. Three blocks are those of "Practical Performance Guarantees for Pipelined DNN
Inference" (arXiv 2311.03703): all devices before one, this one, all after it; a mixed-integer
program solves them. In addition, chains of groups are cut among all devices at once, by dynamic
programming: what lies between two groups of a chain is where they are, if they are on one device.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_placement.envs.arrays import Bool, Float64, Int64
from device_placement.envs.costs import Costs

PRECISION = 1e-6  # relative, of a bound by chains
SLACK = 1 + 1e-9  # sums may be rounded differently
TOLERANCE = 1e-4  # of the mixed-integer solver, which takes 1e-6 of each variable for whole


def pipeline_bound(costs: Costs, seconds: float = 10.0) -> float:
    """Return a time in seconds that no placement is below under ``pipelined``.

    Args:
        costs: of the groups; without the constraint ``acyclic``, only loads bound the time.
        seconds: limit of the mixed-integer programs; bounds by loads and chains take no limit.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator(
    ...     "diamond", "NPU.0,NPU.1,NPU.2", evaluator="simulator", hardware="mcm",
    ...     schedule="pipelined", constraints="acyclic,no_skip"
    ... )
    >>> bound_s = pipeline_bound(evaluator.costs)
    >>> load_bound(evaluator.costs) <= bound_s <= evaluator.evaluate([0, 1, 1, 2]).time_s
    True
    """
    bound_s = load_bound(costs)
    if "acyclic" not in costs.constraints:
        return bound_s
    bound_s = max(bound_s, chain_bound(costs))
    deadline = time.perf_counter() + seconds
    middles = _spread(costs.num_devices)
    for number, device in enumerate(middles):
        left_s = deadline - time.perf_counter()
        if left_s <= 0:
            break
        share_s = left_s / (len(middles) - number)
        bound_s = max(bound_s, block_bound(costs, device, bound_s, share_s))
    return bound_s


def load_bound(costs: Costs) -> float:
    """Return the time of the largest group, or an even share of all times, if that is more.

    Each group counts with its least time, in seconds.
    """
    least_s = costs.compute_s.min(axis=1)
    return float(max(least_s.max(), least_s.sum() / costs.num_devices))


def _spread(devices: int) -> list[int]:
    """Return device numbers, the middle one first.

    >>> _spread(5)
    [2, 1, 3, 0, 4]
    """
    return sorted(range(devices), key=lambda device: (abs(device - (devices - 1) // 2), device))


@dataclass(frozen=True)
class _Sums:
    """Least times and weights of what comes before, after and between the groups of a chain."""

    chain: Int64  # (length,) groups
    before: Float64  # (2, length) seconds and bytes of a group and all that lead to it
    after: Float64  # (2, length) of a group and all that it leads to
    between: Float64  # (2, length, length) of all between two groups and of these; 0 below


def chain_bound(costs: Costs) -> float:
    """Return a bound in seconds by cutting chains of groups, for ``acyclic``.

    The chains are the one that takes longest and the one with the most groups. For a time T, each
    group of a chain gets the first device it can be on: those that lead to it must fit before it,
    those that it leads to after it, and one device holds of the chain only what, with all between,
    takes at most T and fits into its memory. If some group gets none, T is a bound.
    """
    least_s = costs.compute_s.min(axis=1)
    reach = _reach(costs)
    bound_s = load_bound(costs)
    for length in (least_s, np.ones_like(least_s)):
        sums = _sums(costs, least_s, reach, _longest_chain(costs, length))
        low_s, high_s = bound_s, float(least_s.sum()) * SLACK
        if _fits(costs, sums, low_s):
            continue
        while high_s - low_s > PRECISION * low_s:
            middle_s = (low_s + high_s) / 2
            if _fits(costs, sums, middle_s):
                high_s = middle_s
            else:
                low_s = middle_s
        bound_s = low_s
    return bound_s


def _reach(costs: Costs) -> Bool:
    """Return whether data of the first gets to the second, or they are one, (groups, groups)."""
    reach = np.eye(costs.num_groups, dtype=np.bool_)
    for producer, reader in sorted(costs.edges.T.tolist(), reverse=True):  # readers first
        reach[producer] |= reach[reader]
    return reach


def _longest_chain(costs: Costs, length: Float64) -> Int64:
    """Return the groups of the path with the greatest sum of lengths, the first one first."""
    readers: list[list[int]] = [[] for _ in length]
    for producer, reader in costs.edges.T.tolist():
        readers[producer].append(reader)
    total, follower = length.copy(), np.full(len(length), -1)
    for group in range(len(length) - 1, -1, -1):
        if readers[group]:
            best = max(readers[group], key=lambda reader: float(total[reader]))
            total[group] += total[best]
            follower[group] = best
    chain = [int(total.argmax())]
    while follower[chain[-1]] >= 0:
        chain.append(int(follower[chain[-1]]))
    return np.array(chain, dtype=np.int64)


def _sums(costs: Costs, least_s: Float64, reach: Bool, chain: Int64) -> _Sums:
    both = np.stack([least_s, costs.group_bytes])
    from_chain, to_chain = reach[chain].astype(float), reach[:, chain].astype(float)
    return _Sums(
        chain,
        before=both @ to_chain,
        after=both @ from_chain.T,
        between=np.stack([(from_chain * one) @ to_chain for one in both]),
    )


def _fits(costs: Costs, sums: _Sums, time_s: float) -> bool:
    """Return whether a chain can be cut so that nothing takes longer than a time, as far as seen.

    ``first[j]`` is the lowest device that group j of the chain can be on. If i is the first of the
    chain on that device, it is the one after that of i - 1, or a later one.
    """
    devices, size = costs.num_devices, sums.chain.size
    limit = costs.reachable_bytes()
    below, above = limit.cumsum(), limit[::-1].cumsum()  # bytes of the first and last devices
    lowest = np.maximum(
        np.ceil(sums.before[0] / (time_s * SLACK) - 1e-9) - 1,
        np.searchsorted(below * SLACK, sums.before[1]),
    )
    highest = devices - np.maximum(
        np.ceil(sums.after[0] / (time_s * SLACK) - 1e-9),
        np.searchsorted(above * SLACK, sums.after[1]) + 1,
    )
    together = (sums.between[0] <= time_s * SLACK) & (sums.between[1] <= limit.max() * SLACK)
    first = np.full(size + 1, np.inf)
    first[0] = -1  # the device of what comes before the chain
    for last in range(size):
        begins = together[: last + 1, last]
        device = np.maximum(first[: last + 1] + 1, lowest[last])
        device = np.where(begins & (device <= highest[: last + 1]), device, np.inf)
        first[last + 1] = device.min()
    return bool(first[-1] < devices)


def block_bound(costs: Costs, device: int, least_s: float, seconds: float) -> float:
    """Return a bound in seconds by three blocks: devices before one, this one, those after it.

    The program has two binary variables for each group: whether it is before the device, and
    whether it is before it or on it. Blocks have as much time and memory as their devices together.

    Args:
        costs: of the groups.
        device: the middle block.
        least_s: a bound that is known, in seconds.
        seconds: limit; after it, what is proven by then.
    """
    import scipy.optimize
    import scipy.sparse

    groups = costs.num_groups
    unit_s = least_s or 1.0  # times are relative to it
    blocks = [range(device), range(device, device + 1), range(device + 1, costs.num_devices)]
    total = float(costs.group_bytes.sum()) or 1.0
    rows: list[Float64] = []
    upper: list[float] = []
    for number, block in enumerate(blocks):
        compute_s = costs.compute_s[:, list(block)].min(axis=1, initial=np.inf) / unit_s
        row, constant = _inside(number, np.where(np.isfinite(compute_s), compute_s, 0.0))
        row[-1] = -len(block)
        rows.append(row)
        upper.append(-constant)
        room = float(costs.reachable_bytes()[list(block)].sum()) / total
        if np.isfinite(room):
            row, constant = _inside(number, costs.group_bytes / total)
            rows.append(row)
            upper.append(room * SLACK - constant)
    ends = np.full(groups, float(len(blocks[0]) > 0)), np.full(groups, float(not blocks[2]))
    order = _ordered(costs.edges.astype(np.int64), groups)
    found = scipy.optimize.milp(
        np.append(np.zeros(2 * groups), 1.0),
        integrality=np.append(np.ones(2 * groups), 0.0),
        bounds=scipy.optimize.Bounds(
            np.concatenate([np.zeros(groups), ends[1], [1.0]]),
            np.concatenate([ends[0], np.ones(groups), [np.inf]]),
        ),
        constraints=scipy.optimize.LinearConstraint(
            scipy.sparse.vstack([scipy.sparse.csr_array(np.array(rows)), order], format="csr"),
            ub=np.append(upper, np.zeros(order.shape[0])),
        ),
        options={"time_limit": max(seconds, 0.01), "mip_rel_gap": PRECISION},
    )
    proven = found.mip_dual_bound
    if proven is None or not np.isfinite(proven):
        return least_s
    return max(least_s, float(proven) * unit_s * (1 - TOLERANCE))


def _inside(block: int, size: Float64) -> tuple[Float64, float]:
    """Return a row, (2 * num_groups + 1,), and a constant: what a block holds of some sizes."""
    none = np.zeros_like(size)
    before, until, constant = ((size, none, 0.0), (-size, size, 0.0), (none, -size, size.sum()))[
        block
    ]
    return np.concatenate([before, until, [0.0]]), float(constant)


def _ordered(edges: Int64, groups: int) -> Any:
    """Return rows that are at most 0: no reader is before its producer, nor a block before itself.

    Sparse, (2 * num_edges + num_groups, 2 * num_groups + 1).
    """
    import scipy.sparse

    (producer, reader), every = edges, np.arange(groups)
    more = np.concatenate([reader, reader + groups, every])
    less = np.concatenate([producer, producer + groups, every + groups])
    row = np.arange(more.size)
    values = np.append(np.ones(more.size), -np.ones(more.size))
    return scipy.sparse.csr_array(
        (values, (np.append(row, row), np.append(more, less))),
        shape=(more.size, 2 * groups + 1),
    )
