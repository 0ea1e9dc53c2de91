"""Measurement cache that logs store errors and continues without the store."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, TypeVar

import numpy as np
import openvino as ov

from device_placement.envs.cores import cpu_affinity
from device_placement.envs.devices import Device
from device_placement.envs.errors import StoreError
from device_placement.envs.evaluation import Measurement
from device_placement.envs.executors import HETERO
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.machine import describe_host
from device_placement.envs.measuring.store import EvaluationStore

T = TypeVar("T")
_log = logging.getLogger("device_placement")


class MeasurementCache:
    """Cache of measurements, on top of a store.

    Args:
        path: of the store; ``auto``: the user's; None or ``none``: no store.
        max_age_s: older measurements are not returned; None: no limit.
    """

    def __init__(self, path: str | None, max_age_s: float | None = None) -> None:
        self._store: EvaluationStore | None = None
        self._complained: set[str] = set()
        if path not in (None, "none"):
            location = None if path == "auto" else path
            age_s = math.inf if max_age_s is None else max_age_s
            self._store = self._try(
                "read", lambda: EvaluationStore(location, max_age_s=age_s), None
            )

    @property
    def path(self) -> str:
        """The path of the store; empty if there is none, or none that works."""
        return str(self._store.path) if self._store else ""

    def get(self, problem: Mapping[str, Any], op_devices: bytes) -> tuple[Measurement, ...]:
        """Return earlier measurements of a placement, oldest first."""
        if (store := self._store) is None:
            return ()
        return self._try("read", lambda: store.get(problem, op_devices), ())

    def add(self, problem: Mapping[str, Any], op_devices: bytes, found: Measurement) -> None:
        """Store a measurement, unless it is a crash or a time-out."""
        lasting = found.failed_to_compile or not found.error
        if lasting and (store := self._store) is not None:
            self._try("write", lambda: store.add(problem, op_devices, found), None)

    def get_reference(self, reference: Mapping[str, Any]) -> tuple[float, ...] | None:
        """Return the samples in s that fix a reference time, or None."""
        if (store := self._store) is None:
            return None
        return self._try("read", lambda: store.get_reference(reference), None)

    def fix_reference(
        self, reference: Mapping[str, Any], samples_s: Sequence[float]
    ) -> tuple[float, ...]:
        """Fix a reference time; return the samples in s that count, those of the first writer."""
        mine = tuple(samples_s)
        if (store := self._store) is None:
            return mine
        return self._try("write", lambda: store.fix_reference(reference, mine), mine)

    def _try(self, what: str, action: Callable[[], T], otherwise: T) -> T:
        """Return an action's result; log its first failure, and stop using an unreadable store."""
        try:
            return action()
        except StoreError as error:
            if what == "read":
                self._store = None
            if what not in self._complained:
                self._complained.add(what)
                _log.warning("Continuing without stored evaluations: %s", error)
            return otherwise


# Increased when the meaning of a sample changes, so that older ones are not mixed in.
PROTOCOL_VERSION = 2  # 2: states are reset before each run


def describe_reference(
    core: ov.Core,
    model_hash: str,
    device: Device,
    config: MeasureConfig,
    inputs: str = "",
    executor: str = HETERO,
) -> dict[str, Any]:
    """Return what the time of a single on one device depends on.

    Args:
        core: has the device.
        model_hash: of the model.
        device: runs all of it.
        config: how to measure.
        inputs: the key of the input values.
        executor: that runs it, hetero or dataflow.
    """
    # Earlier versions knew the usual inputs and HETERO only.
    chosen = {"inputs": inputs} if inputs else {}
    if executor != HETERO:
        chosen["executor"] = executor
    return chosen | {
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
    inputs: str = "",
    executor: str = HETERO,
    op_groups: Sequence[int] = (),
) -> dict[str, Any]:
    """Return what the time of a placement depends on, except for the placement.

    Args:
        core: has the devices.
        model_hash: of the model.
        devices: (num_devices,) of the problem.
        reference: number of the reference's device.
        config: how to measure.
        inputs: as for `describe_reference`.
        executor: as for `describe_reference`.
        op_groups: (num_ops,) for dataflow, whose regions consist of whole groups.
    """
    single = describe_reference(core, model_hash, devices[reference], config, inputs, executor)
    if executor != HETERO:
        groups = np.asarray(op_groups, np.int64).tobytes()
        single["groups"] = hashlib.sha256(groups).hexdigest()[:16]
    return single | {
        "devices": [_describe_device(core, device) for device in devices],
        "timing": dataclasses.asdict(config.protocol),
    }


def describe_references_here(
    core: ov.Core, _model: ov.Model, model_hash: str, devices: tuple[Device, ...], *others: Any
) -> list[dict[str, Any]]:
    """Return `describe_reference` of each device, on the machine that measures."""
    return [describe_reference(core, model_hash, device, *others) for device in devices]


def describe_problem_here(core: ov.Core, _model: ov.Model, *others: Any) -> dict[str, Any]:
    """Return `describe_problem`, on the machine that measures."""
    return describe_problem(core, *others)


def _describe_device(core: ov.Core, device: Device) -> dict[str, str]:
    """Return name, properties, and OpenVINO's description of the hardware and its driver."""
    known = {"device": str(device)}
    try:
        supported = core.get_property(device.name, "SUPPORTED_PROPERTIES")
        for key in sorted(supported):
            if key == "FULL_DEVICE_NAME" or key.endswith("DRIVER_VERSION"):
                known[key] = str(core.get_property(device.name, key))
    except RuntimeError as error:  # it will not run anything either
        known["error"] = str(error).strip()
    return known
