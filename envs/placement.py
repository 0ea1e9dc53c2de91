"""Placements: one device per op; check, apply, save and load them."""

from __future__ import annotations

import dataclasses
import json
import os
import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device_placement.envs.devices import Device, parse_devices
from device_placement.envs.errors import DeviceError, PlacementError
from device_placement.envs.files import replaced
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.models.loading import model_hash
from device_placement.envs.models.normalisation import normalise

FORMAT, VERSION = "device-placement", 1


@dataclass(frozen=True)
class Placement:
    """One device per op of a normalised model.

    In production, from a fresh process::

        placement = Placement.load("placement.json")
        core = make_core(placement.devices)
        compiled = core.compile_model(placement.apply(model), placement.hetero_name)
    """

    model_name: str
    model_hash: str
    devices: tuple[Device, ...]  # (num_devices,)
    op_names: tuple[str, ...]  # (num_ops,) of the normalised model
    op_devices: tuple[int, ...]  # (num_ops,) index into devices
    claim: Claim | None = None  # its measured speed-up, if it was measured

    @classmethod
    def from_groups(
        cls, coarse: CoarseGraph, devices: Sequence[Device], assignment: Sequence[int]
    ) -> Placement:
        """Return the placement of each op from one device per group.

        Args:
            coarse: the groups.
            devices: (num_devices,) the devices that the numbers refer to.
            assignment: (num_groups,) index of each group's device.

        Raises:
            PlacementError: when the length is wrong, a number is not that of a device, or a
                device does not support an op placed on it.
        """
        groups = np.asarray(assignment, dtype=np.int64)
        check_assignment(coarse, groups, len(devices))
        graph = coarse.graph
        return cls(
            model_name=graph.name,
            model_hash=graph.model_hash,
            devices=tuple(devices),
            op_names=graph.op_names,
            op_devices=tuple(groups[coarse.op_group].tolist()),
        )

    @property
    def hetero_name(self) -> str:
        """The name to compile with: ``HETERO`` over the devices, in their order."""
        return "HETERO:" + ",".join(device.name for device in self.devices)

    def apply(self, model: Any) -> Any:
        """Return a normalised clone of a model in which every op carries its device.

        Args:
            model: an ``openvino.Model``, normalised or not, which is not changed.

        Raises:
            PlacementError: when the placement was made for another model.
        """
        result = normalise(model)
        op_names = [op.get_friendly_name() for op in result.get_ops()]
        self._check_model(model_hash(result), result.get_friendly_name(), op_names)
        self.set_affinities(result)
        return result

    def set_affinities(self, model: Any) -> None:
        """Write the devices into a normalised model, in place and without checks."""
        names = [self.devices[device].name for device in self.op_devices]
        set_affinities(model, self.op_names, names)

    def to_groups(self, coarse: CoarseGraph) -> tuple[int, ...]:
        """Return the device of each group, (num_groups,).

        Raises:
            PlacementError: when the placement is of another model, or splits a group.
        """
        graph = coarse.graph
        self._check_model(graph.model_hash, graph.name, graph.op_names)
        device = dict(zip(self.op_names, self.op_devices, strict=True))
        op_devices = np.asarray([device[name] for name in graph.op_names])
        _, first = np.unique(coarse.op_group, return_index=True)
        groups = op_devices[first]
        split = np.flatnonzero(groups[coarse.op_group] != op_devices)
        if split.size:
            raise PlacementError(
                f"The placement puts the ops of group {coarse.op_group[split[0]]} on several "
                f"devices, so it was made with other groups than coarsening={coarse.method!r} "
                f"(num_groups={coarse.num_groups}). Use the coarsening that it was made with."
            )
        return tuple(int(device) for device in groups)

    def with_devices(self, devices: Sequence[Device]) -> Placement:
        """Return the same placement with its devices numbered as in another list.

        Raises:
            PlacementError: when it uses a device that is not in the list.
        """
        number = {device.name: index for index, device in enumerate(devices)}
        used = [self.devices[device].name for device in self.op_devices]
        for name in used:
            if name not in number:
                raise PlacementError(
                    f"The placement uses the device {name!r}; given are {', '.join(number)}. "
                    "Give the devices it was made for."
                )
        op_devices = tuple(number[name] for name in used)
        return dataclasses.replace(self, devices=tuple(devices), op_devices=op_devices)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the placement as JSON, replacing the file in one step."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model_name,
            "model_hash": self.model_hash,
            "devices": [str(device) for device in self.devices],
            "claim": self.claim and self.claim.to_json(),
            "ops": {
                name: self.devices[device].name
                for name, device in zip(self.op_names, self.op_devices, strict=True)
            },
        }
        with replaced(path) as draft:
            draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Placement:
        """Read a placement that `save` wrote.

        Raises:
            PlacementError: when the file is missing or holds something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise PlacementError(
                f"Can't read the placement file {str(path)!r}: {error}. Give one that "
                "Placement.save() or `device-placement train` wrote."
            ) from error
        try:
            return cls._from_content(content)
        except (AttributeError, KeyError, TypeError, RecursionError, DeviceError) as error:
            raise PlacementError(
                f"{str(path)!r} is not a placement of version {VERSION}: {type(error).__name__} "
                f"{error}. Give a file that Placement.save() or `device-placement train` wrote."
            ) from error

    @classmethod
    def _from_content(cls, content: Any) -> Placement:
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise KeyError(f"format {content['format']!r}, version {content['version']!r}")
        if not isinstance(content["devices"], list):
            raise TypeError("devices is not a list")
        devices = parse_devices([Device.parse(text) for text in content["devices"]])
        index = {device.name: position for position, device in enumerate(devices)}
        claim = content.get("claim")
        return cls(
            model_name=str(content["model"]),
            model_hash=str(content["model_hash"]),
            devices=devices,
            op_names=tuple(content["ops"]),
            op_devices=tuple(index[name] for name in content["ops"].values()),
            claim=None if claim is None else Claim.from_json(claim),
        )

    def _check_model(self, found: str, name: str, op_names: Sequence[str]) -> None:
        if found != self.model_hash:
            raise PlacementError(
                f"The placement was made for the model {self.model_name!r} (hash "
                f"{self.model_hash}), not for {name!r} (hash {found}). Give the model it was "
                "made for, with the same input shapes, or search again."
            )
        differing = sorted(set(op_names) ^ set(self.op_names))
        if differing:
            raise PlacementError(
                f"The placement and the model {name!r} differ in the ops {', '.join(differing[:3])}"
                f"{', ...' if len(differing) > 3 else ''}. Give a placement of the whole model, "
                "as Placement.save() wrote it."
            )


def set_affinities(model: Any, op_names: Sequence[str], device_names: Sequence[str]) -> None:
    """Write a device into every op of a normalised model, in place.

    Args:
        model: the normalised ``openvino.Model``.
        op_names: (num_ops,) its ops, in any order.
        device_names: (num_ops,) the device of each.
    """
    device = dict(zip(op_names, device_names, strict=True))
    for op in model.get_ops():
        op.get_rt_info()["affinity"] = device[op.get_friendly_name()]


def check_assignment(coarse: CoarseGraph, assignment: Any, num_devices: int) -> None:
    """Check that an assignment has a supported device for each group.

    Args:
        coarse: the groups.
        assignment: (num_groups,) index of each group's device.
        num_devices: number of devices.

    Raises:
        PlacementError: as `Placement.from_groups`.
    """
    if assignment.shape != (coarse.num_groups,):
        raise PlacementError(
            f"Got a placement of shape {assignment.shape}; the model has {coarse.num_groups} "
            "groups. Give one device per group."
        )
    wrong = np.flatnonzero((assignment < 0) | (assignment >= num_devices))
    if wrong.size:
        raise PlacementError(
            f"Group {wrong[0]} is placed on device {assignment[wrong[0]]}; "
            f"devices are numbered 0 to {num_devices - 1}."
        )
    refused = np.flatnonzero(~coarse.supported[np.arange(coarse.num_groups), assignment])
    if refused.size:
        group = int(refused[0])
        device = coarse.graph.devices[assignment[group]]
        lacking = ~coarse.graph.supported[:, assignment[group]]
        ops = np.flatnonzero((coarse.op_group == group) & lacking)
        kinds = sorted({coarse.graph.op_types[op] for op in ops})
        raise PlacementError(
            f"{device} does not support group {group} ({', '.join(kinds)}); follow action_masks()."
        )


@dataclass(frozen=True)
class Claim:
    """Claimed speed-up of a placement over the reference, and the output error allowed.

    It is a speed-up, not a time, because speed-ups stay the same from day to day and nearly the
    same on similar machines.
    """

    reference: str  # name of the device whose single it was compared with
    speedup: float  # over the reference
    max_output_error: float | None = None  # relative L2 error that was allowed

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Claim:
        """Return the claim that `to_json` described.

        Raises:
            TypeError: when a field is missing, unknown or of the wrong kind.
        """
        claim = cls(**content)
        error = 0 if claim.max_output_error is None else claim.max_output_error
        numbers = (claim.speedup, error)
        if not isinstance(claim.reference, str) or not all(map(_is_measurable, numbers)):
            raise TypeError(f"a claim of {reprlib.repr(dict(content))}")
        if not claim.speedup > 0:
            raise TypeError(f"a claimed speed-up of {claim.speedup!r}, which must be above 0")
        return claim


def _is_measurable(value: Any) -> bool:
    """Return whether something is a number from 0 to the largest one of 64 bits."""
    return type(value) in (int, float) and 0 <= value <= sys.float_info.max
