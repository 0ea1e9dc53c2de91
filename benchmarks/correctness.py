"""Check that placed models return the right outputs, and that ops run where they were placed.

For random placements of each model the study compares the outputs with the first device's, and
reads from OpenVINO's runtime model at which precision each op ran. Run it with::

    python -m device_placement.benchmarks.correctness
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from device_placement.benchmarks.study import (
    TWO_PRECISIONS,
    LiveTable,
    ModelsConfig,
    progress,
    random_placements,
    run,
)
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.inputs import invented_inputs
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.measuring.validation import ERROR_SLACK
from device_placement.envs.measuring.verification import ERROR_FLOOR, output_difference
from device_placement.envs.placement import Placement

# Executed layers that a CPU runs in bf16 whenever it may; for others it decides case by case.
COMPUTE_LAYERS = ("Convolution", "FullyConnected", "MatMul")


@dataclass(frozen=True)
class CorrectnessConfig(ModelsConfig):
    """Options of the study."""

    devices: str = TWO_PRECISIONS
    """Two CPU instances of different precision; the second one has the exact outputs."""
    placements: int = 20
    """Random placements per model."""
    seed: int = 0
    """Seed of placements and inputs."""


@dataclass(frozen=True)
class Correctness:
    """Results of the random placements of one model."""

    model: str
    num_failed: int  # did not compile or run
    error: float  # largest relative L2 error against the first device's outputs
    tolerance: float  # what rounding at the lower precision allows
    num_seen: int  # ops whose runtime precision reveals the device
    num_misplaced: int  # of those, ops that ran on another device

    @property
    def holds(self) -> bool:
        """Whether every placement ran on its devices and returned the right outputs."""
        return not self.num_failed and not self.num_misplaced and self.error <= self.tolerance


def check_model(model: str, config: CorrectnessConfig) -> Correctness:
    """Check random placements of one model, and return the results."""
    with contextlib.closing(make_evaluator(model, config.devices)) as evaluator:
        return _check(evaluator, model, config)


def _check(evaluator: OpenVINOEvaluator, model: str, config: CorrectnessConfig) -> Correctness:
    singles = [_run(evaluator, [i] * evaluator.coarse.num_groups, config.seed) for i in (0, 1)]
    expected, exact = singles[0][0], singles[1][0]
    errors, seen, misplaced, failed = [0.0], 0, 0, 0
    for assignment in random_placements(evaluator.coarse, config.placements, config.seed):
        try:
            outputs, precisions = _run(evaluator, assignment, config.seed)
        except RuntimeError as error:
            progress(f"{model}: {error}")
            failed += 1
            continue
        errors.append(output_difference(outputs, expected)[0])
        wanted = _wanted_precisions(evaluator, assignment, singles)
        joined = [(wanted[op], precision) for op, precision in precisions.items() if op in wanted]
        seen += len(joined)
        misplaced += sum(want != got for want, got in joined)
    tolerance = ERROR_FLOOR + ERROR_SLACK * output_difference(expected, exact)[0]
    return Correctness(model, failed, float(np.max(errors)), tolerance, seen, misplaced)


def _run(
    evaluator: OpenVINOEvaluator, assignment: Sequence[int], seed: int
) -> tuple[list[Any], dict[str, str]]:
    """Run a placement; return outputs in f32 and compute ops' precisions by friendly name."""
    placement = Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)
    model = placement.apply(evaluator.model)
    compiled = evaluator.core.compile_model(model, placement.hetero_name)
    (sample,) = invented_inputs(evaluator.model, seed).tensors(compiled)
    results = compiled(sample)
    outputs = [np.array(results[port], dtype=np.float32) for port in compiled.outputs]
    precisions = {}
    for node in compiled.get_runtime_model().get_ops():
        info = {key: value.astype(str) for key, value in node.get_rt_info().items()}
        if info["layerType"] in COMPUTE_LAYERS:
            names = info["originalLayersNames"].split(",")
            precisions.update(dict.fromkeys(names, info["runtimePrecision"]))
    return outputs, precisions


def _wanted_precisions(
    evaluator: OpenVINOEvaluator, assignment: Sequence[int], singles: Sequence[Any]
) -> dict[str, str]:
    """Return the precision that each compute op should have: that of its device's single.

    Ops with the same precision on both devices are left out.
    """
    placement = Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)
    shown = [precisions for _, precisions in singles]
    return {
        name: shown[device][name]
        for name, device in zip(placement.op_names, placement.op_devices, strict=True)
        if name in shown[0] and name in shown[1] and shown[0][name] != shown[1][name]
    }


def main(config: CorrectnessConfig) -> int:
    """Print one line per model; return 1 when a check fails."""
    columns = "model:<14", "failed:>7", "error:>10.2e", "allowed:>10.2e", "ops seen:>10"
    table = LiveTable(*columns, "misplaced:>11")
    holds = True
    for model in config.models:
        row = check_model(model, config)
        holds &= row.holds
        table.add(*astuple(row))
    return 0 if holds else 1


if __name__ == "__main__":
    run(main, CorrectnessConfig, __doc__)
