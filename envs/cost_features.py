"""Cost features: the costs of a problem, and the state of its partial schedule, as observations.

All are free of units. Times are divided by the mean time m of a group on its fastest device, or by
the sum S of these, and then compressed by sl(x) = sign(x) log(1 + |x|). Renumbering devices, or
groups in another topological order, renumbers the features of the problem in the same way; only
those of runs belong to one order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from device_placement.envs.arrays import Float32, Float64, Int32, Int64
from device_placement.envs.costs import Costs
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.observation import (
    DEVICE_COSTS,
    EDGE_COSTS,
    GRAPH_COSTS,
    GROUP_COSTS,
    GROUP_DEVICE_COSTS,
    PARTIAL_SCHEDULE,
    Layout,
    Observation,
)
from device_placement.envs.simulation.lookahead import run_rest_s
from device_placement.envs.simulation.partial_kernels import (
    AS_IT_IS,
    EXCESS,
    OVER_GROUP,
    OVER_TOTAL,
    scale_features,
)
from device_placement.envs.simulation.partial_schedule import (
    TIMINGS,
    Outlook,
    PaddedTable,
    PartialSchedules,
)

MOST = 8.0  # of the absolute value of a feature
SEVERAL = 2.0  # of a share that may be more than all


@dataclass(frozen=True)
class KnownCosts:
    """Costs of a problem as an agent sees them."""

    costs: Costs
    schedule: str  # a name of `SCHEDULES`
    knows_transfers: bool = True  # False: only the times of groups are known


@dataclass(frozen=True)
class Levels:
    """Sums along the paths of a graph, in seconds."""

    top: Float64  # (num_groups,) longest path to the start of each group
    bottom: Float64  # (num_groups,) longest path from its start to the end


@dataclass(frozen=True)
class Scales:
    """Quantities of a problem that its features are relative to, and that partial ones need."""

    group_s: float  # m
    total_s: float  # S
    fastest_s: Float64  # (num_groups,) on the fastest device
    mean_s: Float64  # (num_groups,) over the devices that run the group
    # (num_devices,) of all groups; those that a device can't run count with their mean
    device_s: Float64
    move_s: Float64  # (num_tensors,) mean over all pairs of devices
    mean_levels: Levels  # of mean times and half of the moves
    least_levels: Levels  # of the fastest times
    input_bytes: Float64  # (num_groups,)
    weight_bytes: float  # of the model, at least 1

    @classmethod
    def of(cls, costs: Costs) -> Scales:
        """Return the scales of a problem."""
        runs = np.isfinite(costs.compute_s)
        count = np.maximum(runs.sum(axis=1), 1)
        fastest_s = np.where(runs, costs.compute_s, np.inf).min(axis=1)
        fastest_s[~np.isfinite(fastest_s)] = 0.0
        mean_s = np.where(runs, costs.compute_s, 0.0).sum(axis=1) / count
        pairs = max(costs.num_devices * (costs.num_devices - 1), 1)
        per_byte, latency_s = costs.s_per_byte.sum() / pairs, costs.latency_s.sum() / pairs
        move_s = latency_s + costs.tensor_bytes * per_byte
        # Of a model that computes nothing, the moves; of one without either, seconds.
        total_s = float(fastest_s.sum()) or float(move_s.sum()) or 1.0
        tensor = np.repeat(np.arange(costs.num_tensors), np.diff(costs.reader_start))
        ends = costs.tensor_group[tensor], costs.reader
        return cls(
            group_s=total_s / costs.num_groups,
            total_s=total_s,
            fastest_s=fastest_s,
            mean_s=mean_s,
            device_s=np.where(runs, costs.compute_s, mean_s[:, None]).sum(axis=0),
            move_s=move_s,
            mean_levels=_levels(mean_s, *ends, move_s[tensor] / 2),
            least_levels=_levels(fastest_s, *ends, np.zeros(tensor.size)),
            input_bytes=np.asarray(
                np.bincount(costs.reader, costs.tensor_bytes[tensor], minlength=costs.num_groups),
                dtype=np.float64,
            ),
            weight_bytes=max(float(costs.group_bytes.sum()), 1.0),
        )


def _levels(work_s: Float64, producer: Int32, reader: Int32, move_s: Float64) -> Levels:
    """Return the levels of groups; edges are ordered by their producers."""
    edges = [*zip(producer.tolist(), reader.tolist(), move_s.tolist(), strict=True)]
    seconds = work_s.tolist()
    top, bottom = [0.0] * len(seconds), [0.0] * len(seconds)
    for one, other, move in edges:
        top[other] = max(top[other], top[one] + seconds[one] + move)
    for one, other, move in reversed(edges):
        bottom[one] = max(bottom[one], bottom[other] + seconds[other] + move)
    return Levels(np.array(top), np.array(bottom) + work_s)


def cost_arrays(known: KnownCosts, coarse: CoarseGraph, layout: Layout) -> Observation:
    """Return the constant arrays of a problem's costs, padded with zeros.

    Args:
        known: costs of the groups.
        coarse: the groups.
        layout: the sizes to pad to.
    """
    costs, scales = known.costs, Scales.of(known.costs)
    values = {
        "group_device_costs": _group_device_costs(costs, scales),
        "group_costs": _group_costs(costs, scales),
        "edge_costs": _edge_costs(costs, scales, coarse),
        "device_costs": _device_costs(costs, scales),
        "graph_costs": _graph_costs(known, scales),
    }
    groups, edges, devices = layout.max_groups, layout.max_edges, layout.num_devices
    result: Observation = {
        "group_device_costs": np.zeros((groups, devices, len(GROUP_DEVICE_COSTS)), np.float32),
        "group_costs": np.zeros((groups, len(GROUP_COSTS)), np.float32),
        "edge_costs": np.zeros((edges, len(EDGE_COSTS)), np.float32),
        "device_costs": np.zeros((devices, len(DEVICE_COSTS)), np.float32),
        "graph_costs": np.zeros(len(GRAPH_COSTS), np.float32),
    }
    for key, array in values.items():
        result[key][tuple(slice(size) for size in array.shape)] = np.clip(array, -MOST, MOST)
    pairs = result["group_device_costs"]
    result["group_device_costs"] = pairs.reshape(groups * devices, -1)
    result["costs_known"] = np.array([1, known.knows_transfers], dtype=np.int8)
    return result


def compress(x: Float64) -> Float64:
    """Return sign(x) log(1 + |x|), at most 8 in size; 0 for NaN.

    >>> compress(np.array([0.0, np.e - 1, -np.inf])).tolist()
    [0.0, 1.0, -8.0]
    """
    found = np.sign(x) * np.log1p(np.abs(x))
    return np.asarray(np.nan_to_num(np.clip(found, -MOST, MOST), nan=0.0))


def _share(ones: Float64, others: Float64) -> Float64:
    """Return ones / others, from 0 to 2; 2 where others are 0."""
    safe = np.where(others > 0, others, 1.0)
    return np.asarray(np.clip(np.where(others > 0, ones / safe, SEVERAL), 0.0, SEVERAL))


def _ratio(ones: Float64, others: Float64 | float) -> Float64:
    """Return log(ones / others); 0 where either is 0."""
    valid = (ones > 0) & (others > 0)
    return np.asarray(np.log(np.where(valid, ones, 1.0) / np.where(valid, others, 1.0)))


def _group_device_costs(costs: Costs, scales: Scales) -> Float64:
    runs = np.isfinite(costs.compute_s)
    compute_s = np.where(runs, costs.compute_s, 0.0)
    run_s = costs.compute_s + run_rest_s(costs)[1:]
    columns = [
        compress(compute_s / scales.group_s),
        _ratio(compute_s, scales.fastest_s[:, None]),
        compress((compute_s - scales.mean_s[:, None]) / scales.group_s),
        compress((run_s - run_s.min(axis=1, keepdims=True)) / scales.group_s),
    ]
    return np.stack([runs, *(np.where(runs, column, 0.0) for column in columns)], axis=2)


def _group_costs(costs: Costs, scales: Scales) -> Float64:
    incoming_s = np.zeros(costs.num_groups)
    outgoing_s = np.bincount(costs.tensor_group, scales.move_s, minlength=costs.num_groups)
    tensor = np.repeat(np.arange(costs.num_tensors), np.diff(costs.reader_start))
    np.add.at(incoming_s, costs.reader, scales.move_s[tensor])
    paths = [scales.mean_levels, scales.least_levels]
    return np.stack(
        [
            compress(scales.fastest_s / scales.group_s),
            *(part / scales.total_s for one in paths for part in (one.top, one.bottom)),
            compress(incoming_s / scales.group_s),
            compress(outgoing_s / scales.group_s),
            costs.group_bytes / scales.weight_bytes,
            np.isfinite(costs.compute_s).mean(axis=1),
        ],
        axis=1,
    )


def _edge_costs(costs: Costs, scales: Scales, coarse: CoarseGraph) -> Float64:
    """Return the features of the coarse graph's edges; one that moves constants takes no time."""
    producer, reader = coarse.edge_index.astype(np.int64)
    tensor = np.repeat(np.arange(costs.num_tensors), np.diff(costs.reader_start))
    pair = costs.tensor_group[tensor].astype(np.int64) * costs.num_groups + costs.reader
    keys, place = np.unique(pair, return_inverse=True)
    sums = np.append(np.bincount(place, scales.move_s[tensor], minlength=len(keys)), 0.0)
    wanted = producer * costs.num_groups + reader
    found = np.searchsorted(keys, wanted)
    found[~np.isin(wanted, keys)] = len(keys)
    move_s = sums[found]
    return np.stack(
        [
            compress(move_s / scales.group_s),
            1.0 / np.bincount(producer, minlength=costs.num_groups)[producer],
            1.0 / np.bincount(reader, minlength=costs.num_groups)[reader],
            move_s > scales.mean_s[reader],
        ],
        axis=1,
    )


