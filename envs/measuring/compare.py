"""Comparison of placements: time all of them in turns, so that drift affects all alike."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_placement.envs.errors import PlacementError
from device_placement.envs.evaluation import (
    NAN,
    Evaluation,
    Measurement,
    single_assignments,
)
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.graph.components import components
from device_placement.envs.measuring.bench import Entry
from device_placement.envs.measuring.isolation import WorkerError
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.measuring.timing import MIN_SAMPLES, median_interval
from device_placement.envs.models.side_by_side import JOINT
from device_placement.envs.placement import Placement

ALL_CORES = "OpenVINO AUTO, all cores"  # where devices own parts of them
FILE_SLACK = 0.05  # two compiles of one model differ by some percent


@dataclass(frozen=True)
class Contender:
    """Program to compare and its name, or the reason why it can't be measured."""

    name: str
    entry: Entry | None = None
    error: str = ""


def contenders(
    evaluator: OpenVINOEvaluator, assignments: Mapping[str, Sequence[int]]
) -> list[Contender]:
    """Return each single, OpenVINO's automatic choices, the model's file, and the placements.

    The file, if there is one, is compiled on each device as OpenVINO does it, without what
    `load_model` changes. So it shows whether a model was made slower by loading it.

    Args:
        evaluator: has the model and the devices.
        assignments: (num_groups,) device numbers of each further placement, by name.
    """
    names = ",".join(device.name for device in evaluator.devices)
    own_cores = [device.name for device in evaluator.devices if device.cores]
    everything = dict.fromkeys(
        "CPU" if device.cores else device.name for device in evaluator.devices
    )
    singles = [
        placed(evaluator, name, assignment)
        for name, assignment in single_assignments(evaluator).items()
    ]
    automatic = [
        Contender("OpenVINO HETERO (automatic)", Entry(f"HETERO:{names}")),
        Contender(
            ALL_CORES if own_cores else "OpenVINO AUTO",
            Entry(f"AUTO:{','.join(everything)}"),
        ),
    ]
    whole = whole_model_assignments(evaluator.coarse)
    found = [
        placed(evaluator, name, assignment) for name, assignment in {**whole, **assignments}.items()
    ]
    return [*singles, *automatic, *_files(evaluator), *found]


MAX_WHOLE = 16  # placements of whole models in a table


def whole_model_assignments(coarse: CoarseGraph) -> dict[str, tuple[int, ...]]:
    """Return the placements that put each of several models on a device of its own, by title.

    For one model, or more placements than `MAX_WHOLE`, there are none. Singles are left out.

    Args:
        coarse: groups of models that were combined by `combine_models`.
    """
    graph = coarse.graph
    names, devices = graph.name.split(JOINT), graph.devices
    part = components(coarse.num_groups, coarse.edge_index.astype(np.int64), "weak")
    model_of = {
        int(part[coarse.op_group[op]]): name
        for op, title in graph.inputs
        for name in names
        if title.startswith(f"{name}/")
    }
    if len(names) < 2 or set(model_of) != set(part.tolist()):
        return {}
    if len(devices) ** len(names) > MAX_WHOLE:
        return {}
    found = {}
    for chosen in itertools.product(range(len(devices)), repeat=len(names)):
        if len(set(chosen)) > 1:
            home = dict(zip(names, chosen, strict=True))
            title = ", ".join(f"{name} on {devices[home[name]]}" for name in names)
            found[title] = tuple(home[model_of[one]] for one in part.tolist())
    return found


def _files(evaluator: OpenVINOEvaluator) -> list[Contender]:
    if not evaluator.file:
        return []
    return [
        Contender(file_name(device), Entry(device.name, path=evaluator.file))
        for device in evaluator.devices
    ]


def file_name(device: object) -> str:
    """Return the name of the contender that is the model's file on a device."""
    return f"file as it is, on {device}"


