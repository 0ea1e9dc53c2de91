"""Choice of the executor: the rules by which `auto` decides, and what `dataflow` can't run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from device_placement.envs.devices import Device, is_cpu
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.executors import DATAFLOW, EXECUTORS, HETERO
from device_placement.envs.models.deciding_inputs import is_random


class Executor(NamedTuple):
    """Executor of a problem, and why."""

    name: str  # hetero or dataflow
    reason: str  # a sentence without its full stop


def choose_executor(
    name: str, model: Any, devices: Sequence[Device], objective: str = "latency"
) -> Executor:
    """Return the executor that runs all placements of a model.

    ``auto`` is ``dataflow`` if two devices compute side by side: each is a GPU, an NPU, a CPU
    instance with cores of its own, or stands for all CPU instances without such cores. It is
    ``hetero`` for the throughput without such cores, as several requests keep all devices busy
    under HETERO, too; and for models that ``dataflow`` can't run.

    Args:
        name: a name of `EXECUTORS`.
        model: the normalised ``openvino.Model``.
        devices: of the problem.
        objective: latency or throughput.

    Raises:
        DevicePlacementError: on an unknown name, or when ``dataflow`` can't run the model.
    """
    choose("executor", name, EXECUTORS)
    if name == HETERO:
        return Executor(HETERO, "it was asked for")
    obstacle = _obstacle(model)
    if name == DATAFLOW:
        if obstacle:
            raise DevicePlacementError(
                f"The executor 'dataflow' can't run {model.get_friendly_name()!r}: {obstacle}. "
                "Use executor='hetero', or 'auto', which decides."
            )
        return Executor(DATAFLOW, "it was asked for")
    if obstacle:
        return Executor(HETERO, obstacle)
    own = any(device.cores for device in devices)
    if len({hardware_of(device) for device in devices}) < 2:
        return Executor(HETERO, "all devices share the processor, so none would run beside another")
    if objective == "throughput" and not own:
        return Executor(HETERO, "several requests in flight keep all devices busy")
    return Executor(DATAFLOW, "its devices can run side by side")


def hardware_of(device: Device) -> str:
    """Return what a device computes on; CPU instances without cores of their own share it."""
    return "" if is_cpu(device.name) and not device.cores else device.name


def _obstacle(model: Any) -> str:
    """Return why a model can't be cut into regions; empty if it can."""
    if model.get_variables():
        return "the model has states, which stay in one compiled model"
    for op in model.get_ordered_ops():
        if any(output.get_partial_shape().is_dynamic for output in op.outputs()):
            return f"the op {op.get_friendly_name()!r} ({op.get_type_name()}) has a dynamic shape"
    if is_random(model):
        return "the model draws random numbers, which each region would draw for itself"
    return ""