def _device_costs(costs: Costs, scales: Scales) -> Float64:
    runs = np.isfinite(costs.compute_s)
    total_s = scales.device_s
    others = max(costs.num_devices - 1, 1)
    tensors = max(costs.num_tensors, 1)
    mean_bytes = costs.tensor_bytes.sum() / tensors
    move_s = costs.latency_s + mean_bytes * costs.s_per_byte
    room = np.minimum(costs.reachable_bytes() / scales.weight_bytes, 1.0)
    alike = np.isclose(costs.compute_s[:, :, None], costs.compute_s[:, None, :]).all(axis=0)
    return np.stack(
        [
            _ratio(total_s, scales.total_s),
            _ratio(total_s, total_s.min()),
            1.0 - runs.mean(axis=0),
            room,
            (alike.sum(axis=1) - 1) / others,
            (total_s[None, :] < total_s[:, None]).sum(axis=1) / others,
            compress(move_s.sum(axis=0) / others / scales.group_s),
            compress(move_s.sum(axis=1) / others / scales.group_s),
        ],
        axis=1,
    )


def _graph_costs(known: KnownCosts, scales: Scales) -> Float64:
    costs = known.costs
    numbers = [
        scales.mean_levels.bottom.max() / scales.total_s,
        scales.least_levels.bottom.max() / scales.total_s,
        *compress(np.array([scales.move_s.mean() if costs.num_tensors else 0.0]) / scales.group_s),
        *compress(np.array([scales.move_s.sum()]) / scales.total_s),
        np.log(costs.num_groups),
        np.log(costs.num_devices),
    ]
    return np.array([*numbers, *(name == known.schedule for name in TIMINGS)])


