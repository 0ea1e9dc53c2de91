"""Outputs of the data-flow executor: equal to HETERO's, and to themselves run after run.

Random placements of each model run under both executors, and under `dataflow` with several requests
in flight, each with inputs of its own. The outputs of `dataflow` may differ from HETERO's as in the
other studies: of bundled models by what rounding at the device's precision allows, of files, which
may be quantised, by `max_error`. Then one placement of each model runs many times, and every output
must equal the first one for the same inputs, bit by bit. Run it with::

    python -m device_placement.benchmarks.dataflow_outputs
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_placement.benchmarks.own_models import OwnModelsConfig
from device_placement.benchmarks.study import (
    LiveTable,
    ModelsConfig,
    progress,
    random_placements,
    run,
    shapes_of,
)
from device_placement.envs.executors.dataflow import Inference
from device_placement.envs.executors.hetero import HeteroModel
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.inputs import invented_inputs
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.measuring.validation import ERROR_SLACK
from device_placement.envs.measuring.verification import ERROR_FLOOR, output_difference
from device_placement.envs.placement import Placement

EXACT = "CPU_EXACT:INFERENCE_PRECISION_HINT=f32"

Outputs = list[NDArray[Any]]


@dataclass(frozen=True)
class OutputsConfig(ModelsConfig):
    """Options of the study."""

    models: tuple[str, ...] = ("diamond", "resnet50", "inception_v3", "bert_base")
    """Bundled models (resnet50, inception_v3, bert_base, two_towers, diamond) or paths of model
    files."""
    devices: str = "halves"
    """Two devices, comma-separated; halves: two CPU instances with half of the cores each."""
    input_shapes: str = ""
    """Static shapes for models with dynamic ones: NAME=1,3,224,224;NAME2=..."""
    placements: int = 20
    """Random placements per model."""
    requests: tuple[int, ...] = (1, 3)
    """Numbers of requests in flight."""
    inferences: int = 1000
    """Inferences in a row of one placement of each model."""
    max_error: float = OwnModelsConfig.max_error
    """Allowed relative L2 error of the outputs of a model file."""
    seed: int = 0
    """Seed of placements and inputs."""


def run_in_flight(
    compiled: Any, inputs: Sequence[Sequence[NDArray[Any]]], requests: int
) -> list[Outputs]:
    """Run a compiled placement for each of the inputs, several at a time; return all outputs."""
    found: list[Outputs] = []
    flying: deque[Inference] = deque()
    for sample in inputs:
        if len(flying) == requests:
            found.append(flying.popleft().wait())
        flying.append(compiled.start_async(list(sample)))
    return [*found, *(one.wait() for one in flying)]


def rounding_error(evaluator: OpenVINOEvaluator, sample: Sequence[NDArray[Any]]) -> float:
    """Return the error that rounding at the first device's own precision allows."""
    with contextlib.closing(
        make_evaluator(evaluator.model, [*evaluator.devices[:1], EXACT], store=None)
    ) as other:
        outputs = []
        for device in (0, 1):
            whole = Placement.from_groups(
                other.coarse, other.devices, [device] * other.coarse.num_groups
            )
            with whole.compile(other.model, "hetero", other.core) as compiled:
                outputs.append(compiled.infer(list(sample)))
    return ERROR_FLOOR + ERROR_SLACK * output_difference(outputs[0], outputs[1])[0]


def check_model(model: str, config: OutputsConfig, devices: str) -> tuple[float, float, int]:
    """Check one model.

    Returns:
        The largest relative L2 error against HETERO's outputs, the allowed one, and the number of
        inferences in a row whose outputs differ from the first with the same inputs.
    """
    with contextlib.closing(
        make_evaluator(
            model,
            devices,
            executor="dataflow",
            store=None,
            input_shapes=shapes_of(model, config.input_shapes),
        )
    ) as evaluator:
        rows = [
            [
                np.array(one)
                for one in invented_inputs(evaluator.model, config.seed + number).samples[0]
            ]
            for number in range(max(config.requests))
        ]
        errors = [0.0]
        drawn = random_placements(evaluator.coarse, config.placements, config.seed)
        for assignment in drawn:
            placement = Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)
            with placement.compile(evaluator.model, "hetero", evaluator.core) as hetero:
                assert isinstance(hetero, HeteroModel)
                expected = [hetero.infer(row) for row in rows]
            for requests in config.requests:
                with placement.compile(
                    evaluator.model, "dataflow", evaluator.core, requests
                ) as compiled:
                    found = run_in_flight(compiled, rows, requests)
                errors += [
                    output_difference(one, other)[0]
                    for one, other in zip(found, expected, strict=True)
                ]
        wrong = _count_wrong(evaluator, drawn[0], rows, config)
        allowed = config.max_error if evaluator.file else rounding_error(evaluator, rows[0])
        return float(np.max(errors)), allowed, wrong


def _count_wrong(
    evaluator: OpenVINOEvaluator,
    assignment: Sequence[int],
    rows: Sequence[Sequence[NDArray[Any]]],
    config: OutputsConfig,
) -> int:
    placement = Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)
    requests = max(config.requests)
    with placement.compile(evaluator.model, "dataflow", evaluator.core, requests) as compiled:
        first = [compiled.infer(list(row)) for row in rows]
        inputs = [rows[number % len(rows)] for number in range(config.inferences)]
        found = run_in_flight(compiled, inputs, requests)
    return sum(
        not all(map(np.array_equal, one, first[number % len(rows)]))
        for number, one in enumerate(found)
    )


def main(config: OutputsConfig) -> int:
    """Print one line per model; return 1 when a check fails."""
    devices = config.devices
    columns = "model:<24", "placements:>11", "error:>10.2e", "allowed:>10.2e"
    table = LiveTable(*columns, f"wrong of {config.inferences}:>16")
    holds = True
    for model in config.models:
        progress(model)
        error, allowed, wrong = check_model(model, config, devices)
        holds &= error <= allowed and not wrong
        table.add(model.rpartition("/")[2], config.placements, error, allowed, wrong)
    return 0 if holds else 1


if __name__ == "__main__":
    run(main, OutputsConfig, __doc__)