def slower_than_file(
    evaluator: OpenVINOEvaluator, evaluations: Mapping[str, Evaluation], rounds: int
) -> dict[str, tuple[float, tuple[float, float]]]:
    """Return the devices on which the loaded model is slower than its file.

    Where a single seems slower than the file, the loaded model is compiled for the device without
    HETERO, which has a cost of its own, and must be slower again in turns with the file: two
    compiles of one model differ, too.

    Args:
        evaluator: has the model, its file and the devices.
        evaluations: from `compare` of the `contenders`, by name.
        rounds: samples of each.

    Returns:
        By the name of the device: the median ratio of the loaded model's time and the file's, and
        its 95 % interval, which is more than `FILE_SLACK` above 1.
    """
    slower = {}
    singles = single_assignments(evaluator)
    for device, single, file in zip(evaluator.devices, singles, _files(evaluator), strict=False):
        if _is_slower(evaluations[single], evaluations[file.name]):
            loaded = Contender("loaded", Entry(device.name))
            again = compare(evaluator, [loaded, file], rounds)
            if _is_slower(again["loaded"], again[file.name]):
                slower[device.name] = paired_ratio(again["loaded"], again[file.name])
    return slower


def _is_slower(loaded: Evaluation, file: Evaluation) -> bool:
    _, (low, _) = paired_ratio(loaded, file)
    return len(loaded.samples_s) >= MIN_SAMPLES and low > 1 + FILE_SLACK


def placed(evaluator: OpenVINOEvaluator, name: str, assignment: Sequence[int]) -> Contender:
    """Return a placement that can be measured, or the reason why it can't.

    Args:
        evaluator: has the groups and the devices.
        name: for display.
        assignment: (num_groups,) device numbers.
    """
    try:
        placement = Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)
    except PlacementError as error:
        return Contender(name, error=str(error))
    return Contender(name, Entry(placement.hetero_name, bytes(placement.op_devices)))


def compare(
    evaluator: OpenVINOEvaluator,
    entries: Sequence[Contender],
    rounds: int = 30,
    warmup: int = 3,
    max_seconds: float = 60.0,
) -> dict[str, Evaluation]:
    """Compile all contenders, take samples of each in turn, and return their evaluations.

    Args:
        evaluator: has the model, the devices and the objective.
        entries: what to compare, with distinct names. Equal programs are run once.
        rounds: samples of each.
        warmup: runs of each before the first sample.
        max_seconds: no round begins after this long.

    Returns:
        The evaluations by name; invalid if OpenVINO refused or a plugin crashed.
    """
    programs = list(dict.fromkeys(one.entry for one in entries if one.entry is not None))
    measured = _measure(evaluator, programs, rounds, warmup, max_seconds)
    return {
        one.name: Evaluation.invalid(one.error)
        if one.entry is None
        else _summarise(measured[one.entry])
        for one in entries
    }


def paired_ratio(one: Evaluation, other: Evaluation) -> tuple[float, tuple[float, float]]:
    """Return the median ratio one / other over their common rounds, and its 95 % interval."""
    if not (one.valid and other.valid):
        return NAN, (NAN, NAN)
    ratios = np.array(one.samples_s) / np.array(other.samples_s)
    return float(np.median(ratios)), median_interval(ratios.tolist())


def _measure(
    evaluator: OpenVINOEvaluator, programs: Sequence[Entry], *protocol: Any
) -> dict[Entry, Measurement]:
    try:
        return dict(zip(programs, evaluator.compare(programs, *protocol), strict=True))
    except WorkerError as error:
        if len(programs) == 1:
            return {programs[0]: Measurement(error=str(error))}
        together = str(error)
    # One of them crashed the process: run each alone to find it, then the others together.
    alone = {one: _measure(evaluator, [one], 1, 1, 0.0)[one] for one in programs}
    lost = {one: found for one, found in alone.items() if found.error}
    if not lost:  # only together do they crash it
        return dict.fromkeys(programs, Measurement(error=together))
    others = [one for one in programs if one not in lost]
    return lost | (_measure(evaluator, others, *protocol) if others else {})


def _summarise(measured: Measurement) -> Evaluation:
    if measured.error:
        return Evaluation.invalid(measured.error, measured.compile_s)
    samples = [candidate for candidate, _ in measured.pairs]
    return Evaluation(
        time_s=statistics.median(samples),
        samples_s=tuple(samples),
        interval_s=median_interval(samples),
        num_subgraphs=measured.num_subgraphs,
        compile_s=measured.compile_s,
    )
