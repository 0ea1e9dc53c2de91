"""Hardware profile: costs of a model's ops and tensors on some devices, saved as JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Bool, Float64
from device_placement.envs.costs import Costs, free_costs
from device_placement.envs.devices import Device, SharedMemory, parse_devices
from device_placement.envs.errors import DevicePlacementError, PlacementError, unknown
from device_placement.envs.files import replaced
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.untrusted import check_file_devices, read_json, reading

FORMAT = "device-placement hardware profile"
VERSION = 1
# Sums of such times, and the time that such a tensor takes on such a link, are finite.
LARGEST_S, LARGEST_BYTES, LEAST_BYTES_PER_S = 1e300, 1e30, 1e-30
REGIONAL = {"region_s": 0.0, "crossing_s": 0.0, "split_factor": 1.0}  # field -> least, default
KINDS = ("measured", "derived", "given", "generated")  # the origin of the numbers


@dataclass(frozen=True)
class HardwareProfile:
    """Costs of one model on some devices; saved as JSON.

    Raises:
        DevicePlacementError: when shapes don't fit or numbers can't be costs.
    """

    name: str
    model: str
    model_hash: str
    op_names: tuple[str, ...]  # (num_ops,) friendly names of the normalised model
    devices: tuple[Device, ...]  # (num_devices,)
    op_s: Float64  # (num_ops, num_devices) seconds; NaN where the device can't run the op
    latency_s: Float64  # (num_devices, num_devices) from, to; 0 on the diagonal
    bytes_per_s: Float64  # (num_devices, num_devices) from, to; inf on the diagonal
    subgraph_s: Float64  # (num_devices,) extra seconds for each subgraph on a device
    pays_transfers: tuple[bool, ...]  # (num_devices,) whether `max_load` charges it for transfers
    provenance: Mapping[str, Any] = field(default_factory=lambda: {"kind": "given"})
    shared_memory: tuple[SharedMemory, ...] = ()  # limits on what devices hold together
    # What the schedule `dataflow` charges in addition, each (num_devices,); by default nothing:
    region_s: Float64 = field(default_factory=lambda: np.zeros(0))  # per region
    crossing_s: Float64 = field(default_factory=lambda: np.zeros(0))  # per tensor that leaves one
    # at least 1: multiplies op times while other devices are used, too
    split_factor: Float64 = field(default_factory=lambda: np.ones(0))

    def __post_init__(self) -> None:
        for name, default in REGIONAL.items():
            if not np.size(getattr(self, name)):
                object.__setattr__(self, name, np.full(len(self.devices), default))
        ops, devices = len(self.op_names), len(self.devices)
        for name, shape in (
            ("op_s", (ops, devices)),
            ("latency_s", (devices, devices)),
            ("bytes_per_s", (devices, devices)),
            ("subgraph_s", (devices,)),
            ("pays_transfers", (devices,)),
            *((name, (devices,)) for name in REGIONAL),
        ):
            if np.shape(getattr(self, name)) != shape:
                raise DevicePlacementError(
                    f"Got {name} of shape {np.shape(getattr(self, name))} in the profile "
                    f"{self.name!r}; with {ops} ops and {devices} devices it must be {shape}."
                )
        diagonal = np.arange(devices)
        wrong = (
            devices == 0
            or len({device.name for device in self.devices}) < devices
            or len(set(self.op_names)) < ops
            or not (np.isnan(self.op_s) | _are_moderate(self.op_s)).all()
            or not _are_moderate(self.latency_s).all()
            or not (self.bytes_per_s >= LEAST_BYTES_PER_S).all()
            or not _are_moderate(self.subgraph_s).all()
            or not all(
                (_are_moderate(getattr(self, name)) & (getattr(self, name) >= least)).all()
                for name, least in REGIONAL.items()
            )
            or self.latency_s[diagonal, diagonal].any()
            or np.isfinite(self.bytes_per_s[diagonal, diagonal]).any()
        )
        if wrong:
            raise DevicePlacementError(
                f"Got the profile {self.name!r}, whose numbers can't be costs; give at least one "
                "device, every device and op once; times and latencies from 0 to 1e300, bandwidths "
                "of 1e-30 or more, split factors of 1 or more; a device sends to itself without "
                "latency and without a limit."
            )
        self._check_shared_memory()
        if self.provenance.get("kind") not in KINDS:
            raise DevicePlacementError(
                unknown("kind of profile", str(self.provenance.get("kind")), KINDS)
            )

    def _check_shared_memory(self) -> None:
        mine = [device.name for device in self.devices]
        for pool in self.shared_memory:
            names = pool.devices
            if (
                not names
                or len(set(names)) < len(names)
                or not set(names) <= set(mine)
                or pool.memory_bytes <= 0
            ):
                raise DevicePlacementError(
                    f"Got shared memory of {pool.memory_bytes} bytes for {', '.join(names)} in the "
                    f"profile {self.name!r}; give more than 0 bytes, and some of its devices "
                    f"({', '.join(mine)}), each once."
                )

    def select(self, names: Sequence[str]) -> HardwareProfile:
        """Return the profile of some of the devices, in the given order.

        Raises:
            DevicePlacementError: for a device that the profile does not have.
        """
        mine = [device.name for device in self.devices]
        for name in names:
            if name not in mine:
                raise DevicePlacementError(unknown(f"device of {self.name!r}", name, mine))
        chosen = [mine.index(name) for name in names]
        return HardwareProfile(
            name=self.name,
            model=self.model,
            model_hash=self.model_hash,
            op_names=self.op_names,
            devices=tuple(self.devices[number] for number in chosen),
            op_s=self.op_s[:, chosen],
            latency_s=self.latency_s[np.ix_(chosen, chosen)],
            bytes_per_s=self.bytes_per_s[np.ix_(chosen, chosen)],
            subgraph_s=self.subgraph_s[chosen],
            pays_transfers=tuple(self.pays_transfers[number] for number in chosen),
            provenance=self.provenance,
            shared_memory=select_pools(self.shared_memory, {name: name for name in names}),
            **{name: getattr(self, name)[chosen] for name in REGIONAL},
        )

    def op_times(self, graph: ComputationGraph) -> Float64:
        """Return the seconds of a graph's ops, (num_ops, num_devices), joined by name.

        Raises:
            PlacementError: when the profile is of another model.
        """
        row = {name: number for number, name in enumerate(self.op_names)}
        if self.model_hash != graph.model_hash or not row.keys() >= set(graph.op_names):
            raise PlacementError(
                f"The profile {self.name!r} is of {self.model!r} with the hash "
                f"{self.model_hash[:12]}, not of {graph.name!r} with {graph.model_hash[:12]}; "
                "profile this model with `device-placement profile`."
            )
        return np.asarray(self.op_s[[row[name] for name in graph.op_names]])

    def supported(self, graph: ComputationGraph) -> Bool:
        """Return whether devices run ops, (num_ops, num_devices), for a graph of these devices."""
        return np.asarray(graph.supported & ~np.isnan(self.op_times(graph)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the profile as JSON, replacing the file in one step; NaN and inf become null."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "model": self.model,
            "model_hash": self.model_hash,
            "provenance": dict(self.provenance),
            "devices": [
                {"device": str(device), "memory_bytes": device.memory_bytes, "pays_transfers": pays}
                for device, pays in zip(self.devices, self.pays_transfers, strict=True)
            ],
            "latency_s": self.latency_s.tolist(),
            "bytes_per_s": _with_null(self.bytes_per_s),
            "subgraph_s": self.subgraph_s.tolist(),
            "op_s": dict(zip(self.op_names, _with_null(self.op_s), strict=True)),
        }
        if self.shared_memory:
            content["shared_memory"] = [asdict(pool) for pool in self.shared_memory]
        for name, default in REGIONAL.items():
            if (getattr(self, name) != default).any():
                content[name] = getattr(self, name).tolist()
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        with replaced(path) as draft:
            draft.write_text(text, encoding="utf-8")

    def costs(self, coarse: CoarseGraph, colour: NDArray[np.integer] | None = None) -> Costs:
        """Return the costs of a coarse graph, summed over each group.

        A group takes the sum of its ops' times; constants cost nothing and are not moved.

        Args:
            coarse: the groups, of the same model; ops are joined by name.
            colour: (num_groups,) groups of one colour, other than `FREE`, must share a device.

        Raises:
            PlacementError: when the profile is of another model.
            DeviceError: when there are more than `MAX_PIPELINED` devices.
        """
        free = free_costs(coarse, self.devices, colour, self.shared_memory)
        op_s = self.op_times(coarse.graph)
        compute_s = free.compute_s.copy()
        np.add.at(compute_s, coarse.op_group, np.where(np.isnan(op_s), np.inf, op_s))
        return replace(
            free,
            compute_s=compute_s,
            latency_s=self.latency_s,
            s_per_byte=1.0 / self.bytes_per_s,
            subgraph_s=self.subgraph_s,
            pays=np.array(self.pays_transfers, dtype=np.bool_),
            **{name: getattr(self, name) for name in REGIONAL},
        )

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], devices: str | Device | Sequence[str | Device] = ()
    ) -> HardwareProfile:
        """Read a profile that `save` wrote, and return it.

        Args:
            path: of the file.
            devices: what `parse_devices` takes; needed only where the file's devices have
                properties that a file may not set, such as ``CACHE_DIR``.

        Raises:
            DevicePlacementError: when the file can't be read, is not a valid profile, or sets a
                property that it may not set.
        """
        trusted = parse_devices(devices) if devices else ()
        advice = f"give a file that `device-placement profile` wrote, of version {VERSION}."
        with reading(path, "a hardware profile", advice):
            content = read_json(path)
            if (content["format"], content["version"]) != (FORMAT, VERSION):
                raise ValueError(f"format {content['format']!r}, version {content['version']!r}")
            profile = cls._from_content(content)
            check_file_devices(profile.devices, path, trusted)
        return profile

    @classmethod
    def _from_content(cls, content: Any) -> HardwareProfile:
        devices = content["devices"]
        return cls(
            name=str(content["name"]),
            model=str(content["model"]),
            model_hash=str(content["model_hash"]),
            op_names=tuple(content["op_s"]),
            devices=tuple(_device(one) for one in devices),
            op_s=_without_null(list(content["op_s"].values()), math.nan, len(devices)),
            latency_s=np.array(content["latency_s"], dtype=np.float64),
            bytes_per_s=_without_null(content["bytes_per_s"], math.inf, len(devices)),
            subgraph_s=np.array(content["subgraph_s"], dtype=np.float64),
            pays_transfers=tuple(bool(one["pays_transfers"]) for one in devices),
            provenance=dict(content["provenance"]),
            shared_memory=tuple(
                SharedMemory(tuple(map(str, one["devices"])), int(one["memory_bytes"]))
                for one in content.get("shared_memory", ())
            ),
            **{name: np.array(content.get(name, []), dtype=np.float64) for name in REGIONAL},
        )


def _are_moderate(numbers: Float64) -> Bool:
    return np.asarray((numbers >= 0) & (numbers <= LARGEST_S))


def select_pools(
    pools: Sequence[SharedMemory], homes: Mapping[str, str]
) -> tuple[SharedMemory, ...]:
    """Return pools of memory for the devices that use them.

    Args:
        pools: with the names of devices.
        homes: device -> its name in the pools. A pool of none of them is left out.
    """
    named = [
        SharedMemory(
            tuple(name for name, home in homes.items() if home in pool.devices), pool.memory_bytes
        )
        for pool in pools
    ]
    return tuple(pool for pool in named if pool.devices)


def _device(content: Mapping[str, Any]) -> Device:
    parsed, memory_bytes = Device.parse(content["device"]), content["memory_bytes"]
    if memory_bytes is not None:
        memory_bytes = int(memory_bytes)
    return Device(parsed.name, parsed.properties, memory_bytes)


def _with_null(values: Float64) -> list[list[float | None]]:
    return [
        [number if math.isfinite(number) else None for number in row] for row in values.tolist()
    ]


def _without_null(rows: Sequence[Any], null: float, width: int) -> Float64:
    filled = [[null if number is None else float(number) for number in row] for row in rows]
    return np.array(filled, dtype=np.float64).reshape(len(rows), -1 if rows else width)
