"""Measure several placements anew, taking turns, so that drift meets all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from device_placement.envs.errors import PlacementError
from device_placement.envs.execution.evaluation import NAN, Evaluation, single_assignments
from device_placement.envs.execution.measure import Program, build_program, count_subgraphs
from device_placement.envs.execution.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.execution.timing import median_interval
from device_placement.envs.placement import Placement

Key = tuple[str, tuple[int, ...] | None, str]


@dataclass(frozen=True)
class Contender:
    """One thing to compare: a placement, or a device name that OpenVINO fills in itself."""

    name: str
    device_name: str  # what compile_model takes
    placement: Placement | None = None  # None: OpenVINO decides
    error: str = ""  # why it can't be measured

    @property
    def key(self) -> Key:
        """Equal for contenders that are the same program; that is then measured once."""
        op_devices = None if self.placement is None else self.placement.op_devices
        return self.device_name, op_devices, self.error


def contenders(
    evaluator: OpenVINOEvaluator, assignments: Mapping[str, list[int]]
) -> list[Contender]:
    """Each single, OpenVINO's automatic choices, and the named placements.

    Args:
        evaluator: knows the model and the devices.
        assignments: (num_groups,) device numbers of each further placement, by name.
    """
    singles = single_assignments(evaluator)
    names = ",".join(device.name for device in evaluator.devices)
    result = [
        _placed(evaluator, name, assignment)
        for name, assignment in {**singles, **assignments}.items()
    ]
    automatic = [
        Contender("OpenVINO HETERO (automatic)", f"HETERO:{names}"),
        Contender("OpenVINO AUTO", f"AUTO:{names}"),
    ]
    return [*result[: len(singles)], *automatic, *result[len(singles) :]]


def compare(
    evaluator: OpenVINOEvaluator,
    entries: list[Contender],
    rounds: int = 30,
    warmup: int = 3,
    max_seconds: float = 60.0,
) -> dict[str, Evaluation]:
    """Compile every contender, then time them one run each in turn, round after round.

    Args:
        evaluator: knows the model, the devices and the objective.
        entries: what to compare; the names differ.
        rounds: samples of each.
        warmup: runs of each before the first sample.
        max_seconds: no further round is begun after this long.

    Returns:
        An evaluation by name; invalid where OpenVINO refused.
    """
    programs: dict[Key, Program] = {}
    failures: dict[Key, Evaluation] = {}
    for entry in entries:
        if entry.key in programs:
            continue
        try:
            programs[entry.key] = _build(evaluator, entry, warmup)
        except RuntimeError as error:
            failures[entry.key] = Evaluation.invalid(str(error).strip())
    samples: dict[Key, list[float]] = {key: [] for key in programs}
    start = time.perf_counter()
    for done in range(rounds):
        if done and time.perf_counter() - start > max_seconds:
            break
        for key, program in programs.items():
            samples[key].append(program.sample())
    results = {key: _summarise(programs[key], taken) for key, taken in samples.items()} | failures
    return {entry.name: results[entry.key] for entry in entries}


def paired_ratio(one: Evaluation, other: Evaluation) -> tuple[float, tuple[float, float]]:
    """Median ratio one / other over the rounds both were in, and its 95 % interval."""
    if not (one.valid and other.valid):
        return NAN, (NAN, NAN)
    ratios = np.array(one.samples_s) / np.array(other.samples_s)
    return float(np.median(ratios)), median_interval(ratios.tolist())


def _placed(evaluator: OpenVINOEvaluator, name: str, assignment: list[int]) -> Contender:
    try:
        placement = Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)
    except PlacementError as error:
        return Contender(name, "", error=str(error))
    return Contender(name, placement.hetero_name, placement)


def _build(evaluator: OpenVINOEvaluator, entry: Contender, warmup: int) -> Program:
    if entry.error:
        raise RuntimeError(entry.error)
    model = evaluator.model.clone()
    if entry.placement is not None:
        entry.placement.set_affinities(model)
    program = build_program(evaluator.core, model, entry.device_name, evaluator.objective)
    for _ in range(warmup):
        program.sample()
    return program


def _summarise(program: Program, samples: list[float]) -> Evaluation:
    return Evaluation(
        time_s=statistics.median(samples),
        samples_s=tuple(samples),
        interval_s=median_interval(samples),
        num_subgraphs=count_subgraphs(program.compiled),
        compile_s=program.compile_s,
    )
