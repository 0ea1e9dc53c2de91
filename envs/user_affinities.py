"""Affinities of a user: a JSON file with the device of each op, as OpenVINO's samples read it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_placement.envs.devices import Device
from device_placement.envs.errors import PlacementError, unknown
from device_placement.envs.graph.coarsening import CoarseGraph, coarsen
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.models.normalisation import original_name
from device_placement.envs.placement import Placement
from device_placement.envs.untrusted import read_json, reading

SHOWN = 3  # names in a message


@dataclass(frozen=True)
class UserAffinities:
    """Placement that a user's affinities mean, and what to know about them."""

    placement: Placement
    advice: tuple[str, ...]  # sentences


def read_affinities(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the device of each op in a file, by name.

    It is empty for what `Placement.load` should read, or say what is wrong with.

    Raises:
        PlacementError: when the file holds an object, but something else than devices.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict) or "format" in content:
        return {}
    advice = "give {friendly name: device} as JSON, or a file that Placement.save() wrote."
    with reading(path, "affinities", advice, PlacementError):
        if not content or not all(isinstance(one, str) for one in content.values()):
            raise TypeError("it has no devices, or something else than names of devices")
        return {name: plain_name(device) for name, device in content.items()}


def plain_name(device: str) -> str:
    """Return the name of a device without the spellings by which HETERO keeps tied ops together.

    >>> plain_name("-CPU"), plain_name("CPU."), plain_name("GPU.0")
    ('CPU', 'CPU', 'GPU.0')
    """
    return device.removeprefix("-").removesuffix(".")


def place_by(
    affinities: Mapping[str, str],
    graph: ComputationGraph,
    model: Any,
    devices: Sequence[Device],
    source_names: Iterable[str] = (),
) -> UserAffinities:
    """Return the placement of a normalised model that affinities mean.

    Ops are found by the names of the file that the model was loaded from, or by those of the
    normalised model. An op without a device joins the op that reads it, and so do constants: away
    from their readers, weights would move in each inference, and results can be wrong.

    Args:
        affinities: the device of each op, by name.
        graph: of the model, for these devices.
        model: the normalised ``openvino.Model``.
        devices: those that the affinities name, and perhaps more.
        source_names: names of ops before normalisation, some of which it folds away.

    Raises:
        PlacementError: when a name is unknown, or ops that must share a device do not.
    """
    device_of = {device.name: number for number, device in enumerate(devices)}
    original = {op.get_friendly_name(): original_name(op) for op in model.get_ops()}
    _check_names(affinities, original, source_names)
    given = np.full(graph.num_ops, -1)
    for op, name in enumerate(graph.op_names):
        device = affinities.get(name, affinities.get(original[name]))
        if device is not None:
            given[op] = device_of[device]
    coarse = coarsen(graph, "none")
    groups, advice = _groups_of(coarse, given)
    placement = Placement.from_groups(coarse, devices, groups.tolist())
    folded = {*affinities} - {*original} - {*original.values()}
    if folded:
        advice.append(
            f"{len(folded)} of the ops named are folded into constants before anything runs, so "
            "their devices do not matter."
        )
    return UserAffinities(placement, (*advice, *_advice_on_cuts(coarse, groups)))


def _check_names(
    affinities: Mapping[str, str], original: Mapping[str, str], source_names: Iterable[str]
) -> None:
    known = {*original, *original.values(), *source_names}
    wrong = [name for name in affinities if name not in known]
    if wrong:
        listed = unknown("op", wrong[0], sorted(known)).partition("allowed:")
        near = listed[2].partition("Did you mean ")[2]
        raise PlacementError(
            f"Unknown op {wrong[0]!r}, and {len(wrong) - 1} more; the model has {len(known)} names "
            f"of ops.{f' Did you mean {near}' if near else ''} Give the friendly names of the "
            "file's ops, or those of a model that `device-placement optimize` wrote."
        )


def _groups_of(coarse: CoarseGraph, given: Any) -> tuple[Any, list[str]]:
    """Return the device of each group, (num_groups,), and what was changed."""
    graph, advice = coarse.graph, list[str]()
    groups = np.full(coarse.num_groups, -1)
    for op in np.flatnonzero(~graph.is_constant).tolist():
        group, device = int(coarse.op_group[op]), int(given[op])
        if device < 0:
            continue
        if groups[group] not in (-1, device):
            members = np.flatnonzero((coarse.op_group == group) & ~graph.is_constant)
            named = ", ".join(graph.op_names[one] for one in members[:SHOWN].tolist())
            raise PlacementError(
                f"The affinities put ops that must share a device on several: {named}, ... A state "
                "or a shape that depends on the data ties them; give them one device."
            )
        groups[group] = device
    moved = given[graph.is_constant]
    home = groups[coarse.op_group[graph.is_constant]]
    if apart := int(((moved >= 0) & (home >= 0) & (moved != home)).sum()):
        advice.append(
            f"{apart} constants are on another device than the op that reads them: their weights "
            "would move in each inference, and results can be wrong. Here each joined its reader."
        )
    unnamed = int((groups < 0).sum())
    _fill(coarse, groups)
    if unnamed:
        advice.append(
            f"{unnamed} ops have no device, which OpenVINO refuses; here each joined the op that "
            "reads it."
        )
    return groups, advice


def _fill(coarse: CoarseGraph, groups: Any) -> None:
    """Give groups without a device that of a reader, or else that of the op that they read."""
    producer, consumer = coarse.edge_index
    for group in range(coarse.num_groups)[::-1]:
        if groups[group] < 0:
            readers = groups[consumer[producer == group]]
            groups[group] = next((one for one in readers.tolist() if one >= 0), -1)
    for group in range(coarse.num_groups):
        if groups[group] < 0:
            read = groups[producer[consumer == group]]
            groups[group] = next((one for one in read.tolist() if one >= 0), 0)


def _advice_on_cuts(coarse: CoarseGraph, groups: Any) -> list[str]:
    """Return what cuts between devices cost: split fusions, and tensors that move."""
    graph, advice = coarse.graph, list[str]()
    op_device = groups[coarse.op_group]
    split = [
        members
        for members in graph.fusion_sets
        if len({int(op_device[op]) for op in members if not graph.is_constant[op]}) > 1
    ]
    if split:
        named = [graph.op_names[op] for op in split[0] if not graph.is_constant[op]][:SHOWN]
        advice.append(
            f"{len(split)} sets of ops that a device would run as one are cut apart, such as "
            f"{', '.join(named)}; each set is faster on one device."
        )
    crosses = groups[coarse.edge_index[0]] != groups[coarse.edge_index[1]]
    if crosses.any():
        megabytes = coarse.edge_bytes[crosses].sum() / 1e6
        advice.append(
            f"{int(crosses.sum())} tensors, {megabytes:.3g} MB, move between devices in each "
            "inference."
        )
    return advice
