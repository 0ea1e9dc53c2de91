"""Real problems, loaded once for all tests."""

from __future__ import annotations

import functools
from typing import Any

from device_placement.envs import OpenVINOEvaluator, Timing, make_evaluator

TWO_CPUS = "CPU,CPU_F32:INFERENCE_PRECISION_HINT=f32"
QUICK = Timing(warmup=0, repeats=2)


@functools.cache
def measured(model: str = "diamond", objective: str = "latency") -> OpenVINOEvaluator:
    """An evaluator that measures a bundled model on two CPU instances."""
    evaluator: Any = make_evaluator(model, TWO_CPUS, objective=objective, timing=QUICK)
    return evaluator
