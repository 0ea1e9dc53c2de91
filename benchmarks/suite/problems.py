"""Evaluators, simulated or measured, for the problems of a suite."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

from device_placement.benchmarks.suite.random_graphs import PREFIX, layered_evaluator
from device_placement.benchmarks.suite.suite_file import is_suite_file, read_suite
from device_placement.benchmarks.suite.suites import MEASURED, SUITES, Problem, Suite
from device_placement.envs.devices import parse_devices
from device_placement.envs.errors import DevicePlacementError, choose, printable
from device_placement.envs.evaluation import Evaluator, single_assignments
from device_placement.envs.factory import (
    check_several,
    make_evaluator,
    simulate,
    usual_devices,
)
from device_placement.envs.graph.computation_graph import ComputationGraph, read_graph
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.models.loading import load_model, parse_input_shapes
from device_placement.envs.problems.chips import on_chips
from device_placement.envs.problems.generator import draw_problem
from device_placement.envs.problems.seeds import is_generated, parse_seed
from device_placement.envs.simulation.roofline import derive_profile
from device_placement.envs.simulation.workloads import is_workload

WORKLOADS = "workloads"
NOTICES = ("license", "licence", "copying", "notice", "readme", "changelog", "authors")


def find_suite(word: str) -> Suite:
    """Return a suite by its name, or that of a TOML file.

    Raises:
        DevicePlacementError: on an unknown name, or a file that can't be used.
    """
    return read_suite(word) if is_suite_file(word) else choose("suite", word, SUITES)


def problems_of(suite: str, data: str = "", devices: str = "") -> dict[str, Problem]:
    """Return the problems of a suite by name.

    Args:
        suite: a name of `SUITES`, or the path of a TOML file.
        data: for the suite ``workloads``, the folder with its files.
        devices: replaces "auto" in problems that are measured here.

    Raises:
        DevicePlacementError: on an unknown suite, or a folder without workloads.

    >>> list(problems_of("quick"))[0]
    'diamond'
    """
    problems = dict(find_suite(suite).problems)
    if suite == WORKLOADS:
        problems = _workloads(data)
    if devices:
        for name, one in problems.items():
            if one.evaluator == MEASURED and one.devices == "auto":
                problems[name] = dataclasses.replace(one, devices=devices)
    return problems


@contextlib.contextmanager
def opened(problem: Problem, measuring: MeasureConfig | None = None) -> Iterator[Evaluator]:
    """Open a problem's evaluator, and close it at the end."""
    evaluator = open_problem(problem, measuring)
    try:
        yield evaluator
    finally:
        evaluator.close()


def open_problem(problem: Problem, measuring: MeasureConfig | None = None) -> Evaluator:
    """Return an evaluator; close one that measures; one that simulates is made only once.

    Args:
        problem: what to evaluate.
        measuring: how to measure it; the problem's reference and limit take precedence.

    Raises:
        DevicePlacementError: when the problem can't be evaluated here.
    """
    if problem.evaluator != MEASURED:
        return _simulator(problem)
    chosen = measuring or MeasureConfig()
    chosen = dataclasses.replace(chosen, reference=problem.reference or chosen.reference)
    if problem.share is not None:
        chosen = dataclasses.replace(chosen, verify=True)
        with contextlib.closing(_measuring(problem, chosen)) as evaluator:
            errors = single_errors(evaluator)
        limit = problem.share * max(errors.values())
        if not limit:
            raise DevicePlacementError(
                f"Got the reference's outputs from each of {', '.join(errors)}, so no limit "
                "separates them; this problem needs a CPU that computes in bf16 by default."
            )
        chosen = dataclasses.replace(chosen, max_output_error=limit)
    return _measuring(problem, chosen)


def _workloads(data: str) -> dict[str, Problem]:
    folder = Path(data)
    files = folder.rglob("*") if data else []
    paths = sorted(path for path in files if is_workload(path) and not _is_notice(path))
    if not paths:
        raise DevicePlacementError(
            f"The suite {WORKLOADS!r} needs --data with a folder of workloads (dnn-partitioning "
            f".json, PipeDream .txt); got {data!r}."
        )
    plain = (path.relative_to(folder).with_suffix("").as_posix() for path in paths)
    names = [printable(name, keep="") for name in plain]
    return {
        name: Problem(str(path), schedule="max_load")
        for name, path in zip(names, paths, strict=True)
    }


def _is_notice(path: Path) -> bool:
    """Return whether a file accompanies workloads and is none, as a licence does."""
    return path.stem.lower().startswith(NOTICES)


@functools.lru_cache(maxsize=16)
def _simulator(problem: Problem) -> Evaluator:
    if problem.model.startswith(PREFIX):
        return layered_evaluator(
            problem.model, problem.hardware, problem.devices, problem.schedule, problem.max_groups
        )
    if problem.chips:
        return on_chips(
            _graph(problem.model, problem.input_shapes),
            problem.chips,
            room=problem.room,
            max_groups=problem.max_groups,
            constraints=problem.constraints or None,
            hardware=problem.hardware,
        )
    if is_workload(problem.model):
        return make_evaluator(
            problem.model,
            problem.devices,
            max_groups=problem.max_groups,
            evaluator="simulator",
            hardware=problem.hardware,
            schedule=problem.schedule,
        )
    hardware = problem.hardware or "desktop"
    chosen = usual_devices(hardware) if problem.devices == "auto" else problem.devices
    devices = check_several(parse_devices(chosen))
    names = tuple(device.name for device in devices)
    graph = dataclasses.replace(_graph(problem.model, problem.input_shapes), devices=names)
    profile = derive_profile(graph, hardware, devices)
    return simulate(
        graph, devices, profile, max_groups=problem.max_groups, schedule=problem.schedule
    )


@functools.lru_cache(maxsize=16)
def _graph(model: str, input_shapes: str = "") -> ComputationGraph:
    """Return a model's graph on one device; `simulate` adds what other devices support."""
    if is_generated(model):
        return draw_problem(parse_seed(model)).workload.coarse.graph
    shapes = parse_input_shapes(input_shapes)
    return read_graph(load_model(model, input_shapes=shapes), "CPU", simulated=True)


def _measuring(problem: Problem, measuring: MeasureConfig) -> OpenVINOEvaluator:
    return make_evaluator(
        problem.model,
        problem.devices,
        max_groups=problem.max_groups,
        inputs=problem.inputs or None,
        input_shapes=parse_input_shapes(problem.input_shapes),
        measuring=measuring,
    )


def single_errors(evaluator: Evaluator) -> dict[str, float]:
    """Return the output error of each single, where outputs are compared."""
    return {
        name: evaluator.evaluate(single).output_error
        for name, single in single_assignments(evaluator).items()
    }
