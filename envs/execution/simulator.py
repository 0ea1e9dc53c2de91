"""Placements timed by a plain cost model instead of a clock: the same everywhere, always."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from device_placement.envs.coarsening import CoarseGraph
from device_placement.envs.devices import Device, parse_devices
from device_placement.envs.errors import PlacementError
from device_placement.envs.execution.evaluation import Evaluation
from device_placement.envs.placement import check_assignment


@dataclass(frozen=True)
class DeviceRates:
    """The speed of one kind of device."""

    flops_per_s: float
    launch_s: float  # what beginning one op costs


# Round numbers for a desktop CPU, a mid-range GPU and an NPU; by the beginning of a name.
RATES = {
    "CPU": DeviceRates(flops_per_s=0.5e12, launch_s=1e-6),
    "GPU": DeviceRates(flops_per_s=5e12, launch_s=8e-6),
    "NPU": DeviceRates(flops_per_s=3e12, launch_s=5e-6),
}
BYTES_PER_S = 10e9  # between any two devices
TRANSFER_S = 10e-6  # what beginning one transfer costs


class SimulatedEvaluator:
    """Predicts the time of a placement; deterministic, and no device need be here.

    The ops run in topological order, one after another, each in launch + FLOPs / rate.
    A tensor that a group on another device reads is moved there once, in latency +
    bytes / bandwidth::

        time = sum_v (launch_d(v) + flops_v / rate_d(v))
             + sum_(t, d) (latency + bytes_t / bandwidth)

    Devices are told by their names: ``GPU.1`` is a GPU, and what is neither GPU nor NPU
    counts as a CPU.

    Args:
        coarse: the groups to place.
        devices: as `parse_devices` takes them.

    >>> from device_placement.envs import coarsen, load_model, read_graph
    >>> graph = read_graph(load_model("diamond"), "CPU,GPU", simulated=True)
    >>> evaluator = SimulatedEvaluator(coarsen(graph), "CPU,GPU")
    >>> evaluator.evaluate([0] * evaluator.coarse.num_groups).num_subgraphs
    1
    """

    def __init__(self, coarse: CoarseGraph, devices: str | Sequence[str | Device]) -> None:
        self.coarse = coarse
        self.devices = parse_devices(devices)
        self.reference = 0
        graph = coarse.graph
        rates = [_rates(device.name) for device in self.devices]
        runs = ~graph.is_constant
        op_times = np.stack(
            [runs * (rate.launch_s + graph.flops / rate.flops_per_s) for rate in rates], axis=1
        )
        self._group_times = np.zeros((coarse.num_groups, len(rates)))
        np.add.at(self._group_times, coarse.op_group, op_times)
        self._read_tensors(coarse)

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        """Predict the time of one device per group, (num_groups,)."""
        groups = np.asarray(assignment, dtype=np.int64)
        try:
            check_assignment(self.coarse, groups, len(self.devices))
        except PlacementError as error:
            return Evaluation.invalid(str(error))
        compute_s = self._group_times[np.arange(groups.size), groups].sum()
        time_s = float(compute_s + self._transfer_s(groups))
        return Evaluation(
            time_s=time_s,
            samples_s=(time_s,),
            interval_s=(time_s, time_s),
            num_subgraphs=self._count_subgraphs(groups),
        )

    def _read_tensors(self, coarse: CoarseGraph) -> None:
        """Tensors that leave their group, and the groups that read them."""
        graph = coarse.graph
        producer, consumer = coarse.op_group[graph.edge_index]
        leaves = (producer != consumer) & ~graph.is_constant[graph.edge_index[0]]
        keys = np.stack([graph.edge_index[0], graph.edge_port], axis=1)[leaves]
        _, first, self._edge_tensor = np.unique(
            keys, axis=0, return_index=True, return_inverse=True
        )
        self._edge_consumer = consumer[leaves]
        self._tensor_producer = producer[leaves][first]
        self._tensor_s = TRANSFER_S + graph.edge_bytes[leaves][first] / BYTES_PER_S

    def _transfer_s(self, groups: np.ndarray) -> float:
        wanted = np.zeros((self._tensor_s.size, len(self.devices)), dtype=np.bool_)
        wanted[self._edge_tensor, groups[self._edge_consumer]] = True
        wanted[np.arange(self._tensor_s.size), groups[self._tensor_producer]] = False
        return float(self._tensor_s @ wanted.sum(axis=1))

    def _count_subgraphs(self, groups: np.ndarray) -> int:
        """Connected regions of one device."""
        edges = self.coarse.edge_index
        inner = edges[:, groups[edges[0]] == groups[edges[1]]]
        shape = (groups.size, groups.size)
        graph = coo_array((np.ones(inner.shape[1]), (inner[0], inner[1])), shape=shape)
        count, _ = connected_components(graph, directed=False)
        return int(count)


def _rates(name: str) -> DeviceRates:
    return next((rates for kind, rates in RATES.items() if name.startswith(kind)), RATES["CPU"])