class PartialFeatures:
    """Features of the next group on each device, for many rows of several problems.

    Args:
        problems: what is known of each.
        num_rows: number of partial schedules; all begin with the first problem.
    """

    def __init__(self, problems: Sequence[KnownCosts], num_rows: int) -> None:
        costs = [one.costs for one in problems]
        self.partial = PartialSchedules(costs, [one.schedule for one in problems], num_rows)
        self._table = PaddedTable(len(problems))
        for number, one in enumerate(problems):
            self._put(number, one)

    def replace(self, problem: int, known: KnownCosts) -> None:
        """Replace a problem by another one; call `begin` for the rows that had it."""
        self.partial.replace(problem, known.costs, known.schedule)
        self._put(problem, known)

    def _put(self, problem: int, known: KnownCosts) -> None:
        costs, scales = known.costs, Scales.of(known.costs)
        work_s = np.where(np.isfinite(costs.compute_s), costs.compute_s, 0.0)
        end = [(0, 1)]  # one more row, for the cursor after the last group
        self._table.put(
            problem,
            num_groups=np.float64(costs.num_groups),
            group_s=np.float64(scales.group_s),
            total_s=np.float64(scales.total_s),
            weight_bytes=np.float64(scales.weight_bytes),
            input_bytes=np.pad(np.maximum(scales.input_bytes, 1.0), end, constant_values=1.0),
            tail_s=np.pad(scales.mean_levels.bottom - scales.mean_s, end),
            # Of the group and those after it.
            remaining_s=np.pad(work_s[::-1].cumsum(axis=0)[::-1], [*end, (0, 0)]),
            left_bytes=np.pad(costs.group_bytes[::-1].cumsum()[::-1], end),
            group_bytes=np.pad(costs.group_bytes, end),
        )

    def begin(self, rows: Int64, problems: Int64) -> Float32:
        """Begin other problems in some rows, and return the features of their first groups.

        Args:
            rows: (count,) which rows.
            problems: (count,) the new problem of each.

        Returns:
            (count, max_devices, len(PARTIAL_SCHEDULE)); zeros for devices that a problem lacks.
        """
        return self._features(rows, self.partial.begin(rows, problems))

    def place(self, rows: Int64, devices: Int64) -> Float32:
        """Place the next group of some rows, and return the features of the groups after them.

        Args:
            rows: (count,) which rows; none has all its groups placed.
            devices: (count,) the device of each.

        Returns:
            (count, max_devices, len(PARTIAL_SCHEDULE)); zeros where all groups are placed.
        """
        return self._features(rows, self.partial.place(rows, devices))

    def _features(self, rows: Int64, outlook: Outlook) -> Float32:
        partial, table = self.partial, self._table
        problem, cursor = partial.problem[rows], partial.cursor[rows, None]
        at = problem, cursor[:, 0]
        num_groups = table["num_groups"][problem, None]
        runs = np.isfinite(outlook.compute_s) & (cursor < num_groups)
        runs &= np.arange(runs.shape[1]) < partial.num_devices[problem, None]
        now_s, finish_s = partial.value_s[rows, None], outlook.finish_s
        room = outlook.room_bytes / table["weight_bytes"][problem, None]
        input_bytes = table["input_bytes"][at][:, None]
        group_bytes = table["group_bytes"][at][:, None]
        mean_bytes = table["weight_bytes"][problem, None] / num_groups
        ahead = partial.ahead(rows, outlook)
        features = np.empty((*runs.shape, len(PARTIAL_SCHEDULE)))
        with np.errstate(invalid="ignore"):  # inf - inf, after a device that can't run its group
            columns = (
                (AS_IT_IS, room >= 0),
                (EXCESS, finish_s),
                (EXCESS, outlook.arrival_s),
                (EXCESS, outlook.free_s),
                (OVER_GROUP, finish_s - partial.makespan_s[rows, None]),
                (EXCESS, outlook.compute_s + outlook.moves_s),
                (OVER_GROUP, outlook.moves_s),
                (EXCESS, outlook.value_s),
                (OVER_GROUP, outlook.value_s - now_s),
                (EXCESS, outlook.load_s),
                (AS_IT_IS, outlook.bytes_made / input_bytes),
                (AS_IT_IS, outlook.bytes_moved / input_bytes),
                (AS_IT_IS, outlook.bytes_made > 0),
                (AS_IT_IS, outlook.is_previous),
                (AS_IT_IS, np.clip(room, 0.0, 1.0)),
                (OVER_TOTAL, partial.load_s[rows]),
                (OVER_TOTAL, table["remaining_s"][at]),
                (OVER_TOTAL, now_s),
                (AS_IT_IS, cursor / num_groups),
                (EXCESS, finish_s + table["tail_s"][at][:, None]),
                (AS_IT_IS, partial.num_placed[rows] > 0),
                (
                    AS_IT_IS,
                    _share(outlook.room_bytes + group_bytes, table["left_bytes"][at][:, None]),
                ),
                (AS_IT_IS, compress(group_bytes / mean_bytes)),
                (OVER_GROUP, ahead.price_s),
                (EXCESS, ahead.estimate_s),
                (EXCESS, ahead.reached_s),
                (EXCESS, ahead.end_s),
                (AS_IT_IS, _share(outlook.load_s, ahead.end_s)),
            )
        for column, (_, values) in enumerate(columns):
            features[:, :, column] = values
        kinds = np.array([kind for kind, _ in columns])
        scales = table["group_s"][problem], table["total_s"][problem]
        scale_features(features, kinds, runs, *scales, MOST)
        return features.astype(np.float32)
