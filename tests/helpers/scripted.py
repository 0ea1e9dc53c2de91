"""Evaluators whose times are written down here, so that the best placement is known."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.devices import Device, parse_devices
from device_placement.envs.errors import PlacementError
from device_placement.envs.evaluation import BaseEvaluator, Evaluation
from device_placement.envs.factory import make_evaluator
from device_placement.envs.graph.coarsening import CoarseGraph, coarsen
from device_placement.envs.graph.computation_graph import ComputationGraph, read_graph
from device_placement.envs.models.loading import load_model
from device_placement.envs.placement import check_assignment
from device_placement.envs.simulation.simulator import SimulatedEvaluator

DEVICES = "CPU,GPU"
TimeFunction = Callable[[NDArray[np.int64]], float]  # (num_groups,) -> seconds


class ScriptedEvaluator(BaseEvaluator):
    """Times placements with a function instead of a clock, and counts how often it was asked.

    Args:
        coarse: the groups to place.
        devices: as `parse_devices` takes them.
        time_s: the time of one device per group, (num_groups,).
    """

    def __init__(
        self, coarse: CoarseGraph, devices: str | Sequence[str | Device], time_s: TimeFunction
    ) -> None:
        self.coarse = coarse
        self.devices = parse_devices(devices)
        self.time_s = time_s
        self.num_calls = 0

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        self.num_calls += 1
        groups = np.asarray(assignment, dtype=np.int64)
        try:
            check_assignment(self.coarse, groups, len(self.devices))
        except PlacementError as error:
            return Evaluation.invalid(str(error))
        time_s = self.time_s(groups)
        return Evaluation(time_s=time_s, samples_s=(time_s,), interval_s=(time_s, time_s))

    def ranked(self) -> list[tuple[float, list[int]]]:
        """All placements with their times, the best first."""
        every = product(range(len(self.devices)), repeat=self.coarse.num_groups)
        timed = [(self.time_s(np.array(placement)), list(placement)) for placement in every]
        return sorted(timed)


def additive(
    group_ms: Sequence[Sequence[float]] | NDArray[np.float64],  # (num_groups, num_devices)
    edge_index: NDArray[np.int32],  # (2, num_edges)
    transfer_ms: Sequence[float] | NDArray[np.float64],  # (num_edges,)
) -> TimeFunction:
    """The sum of the groups' times and of the transfers along edges between two devices."""
    groups, transfers = np.asarray(group_ms), np.asarray(transfer_ms)
    numbers = np.arange(len(groups))

    def time_s(assignment: NDArray[np.int64]) -> float:
        crossing = assignment[edge_index[0]] != assignment[edge_index[1]]
        return 1e-3 * float(groups[numbers, assignment].sum() + transfers @ crossing)

    return time_s


@functools.cache
def diamond_groups() -> CoarseGraph:
    return coarsen(read_graph(load_model("diamond"), DEVICES, simulated=True), "fusion")


def diamond_evaluator() -> ScriptedEvaluator:
    """The real `diamond` in four groups; the best gives `left` alone to the second device."""
    coarse = diamond_groups()
    source, left, right, join = [1.0, 2.0], [5.0, 1.0], [1.0, 5.0], [1.0, 2.0]
    times = additive([source, left, right, join], coarse.edge_index, [0.5] * coarse.num_edges)
    return ScriptedEvaluator(coarse, DEVICES, times)


def simulated_diamond() -> SimulatedEvaluator:
    """The diamond in the simulator; the best is the same, as costs but for moves are."""
    plain = make_evaluator("diamond", DEVICES, evaluator="simulator")
    op_s = np.zeros_like(plain.profile.op_s)
    _, first = np.unique(plain.coarse.op_group, return_index=True)
    op_s[first] = 1e-3 * np.array([[1.0, 2.0], [5.0, 1.0], [1.0, 5.0], [1.0, 2.0]])
    apart = 5e-4 * (1.0 - np.eye(2))
    profile = dataclasses.replace(plain.profile, op_s=op_s, latency_s=apart)
    return SimulatedEvaluator(plain.coarse, DEVICES, profile=profile)


def twelve_groups_evaluator() -> ScriptedEvaluator:
    """Two chains of six, the first sooner on device 0, the second on device 1.

    The trap: group 2 and group 8 alone are sooner on the other device, but the transfers to
    and from them cost more than that saves.
    """
    own, other, trap = 1.0, 2.0, (1.5, 1.0)
    group_ms = [[own, other]] * 6 + [[other, own]] * 6
    group_ms[2], group_ms[8] = [*trap], [*reversed(trap)]
    edges = [(group, group + 1) for group in range(11)] + [(0, 3), (6, 9)]
    transfer_ms = [0.2 if edge == (5, 6) else 0.8 for edge in edges]
    edge_index = np.array(edges, dtype=np.int32).T
    coarse = hand_made(12, edge_index, 1e3 * np.array(transfer_ms))
    return ScriptedEvaluator(coarse, DEVICES, additive(group_ms, edge_index, transfer_ms))


def hand_made(
    num_groups: int, edge_index: NDArray[np.int32], edge_bytes: NDArray[np.float64]
) -> CoarseGraph:
    """A coarse graph with one op a group, which every device supports."""
    num_edges, zeros = edge_index.shape[1], np.zeros(num_groups)
    names = tuple(device.name for device in parse_devices(DEVICES))
    graph = ComputationGraph(
        name="hand-made",
        model_hash="hand-made",
        op_names=tuple(f"{op}_MatMul" for op in range(num_groups)),
        op_types=("MatMul",) * num_groups,
        output_shapes=((1, 64),) * num_groups,
        is_constant=np.zeros(num_groups, dtype=np.bool_),
        flops=np.full(num_groups, 8192.0),
        bytes_in=zeros + 256.0,
        bytes_out=zeros + 256.0,
        weight_bytes=zeros,
        edge_index=edge_index,
        edge_port=np.zeros(num_edges, dtype=np.int32),
        edge_bytes=edge_bytes,
        devices=names,
        supported=np.ones((num_groups, len(names)), dtype=np.bool_),
        fusion_sets=(),
    )
    return CoarseGraph(
        graph=graph,
        method="none",
        op_group=np.arange(num_groups, dtype=np.int32),
        num_groups=num_groups,
        edge_index=edge_index,
        edge_bytes=edge_bytes,
        edge_tensors=np.ones(num_edges, dtype=np.int32),
        supported=graph.supported,
    )
