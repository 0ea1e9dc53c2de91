"""Placements timed by their costs instead of a clock: the same everywhere, always."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.devices import Device, parse_devices
from device_placement.envs.errors import PlacementError, choose
from device_placement.envs.evaluation import Evaluation
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.graph.computation_graph import Float64
from device_placement.envs.placement import check_assignment
from device_placement.envs.simulation.costs import Costs, read_costs
from device_placement.envs.simulation.profile import HardwareProfile
from device_placement.envs.simulation.roofline import derive_profile
from device_placement.envs.simulation.schedule import (
    SCHEDULES,
    broken_rules,
    count_subgraphs,
    schedule_times,
)


class SimulatedEvaluator:
    """Predicts the time of a placement; deterministic, and no device need be here.

    Args:
        coarse: the groups to place; its `supported` should leave out what the profile says
            a device can't run, as `make_evaluator` sees to.
        devices: as `parse_devices` takes them; those of the profile.
        profile: the costs; by default those of a desktop in round numbers.
        schedule: a name of `SCHEDULES`.
        colour: (num_groups,) groups of one colour, other than -1, must share a device.

    Raises:
        DevicePlacementError: on an unknown schedule or device.
        PlacementError: when the profile is of another model.

    >>> from device_placement.envs import coarsen, load_model, read_graph
    >>> graph = read_graph(load_model("diamond"), "CPU,GPU", simulated=True)
    >>> evaluator = SimulatedEvaluator(coarsen(graph), "CPU,GPU")
    >>> evaluator.evaluate([0] * evaluator.coarse.num_groups).num_subgraphs
    1
    """

    def __init__(
        self,
        coarse: CoarseGraph,
        devices: str | Sequence[str | Device],
        *,
        profile: HardwareProfile | None = None,
        schedule: str = "sequential",
        colour: NDArray[np.integer] | None = None,
    ) -> None:
        choose("schedule", schedule, SCHEDULES)
        wanted = parse_devices(devices)
        if profile is None:
            profile = derive_profile(coarse.graph, "desktop", wanted)
        self.profile = profile.select([device.name for device in wanted])
        self.coarse = coarse
        self.devices = self.profile.devices
        self.schedule = schedule
        self.costs: Costs = read_costs(coarse, self.profile, colour)
        self.reference = 0

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        """Predict the time of one device per group, (num_groups,)."""
        groups = np.asarray(assignment, dtype=np.int64)
        try:
            check_assignment(self.coarse, groups, len(self.devices))
        except PlacementError as error:
            return Evaluation.invalid(str(error))
        column = groups.astype(np.uint8)[:, None]
        if broken := int(broken_rules(self.costs, column)[0]):
            return Evaluation.invalid(self._why(broken, groups))
        time_s = float(SCHEDULES[self.schedule].times(self.costs, column)[0])
        if not np.isfinite(time_s):
            return Evaluation.invalid("A device can't run a group that is placed on it.")
        return Evaluation(
            time_s=time_s,
            samples_s=(time_s,),
            interval_s=(time_s, time_s),
            num_subgraphs=int(count_subgraphs(self.costs, column).sum()),
        )

    def evaluate_many(self, placements: NDArray[np.integer]) -> Float64:
        """Predict many times at once.

        Args:
            placements: (batch, num_groups) device numbers, each 0 to num_devices - 1.

        Returns:
            (batch,) seconds; inf where a placement is invalid.
        """
        return schedule_times(self.costs, placements, self.schedule)

    def _why(self, broken: int, groups: NDArray[np.int64]) -> str:
        if broken == 2:
            return "Groups of one colour are on different devices; they must share one."
        used = np.bincount(groups, self.costs.group_bytes, minlength=len(self.devices))
        device = int(np.argmax(used - self.costs.memory_bytes))
        return (
            f"The weights on {self.devices[device].name} take {used[device]:.0f} bytes; it has "
            f"{self.costs.memory_bytes[device]:.0f}."
        )
