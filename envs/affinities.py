"""Affinities: the device that each op of a model carries, also when the model is saved and read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

AFFINITY = "affinity"  # what HETERO reads; OpenVINO does not save it
SAVED = "user_data_device_placement"  # OpenVINO saves keys that begin with user_data


def write_affinities(
    model: Any, op_names: Sequence[str], device_names: Sequence[str], saved: bool = False
) -> None:
    """Write a device into every op of a normalised model, in place.

    Args:
        model: the normalised ``openvino.Model``.
        op_names: (num_ops,) its ops, in any order.
        device_names: (num_ops,) the device of each.
        saved: whether the devices are also saved with the model.
    """
    keys = (AFFINITY, SAVED) if saved else (AFFINITY,)
    device = dict(zip(op_names, device_names, strict=True))
    for op in model.get_ops():
        info = op.get_rt_info()
        for key in keys:
            info[key] = device[op.get_friendly_name()]


def clear_affinities(model: Any) -> None:
    """Remove the device from every op of a model, in place; what is saved with it stays."""
    for op in model.get_ops():
        info = op.get_rt_info()
        if AFFINITY in info:
            del info[AFFINITY]


def is_placed(model: Any) -> bool:
    """Return whether any op of a model carries a device."""
    return any(AFFINITY in op.get_rt_info() for op in model.get_ops())


def restore_affinities(model: Any) -> Any:
    """Give every op of a placed model its device again, in place, and return the model.

    To be called for a model that `Placement.apply` placed and that was then saved and read by
    another core than that of `make_core`, or got further ops, such as the pre-processing of
    ``openvino.preprocess.PrePostProcessor``. Such ops join the op that reads them, so that no
    transfer is added; ops after the last placed one join the op that they read.

    Args:
        model: an ``openvino.Model``; one in which no op has a device is not changed.
    """
    ops = model.get_ordered_ops()
    found = {op.get_instance_id(): device for op in ops if (device := _device_of(op))}
    if not found:
        return model
    for neighbours, order in ((_readers, ops[::-1]), (_sources, ops), (_readers, ops[::-1])):
        for op in order:
            known = [found[one] for one in neighbours(op) if one in found]
            if known:
                found.setdefault(op.get_instance_id(), known[0])
    anywhere = next(iter(found.values()))  # for ops that no placed one reads or feeds
    for op in ops:
        op.get_rt_info()[AFFINITY] = op.get_rt_info()[SAVED] = found.get(
            op.get_instance_id(), anywhere
        )
    return model


def _device_of(op: Any) -> str:
    info = op.get_rt_info()
    return next((str(info[key].astype(str)) for key in (AFFINITY, SAVED) if key in info), "")


def _readers(op: Any) -> list[int]:
    """Return the instances of the ops that read an op, in an order that repeats."""
    return sorted(
        port.get_node().get_instance_id()
        for output in op.outputs()
        for port in output.get_target_inputs()
    )


def _sources(op: Any) -> list[int]:
    """Return the instances of the ops that an op reads."""
    return [value.get_node().get_instance_id() for value in op.input_values()]
