"""Placements: one device per op; check, apply, save and load them."""

from __future__ import annotations

import dataclasses
import json
import os
import reprlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_placement.envs.affinities import write_affinities
from device_placement.envs.devices import Device, make_core, parse_devices
from device_placement.envs.errors import PlacementError, choose
from device_placement.envs.executors import DATAFLOW, HETERO
from device_placement.envs.executors.choice import choose_executor
from device_placement.envs.executors.dataflow import DataflowModel, PlacedModel
from device_placement.envs.executors.hetero import HeteroModel
from device_placement.envs.executors.regions import plan_regions
from device_placement.envs.files import replaced
from device_placement.envs.graph.coarsening import CoarseGraph, coarsen, make_coarse_graph
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.graph.subgraphs import spell_devices
from device_placement.envs.models.loading import model_hash
from device_placement.envs.models.normalisation import normalise
from device_placement.envs.untrusted import (
    check_count,
    check_file_devices,
    parse_json,
    read_json,
    reading,
)

FORMAT, VERSION = "device-placement", 1
RECORD = ["device_placement", "placement"]  # of a placed model; OpenVINO saves it


@dataclass(frozen=True)
class Placement:
    """One device per op of a normalised model.

    In production, from a fresh process::

        placement = Placement.load("placement.json")
        with placement.compile(model) as compiled:
            outputs = compiled.infer(inputs)

    Or, for the executor ``hetero``, with what OpenVINO offers::

        core = make_core(placement.devices)
        compiled = core.compile_model(placement.apply(model), placement.hetero_name)
    """

    model_name: str
    model_hash: str
    devices: tuple[Device, ...]  # (num_devices,)
    op_names: tuple[str, ...]  # (num_ops,) of the normalised model
    op_devices: tuple[int, ...]  # (num_ops,) index into devices
    claim: Claim | None = None  # its measured speed-up, if it was measured
    op_groups: tuple[int, ...] = ()  # (num_ops,) group of each op, numbered topologically
    executor: str = HETERO  # that it was searched with

    @classmethod
    def from_groups(
        cls,
        coarse: CoarseGraph,
        devices: Sequence[Device],
        assignment: Sequence[int],
        executor: str = HETERO,
    ) -> Placement:
        """Return the placement of each op from one device per group.

        Args:
            coarse: the groups.
            devices: (num_devices,) the devices that the numbers refer to.
            assignment: (num_groups,) index of each group's device.
            executor: that it was searched with, hetero or dataflow.

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
            op_groups=tuple(coarse.op_group.tolist()),
            executor=executor,
        )

    @property
    def hetero_name(self) -> str:
        """The name to compile with: ``HETERO`` over the devices, in their order."""
        return "HETERO:" + ",".join(device.name for device in self.devices)

    def apply(self, model: Any) -> Any:
        """Return a normalised clone of a model in which every op carries its device.

        The clone keeps its devices when it is saved: the core of `make_core` restores them when
        it reads the file, and `from_model` returns the placement. With another core, call
        `restore_affinities` after reading. Save with ``compress_to_fp16=False``, as
        ``openvino.save_model`` rounds weights to f16 by default.

        Pre-processing (``openvino.preprocess.PrePostProcessor``, for u8 images say) is part of
        what is timed, so add it first and search the model that has it; the placement then
        applies to that model. Or add it to the clone, and call `restore_affinities` after
        ``build()``, as OpenVINO refuses a model in which some ops have a device and some have
        none::

            steps = PrePostProcessor(placement.apply(model))
            steps.input().tensor().set_element_type(openvino.Type.u8)
            compiled = core.compile_model(
                restore_affinities(steps.build()), placement.hetero_name
            )

        Args:
            model: an ``openvino.Model``, normalised or not, which is not changed.

        Raises:
            PlacementError: when the placement was made for another model, such as the same one
                without its pre-processing.
        """
        result = self._normalised(model)
        self.set_affinities(result, saved=True)
        result.set_rt_info(json.dumps(self._to_content()), RECORD)
        return result

    def compile(
        self, model: Any, executor: str = "", core: Any = None, requests: int = 1
    ) -> PlacedModel:
        """Compile a model as placed, and return an object that runs it.

        Both kinds have ``infer(inputs) -> outputs``, ``start_async(inputs)``, whose result has
        ``wait() -> outputs``, and ``close()``, and are context managers. Several threads may use
        one of them.

        Args:
            model: an ``openvino.Model``, normalised or not, which is not changed.
            executor: hetero, dataflow or auto; by default the placement's own.
            core: made by `make_core` for the placement's devices; a new one if None.
            requests: how many inferences can be in flight.

        Raises:
            PlacementError: as `apply`.
            DevicePlacementError: on an unknown executor, or when ``dataflow`` can't run the model.
            RuntimeError: when OpenVINO can't compile it.

        >>> from device_placement.envs import coarsen, load_model, parse_devices, read_graph
        >>> model, devices = load_model("diamond"), parse_devices("CPU,CPU_B")
        >>> coarse = coarsen(read_graph(model, devices))
        >>> placement = Placement.from_groups(coarse, devices, [0] * coarse.num_groups)
        >>> with placement.compile(model, executor="dataflow") as compiled:
        ...     outputs = compiled.infer([np.zeros((1, 64), np.float32)])
        >>> outputs[0].shape
        (1, 64)
        """
        normal = self._normalised(model)
        chosen = choose_executor(executor or self.executor, normal, self.devices)
        core = core or make_core(self.devices)
        if chosen.name == HETERO:
            return HeteroModel(core, self.apply(normal), self.hetero_name, requests)
        names = [self.devices[device].name for device in self.op_devices]
        groups = dict(zip(self.op_names, self.op_groups, strict=True)) if self.op_groups else None
        regions = plan_regions(normal, dict(zip(self.op_names, names, strict=True)), groups)
        cores = {device.name: device.cores for device in self.devices}
        return DataflowModel(core, normal, regions, requests, cores=cores)

    def _normalised(self, model: Any) -> Any:
        """Return a normalised clone of the model that the placement was made for."""
        result = normalise(model)
        op_names = [op.get_friendly_name() for op in result.get_ops()]
        self._check_model(model_hash(result), result.get_friendly_name(), op_names)
        return result

    @classmethod
    def from_model(
        cls, model: Any, devices: str | Device | Sequence[str | Device] = ()
    ) -> Placement:
        """Return the placement that `apply` wrote into a model, also after saving and reading.

        Args:
            model: an ``openvino.Model``.
            devices: as `load` takes them.

        Raises:
            PlacementError: when it has none, one of another version, or as `load`.

        >>> from device_placement.envs import coarsen, load_model, parse_devices, read_graph
        >>> model, devices = load_model("diamond"), parse_devices("CPU,CPU_B")
        >>> coarse = coarsen(read_graph(model, devices))
        >>> placement = Placement.from_groups(coarse, devices, [0] * coarse.num_groups)
        >>> Placement.from_model(placement.apply(model)) == placement
        True
        """
        name = model.get_friendly_name()
        if not model.has_rt_info(RECORD):
            raise PlacementError(
                f"The model {name!r} has no placement; give one that Placement.apply() returned, "
                "or that was saved after it."
            )
        with reading(name, f"a model placed by version {VERSION}", _WRITERS, PlacementError):
            content = parse_json(model.get_rt_info(RECORD).astype(str))
            return cls._from_content(content, name, devices)

    def set_affinities(self, model: Any, saved: bool = False) -> None:
        """Write the devices into a normalised model, in place and without checks.

        Args:
            model: the ``openvino.Model``.
            saved: whether the devices are also saved with the model.
        """
        names = [self.devices[device].name for device in self.op_devices]
        set_affinities(model, self.op_names, names, saved)

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

    def coarsen(self, graph: ComputationGraph) -> CoarseGraph:
        """Return the groups that the placement was made with, of the same model's graph.

        Placements of earlier versions have no groups; then each op is one of its own.

        Raises:
            PlacementError: when the placement is of another model, or its groups have a cycle
                between them.
        """
        self._check_model(graph.model_hash, graph.name, graph.op_names)
        if not self.op_groups:
            return coarsen(graph, "none")
        group = dict(zip(self.op_names, self.op_groups, strict=True))
        op_group = np.unique([group[name] for name in graph.op_names], return_inverse=True)[1]
        producer, consumer = op_group[graph.edge_index]
        if (producer > consumer).any():
            raise PlacementError(
                "The placement's groups are not numbered in the order in which they run; give a "
                "placement that Placement.save() wrote."
            )
        return make_coarse_graph(graph, op_group, "placement")

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
        with replaced(path) as draft:
            draft.write_text(json.dumps(self._to_content(), indent=1) + "\n", encoding="utf-8")

    def _to_content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model_name,
            "model_hash": self.model_hash,
            "devices": [str(device) for device in self.devices],
            "claim": self.claim and self.claim.to_json(),
            "executor": self.executor,
            "ops": {
                name: self.devices[device].name
                for name, device in zip(self.op_names, self.op_devices, strict=True)
            },
            "groups": dict(zip(self.op_names, self.op_groups, strict=bool(self.op_groups))),
        }

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], devices: str | Device | Sequence[str | Device] = ()
    ) -> Placement:
        """Read a placement that `save` wrote.

        Args:
            path: of the file.
            devices: what `parse_devices` takes; needed only where the file's devices have
                properties that a file may not set, such as ``CACHE_DIR``.

        Raises:
            PlacementError: when the file is missing, holds something else, or sets a property
                that it may not set.
        """
        with reading(path, f"a placement of version {VERSION}", _WRITERS, PlacementError):
            return cls._from_content(read_json(path), path, devices)

    @classmethod
    def _from_content(cls, content: Any, source: str | os.PathLike[str], trusted: Any) -> Placement:
        """Return the placement in a file or model; its devices may be trusted."""
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise KeyError(f"format {content['format']!r}, version {content['version']!r}")
        if not isinstance(content["devices"], list):
            raise TypeError("devices is not a list")
        devices = parse_devices([Device.parse(text) for text in content["devices"]])
        check_file_devices(devices, source, parse_devices(trusted) if trusted else ())
        index = {device.name: position for position, device in enumerate(devices)}
        claim = content.get("claim")
        executor = content.get("executor", HETERO)  # files of earlier versions have neither
        choose("executor", executor, dict.fromkeys((HETERO, DATAFLOW)))
        groups = content.get("groups", {})
        if not isinstance(groups, dict):
            raise TypeError("groups is no object")
        if not groups.keys() >= content["ops"].keys():
            groups = {}  # of other ops, so they don't tell which ones go together
        return cls(
            model_name=str(content["model"]),
            model_hash=str(content["model_hash"]),
            devices=devices,
            op_names=tuple(content["ops"]),
            op_devices=tuple(index[name] for name in content["ops"].values()),
            claim=None if claim is None else Claim.from_json(claim),
            op_groups=tuple(check_count(groups[name]) for name in content["ops"] if groups),
            executor=executor,
        )

    def _check_model(self, found: str, name: str, op_names: Sequence[str]) -> None:
        if found != self.model_hash:
            raise PlacementError(
                f"The placement was made for the model {self.model_name!r} (hash "
                f"{self.model_hash}), not for {name!r} (hash {found})."
                f"{_advice(self.op_names, op_names)}"
            )
        differing = sorted(set(op_names) ^ set(self.op_names))
        if differing:
            raise PlacementError(
                f"The placement and the model {name!r} differ in the ops {', '.join(differing[:3])}"
                f"{', ...' if len(differing) > 3 else ''}. Give a placement of the whole model, "
                "as Placement.save() wrote it."
            )


_WRITERS = "give one that Placement.save(), Placement.apply() or `device-placement train` wrote."


def _advice(wanted: Sequence[str], given: Sequence[str]) -> str:
    """Return how the ops of the wrong model differ from the wanted ones, and what to do.

    >>> _advice(["op0_Relu", "op1_Result"], ["op0_Convert", "op1_Relu", "op2_Result"])[:24]
    ' It also has 1 Convert. '
    """
    types = [Counter(name.partition("_")[2] for name in names) for names in (given, wanted)]
    more, fewer = types[0] - types[1], types[1] - types[0]
    usual = "Give the model it was made for, with the same input shapes, or search again."
    if fewer:
        return f" {usual}"
    if not more:
        return (
            " It has the same ops, so shapes or weights differ; openvino.save_model() rounds "
            f"weights to f16 unless compress_to_fp16=False. {usual}"
        )
    listed = ", ".join(f"{number} {kind}" for kind, number in more.most_common(4))
    return (
        f" It also has {listed}{', ...' if len(more) > 4 else ''}. If these are pre-processing, "
        "apply the placement to the model without it, add it to what apply() returns and call "
        "restore_affinities(), or search the model with it. Else give the model it was made for, "
        "with the same input shapes."
    )


def set_affinities(
    model: Any, op_names: Sequence[str], device_names: Sequence[str], saved: bool = False
) -> None:
    """Write a device into every op of a normalised model, in place.

    Where HETERO might separate tied ops, devices have other spellings, as `spell_devices` says.

    Args:
        model: the normalised ``openvino.Model``.
        op_names: (num_ops,) its ops, in any order.
        device_names: (num_ops,) the device of each.
        saved: whether the devices are also saved with the model.
    """
    spelled = spell_devices(model, dict(zip(op_names, device_names, strict=True)))
    write_affinities(model, list(spelled), list(spelled.values()), saved)


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
    inputs: str = ""  # `Samples.key` of the inputs; empty: they were invented

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name != "inputs" or value}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Claim:
        """Return the claim that `to_json` described.

        Raises:
            TypeError: when a field is missing, unknown or of the wrong kind.
        """
        claim = cls(**content)
        error = 0 if claim.max_output_error is None else claim.max_output_error
        texts, numbers = (claim.reference, claim.inputs), (claim.speedup, error)
        is_text = all(isinstance(one, str) for one in texts)
        if not is_text or not all(map(_is_measurable, numbers)):
            raise TypeError(f"a claim of {reprlib.repr(dict(content))}")
        if not claim.speedup > 0:
            raise TypeError(f"a claimed speed-up of {claim.speedup!r}, which must be above 0")
        return claim


def _is_measurable(value: Any) -> bool:
    """Return whether something is a number from 0 to the largest one of 64 bits."""
    return type(value) in (int, float) and 0 <= value <= sys.float_info.max
