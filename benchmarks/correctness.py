"""Do placed models compute what the first device computes, where they were told to?

For random placements of each model this compares the outputs with the first device's, and
reads from OpenVINO's runtime model at which precision each op really ran. Run it with::

    python -m device_placement.benchmarks.correctness
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro

from device_placement.agents.placers.baselines import random_assignment
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.machine import describe_machine
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.measuring.program import seeded_inputs
from device_placement.envs.measuring.validation import ERROR_FLOOR, ERROR_SLACK
from device_placement.envs.measuring.verification import output_difference
from device_placement.envs.placement import Placement

# Executed layers that a CPU runs in bf16 whenever it may; for others it decides case by case.
COMPUTE_LAYERS = ("Convolution", "FullyConnected", "MatMul")


@dataclass(frozen=True)
class CorrectnessConfig:
    """What to check."""

    models: tuple[str, ...] = ("resnet50", "inception_v3", "bert_base")
    """Models, as load_model takes them."""
    devices: str = "CPU,CPU_F32:INFERENCE_PRECISION_HINT=f32"
    """Two CPU instances of different precision; the second one's outputs are the exact ones."""
    placements: int = 20
    """Random placements of each model."""
    seed: int = 0
    """Seed of placements and inputs."""


@dataclass(frozen=True)
class Correctness:
    """What the random placements of one model showed."""

    model: str
    num_failed: int  # did not compile or run
    error: float  # largest relative L2 error against the first device's outputs
    tolerance: float  # what rounding at the lower precision allows
    num_seen: int  # ops whose runtime precision tells the device
    num_misplaced: int  # of those, ops that ran elsewhere than they were told

    @property
    def holds(self) -> bool:
        """Whether every placement ran, where it was told to, and to the right outputs."""
        return not self.num_failed and not self.num_misplaced and self.error <= self.tolerance


def check_model(model: str, config: CorrectnessConfig) -> Correctness:
    """Check random placements of one model."""
    evaluator = make_evaluator(model, config.devices)
    assert isinstance(evaluator, OpenVINOEvaluator)
    generator = np.random.default_rng(config.seed)
    singles = [_run(evaluator, [i] * evaluator.coarse.num_groups, config.seed) for i in (0, 1)]
    expected, exact = singles[0][0], singles[1][0]
    errors, seen, misplaced, failed = [0.0], 0, 0, 0
    for _ in range(config.placements):
        assignment = random_assignment(evaluator.coarse, generator)
        try:
            outputs, precisions = _run(evaluator, assignment, config.seed)
        except RuntimeError as error:
            print(f"{model}: {error}", file=sys.stderr)
            failed += 1
            continue
        errors.append(output_difference(outputs, expected)[0])
        told = _told_precisions(evaluator, assignment, singles)
        joined = [(told[op], precision) for op, precision in precisions.items() if op in told]
        seen += len(joined)
        misplaced += sum(want != got for want, got in joined)
    tolerance = ERROR_FLOOR + ERROR_SLACK * output_difference(expected, exact)[0]
    return Correctness(model, failed, float(np.max(errors)), tolerance, seen, misplaced)


def _run(
    evaluator: OpenVINOEvaluator, assignment: Sequence[int], seed: int
) -> tuple[list[Any], dict[str, str]]:
    """The outputs in f32, and the runtime precision of each compute op by friendly name."""
    placement = Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)
    model = placement.apply(evaluator.model)
    compiled = evaluator.core.compile_model(model, placement.hetero_name)
    results = compiled(seeded_inputs(compiled, seed))
    outputs = [np.array(results[port], dtype=np.float32) for port in compiled.outputs]
    precisions = {}
    for node in compiled.get_runtime_model().get_ops():
        info = {key: value.astype(str) for key, value in node.get_rt_info().items()}
        if info["layerType"] in COMPUTE_LAYERS:
            names = info["originalLayersNames"].split(",")
            precisions.update(dict.fromkeys(names, info["runtimePrecision"]))
    return outputs, precisions


def _told_precisions(
    evaluator: OpenVINOEvaluator, assignment: Sequence[int], singles: Sequence[Any]
) -> dict[str, str]:
    """The precision each compute op should show: what its device's single gives it.

    Ops to which both devices give the same precision tell nothing and are left out.
    """
    placement = Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)
    shown = [precisions for _, precisions in singles]
    return {
        name: shown[device][name]
        for name, device in zip(placement.op_names, placement.op_devices, strict=True)
        if name in shown[0] and name in shown[1] and shown[0][name] != shown[1][name]
    }


def main(config: CorrectnessConfig) -> int:
    """Print a line a model; 1 when something does not hold."""
    print(", ".join(f"{key} {value}" for key, value in describe_machine().items()))
    print(f"devices {config.devices}, {config.placements} random placements each\n")
    print(
        f"{'model':<14}{'failed':>7}{'error':>10}{'allowed':>10}{'ops seen':>10}{'misplaced':>11}"
    )
    holds = True
    for model in config.models:
        row = check_model(model, config)
        holds &= row.holds
        numbers = f"{row.num_failed:>7}{row.error:>10.2e}{row.tolerance:>10.2e}"
        print(f"{model:<14}{numbers}{row.num_seen:>10}{row.num_misplaced:>11}", flush=True)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(CorrectnessConfig, description=__doc__)))
