"""Costs that agents see: the simulator's own, those of a profile, or those of profiled runs."""

from __future__ import annotations

import os
from weakref import WeakKeyDictionary

from device_placement.envs.cost_features import KnownCosts
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.executors import DATAFLOW
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator, as_measuring
from device_placement.envs.profiling.measured_profile import profile_runs
from device_placement.envs.simulation.profile import HardwareProfile

AUTO = "auto"  # a profile of one run per device

_profiled: WeakKeyDictionary[OpenVINOEvaluator, HardwareProfile] = WeakKeyDictionary()


def find_costs(
    evaluator: Evaluator, profile: str | os.PathLike[str] | HardwareProfile | None = None
) -> KnownCosts:
    """Return the costs that agents see of a problem.

    Args:
        evaluator: of the problem; one that simulates has costs.
        profile: for one that measures, a `HardwareProfile`, or its file; by default, or if it is
            ``auto``, every device runs the model once with OpenVINO's profiler. Then the times of
            groups are known, but not those of moves.

    Raises:
        DevicePlacementError: when the evaluator neither measures nor has costs, the profile is of
            another model or lacks a device, or a device can't be profiled.
    """
    if evaluator.costs is not None:
        return KnownCosts(evaluator.costs, evaluator.schedule)
    if not evaluator.measures:
        raise DevicePlacementError(
            f"Got costs='profile' with a {type(evaluator.unwrapped).__name__}, which neither "
            "measures nor has costs; set its attributes costs and schedule, or use costs='none'."
        )
    measuring = as_measuring(evaluator)
    schedule = "dataflow" if measuring.executor.name == DATAFLOW else "sequential"
    if measuring.config.objective != "latency":
        schedule = "pipelined"
    knows_transfers = True
    if profile is None or profile == AUTO:
        if measuring not in _profiled:
            _profiled[measuring] = profile_runs(evaluator)
        found, knows_transfers = _profiled[measuring], False
    elif isinstance(profile, HardwareProfile):
        found = profile
    else:
        found = HardwareProfile.load(profile, evaluator.devices)
    chosen = found.select([device.name for device in evaluator.devices])
    return KnownCosts(chosen.costs(evaluator.coarse), schedule, knows_transfers)
