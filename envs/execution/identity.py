"""What a stored time holds for: model, devices, protocol, machine and versions."""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from typing import Any

import openvino as ov

from device_placement.envs.devices import Device
from device_placement.envs.execution.machine import cpu_affinity, describe_host
from device_placement.envs.execution.settings import MeasureConfig

# Raised when what a sample means changes, so that older ones are not mixed in.
PROTOCOL_VERSION = 1


def describe_reference(
    core: ov.Core, model_hash: str, device: Device, config: MeasureConfig
) -> dict[str, Any]:
    """What the time of a single on one device depends on."""
    return {
        "model_hash": model_hash,
        "device": _describe_device(core, device),
        "objective": config.objective,
        "requests": config.requests,
        "cpu_affinity": cpu_affinity(),
        "versions": {"openvino": version("openvino"), "protocol": PROTOCOL_VERSION},
        "host": describe_host(),
    }


def describe_problem(
    core: ov.Core,
    model_hash: str,
    devices: tuple[Device, ...],
    reference: int,
    config: MeasureConfig,
) -> dict[str, Any]:
    """What the time of a placement depends on, besides the placement."""
    return describe_reference(core, model_hash, devices[reference], config) | {
        "devices": [_describe_device(core, device) for device in devices],
        "timing": dataclasses.asdict(config.protocol),
    }


def _describe_device(core: ov.Core, device: Device) -> dict[str, str]:
    """Name, properties, and what OpenVINO tells of the hardware and its driver."""
    known = {"device": str(device)}
    try:
        told = core.get_property(device.name, "SUPPORTED_PROPERTIES")
        for key in sorted(told):
            if key == "FULL_DEVICE_NAME" or key.endswith("DRIVER_VERSION"):
                known[key] = str(core.get_property(device.name, key))
    except RuntimeError as error:  # it will not run anything either
        known["error"] = str(error).strip()
    return known
