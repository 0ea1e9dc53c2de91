"""Real problems, loaded once for all tests."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as ops

from device_placement.envs import OpenVINOEvaluator, make_evaluator

TWO_CPUS = "CPU,CPU_F32:INFERENCE_PRECISION_HINT=f32"
FLUSHING = "CPU_DENORMALS_OPTIMIZATION"  # a property: numbers next to 0 are taken as 0
QUICK = {
    "timing": "plain",
    "warmup": 0,
    "max_samples": 2,
    "isolation": "none",
    "store": None,
}


@functools.cache
def measured(model: str = "diamond", objective: str = "latency") -> OpenVINOEvaluator:
    """An evaluator that measures a bundled model on two CPU instances."""
    evaluator: Any = make_evaluator(model, TWO_CPUS, objective=objective, **QUICK)
    return evaluator


def chain(folder: Path, length: int = 10) -> str:
    """A file with a chain of matrix products, each of which becomes a group of its own."""
    generator = np.random.default_rng(0)
    node = data = ops.parameter([32, 64], np.float32, name="data")
    for _ in range(length):
        weights = generator.standard_normal((64, 64), dtype=np.float32) / 8
        node = ops.relu(ops.matmul(node, ops.constant(weights), False, False))
    path = folder / "chain.xml"
    ov.serialize(ov.Model([node], [data], "chain"), path)
    return str(path)


def fading(folder: Path) -> str:
    """A file with a chain of matrix products that in the middle are below f32's normal numbers.

    A CPU that computes in f32 and takes such numbers as 0 (`FLUSHING`) gives other outputs than
    one that does not, on any CPU and by the same margin.
    """
    generator = np.random.default_rng(0)
    node = data = ops.parameter([32, 64], np.float32, name="data")
    for scale in (1e-20, 1e-20, 1e30, 1.0):
        weights = scale * generator.standard_normal((64, 64))
        node = ops.relu(ops.matmul(node, ops.constant(weights.astype(np.float32)), False, False))
    path = folder / "fading.xml"
    ov.serialize(ov.Model([node], [data], "fading"), path)
    return str(path)
