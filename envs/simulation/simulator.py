"""Evaluator that predicts times from costs: deterministic, and the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Float64, Int64
from device_placement.envs.constraints import (
    BROKEN,
    CONSTRAINTS,
    check_limits,
    parse_constraints,
)
from device_placement.envs.costs import Costs
from device_placement.envs.devices import Device, parse_devices
from device_placement.envs.errors import DevicePlacementError, PlacementError, choose
from device_placement.envs.evaluation import BaseEvaluator, Evaluation, Evaluator
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.placement import check_assignment
from device_placement.envs.repair.repairer import check_satisfiable
from device_placement.envs.simulation.profile import HardwareProfile
from device_placement.envs.simulation.roofline import derive_profile
from device_placement.envs.simulation.schedule import (
    BROKEN_CONSTRAINT,
    SCHEDULES,
    broken_rules,
    count_parts,
    schedule_times,
)


class SimulatedEvaluator(BaseEvaluator):
    """Evaluator that predicts times deterministically, also for devices that this machine lacks.

    Args:
        coarse: the groups to place; its `supported` should exclude the ops that devices can't
            run by the profile, as `make_evaluator` ensures.
        devices: as `parse_devices` takes them; those of the profile.
        profile: the costs; by default those of the hardware ``desktop``.
        schedule: a name of `SCHEDULES`.
        colour: (num_groups,) groups of one colour, other than -1, must share a device.
        constraints: names of `CONSTRAINTS` that placements must satisfy; by default none.

    Raises:
        DevicePlacementError: on an unknown schedule, device or constraint, and when nothing
            satisfies the constraints.
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
        constraints: str | Sequence[str] = (),
    ) -> None:
        names = parse_constraints(constraints)
        wanted = parse_devices(devices)
        if profile is None:
            profile = derive_profile(coarse.graph, "desktop", wanted)
        self.profile = profile.select([device.name for device in wanted])
        self.coarse = coarse
        self.devices = self.profile.devices
        self.schedule = schedule
        choose("schedule", schedule, SCHEDULES).check(len(self.devices))
        self.costs: Costs = replace(self.profile.costs(coarse, colour), constraints=names)
        if names:
            check_limits(names, self.devices, self.costs)
            check_satisfiable(self.costs, coarse.supported)

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        """Predict the time of a placement, (num_groups,) device numbers."""
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
            num_subgraphs=int(count_parts(self.costs, column, self.schedule)[0]),
        )

    def evaluate_many(self, placements: NDArray[np.integer]) -> Float64:
        """Predict the times of many placements at once.

        Args:
            placements: (batch, num_groups) device numbers, each 0 to num_devices - 1.

        Returns:
            (batch,) seconds; inf where a placement is invalid.
        """
        return schedule_times(self.costs, placements, self.schedule)

    def _why(self, broken: int, groups: Int64) -> str:
        if broken == 2:
            return "Groups of one colour are on different devices; they must share one."
        if broken >= BROKEN_CONSTRAINT:
            name = BROKEN[broken - BROKEN_CONSTRAINT]
            return f"The placement breaks the constraint {name!r}: {CONSTRAINTS[name]}."
        used = np.bincount(groups, self.costs.group_bytes, minlength=len(self.devices))
        limits = [(used[some].sum(), limit, some) for some, limit in self.costs.memory_limits()]
        taken, limit, members = max(limits, key=lambda one: one[0] - one[1])
        names = " and ".join(self.devices[device].name for device in members)
        owner = "it has" if len(members) == 1 else "they share"
        return f"The weights on {names} take {taken:.0f} bytes; {owner} {limit:.0f}."


def as_simulated(evaluator: Evaluator, advice: str) -> SimulatedEvaluator:
    """Return an evaluator as a `SimulatedEvaluator`, for code that needs its costs or profile.

    Args:
        evaluator: any; a wrapper is refused, because what it adds would be lost.
        advice: what to do instead, for the error.

    Raises:
        DevicePlacementError: when it is not a `SimulatedEvaluator`.
    """
    if not isinstance(evaluator, SimulatedEvaluator):
        raise DevicePlacementError(
            f"Got a {type(evaluator).__name__}, but only a SimulatedEvaluator is allowed; {advice}"
        )
    return evaluator
