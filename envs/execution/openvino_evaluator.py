"""The evaluator whose times are real: OpenVINO compiles and runs each placement."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence

import numpy as np
import openvino as ov

from device_placement.envs.coarsening import CoarseGraph
from device_placement.envs.devices import Device, make_core, parse_devices
from device_placement.envs.errors import DevicePlacementError, PlacementError, choose
from device_placement.envs.execution.evaluation import Evaluation
from device_placement.envs.execution.measure import (
    HINTS,
    build_program,
    count_subgraphs,
    take_samples,
)
from device_placement.envs.execution.timing import Timing, median_interval
from device_placement.envs.placement import Placement


class OpenVINOEvaluator:
    """Measures placements of one model with OpenVINO's HETERO plugin.

    A placement that was evaluated before is not run again: its evaluation comes back
    with ``cached=True``. Compile and run failures are invalid evaluations that carry
    OpenVINO's message.

    Args:
        model: the normalised model.
        coarse: its groups, for the same devices.
        devices: as `parse_devices` takes them.
        objective: ``latency`` or ``throughput``.
        timing: the protocol of one measurement.
        core: one made by `make_core` for these devices; made anew without.

    Raises:
        DeviceError: when a device is not here or can't be loaded.
        DevicePlacementError: on an unknown objective.

    >>> from device_placement.envs import coarsen, load_model, read_graph
    >>> model = load_model("diamond")
    >>> coarse = coarsen(read_graph(model, "auto"))
    >>> evaluator = OpenVINOEvaluator(model, coarse, "auto")
    >>> evaluator.evaluate([0] * coarse.num_groups).valid
    True
    """

    def __init__(
        self,
        model: ov.Model,
        coarse: CoarseGraph,
        devices: str | Sequence[str | Device],
        *,
        objective: str = "latency",
        timing: Timing | None = None,
        core: ov.Core | None = None,
    ) -> None:
        choose("objective", objective, HINTS)
        self.model = model
        self.coarse = coarse
        self.devices = parse_devices(devices)
        self.objective = objective
        self.timing = timing or Timing()
        self.core = core or make_core(self.devices)
        if coarse.graph.devices != tuple(device.name for device in self.devices):
            raise DevicePlacementError(
                f"The groups were made for the devices {coarse.graph.devices}, not for "
                f"{[device.name for device in self.devices]}; read the graph with these devices."
            )
        self._known: dict[bytes, Evaluation] = {}

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        """Compile and time one device per group, (num_groups,), or recall its evaluation."""
        key = np.asarray(assignment, dtype=np.int16).tobytes()
        if key in self._known:
            return dataclasses.replace(self._known[key], cached=True)
        self._known[key] = self._measure(assignment)
        return self._known[key]

    def _measure(self, assignment: Sequence[int]) -> Evaluation:
        try:
            placement = Placement.from_groups(self.coarse, self.devices, assignment)
        except PlacementError as error:
            return Evaluation.invalid(str(error))
        model = self.model.clone()
        placement.set_affinities(model)
        try:
            program = build_program(self.core, model, placement.hetero_name, self.objective)
            num_subgraphs, compile_s = count_subgraphs(program.compiled), program.compile_s
            start = time.perf_counter()
            samples = take_samples(program, self.timing)
            del program
            run_s = time.perf_counter() - start
        except RuntimeError as error:
            return Evaluation.invalid(str(error).strip())
        return Evaluation(
            time_s=statistics.median(samples),
            samples_s=samples,
            interval_s=median_interval(samples),
            num_subgraphs=num_subgraphs,
            compile_s=compile_s,
            run_s=run_s,
        )
