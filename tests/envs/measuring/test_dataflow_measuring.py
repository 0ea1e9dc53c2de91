"""Placements measured under the data-flow executor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dataflow_models import DEVICES, core, writing
from device_placement.envs import OpenVINOEvaluator, coarsen, read_graph
from device_placement.envs.measuring.verification import ERROR_FLOOR
from device_placement.envs.models.normalisation import normalise
from problems import QUICK

DATAFLOW = QUICK | {"executor": "dataflow"}


def evaluator_of(model: Any, **options: Any) -> OpenVINOEvaluator:
    coarse = coarsen(read_graph(model, DEVICES, core()), "none")
    return OpenVINOEvaluator(model, coarse, DEVICES, core=core(), **DATAFLOW | options)


def rows(*numbers: int) -> list[dict[str, np.ndarray]]:
    return [{"x": np.array([number])} for number in numbers]


def placements(evaluator: OpenVINOEvaluator) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 2, (5, evaluator.coarse.num_groups)).tolist()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"timing": "paired", "max_samples": 2},
        {"objective": "throughput"},
        {"objective": "throughput", "requests": 2, "timing": "paired", "max_samples": 2},
    ],
)
def test_outputs_are_verified_whatever_is_timed(options: dict[str, Any]) -> None:
    evaluator = evaluator_of(normalise(writing()), verify=True, inputs=rows(1, 3, 0), **options)
    for assignment in placements(evaluator):
        found = evaluator.evaluate(assignment)
        assert found.valid, found.error
        assert found.time_s > 0
        assert found.output_error <= ERROR_FLOOR
    evaluator.close()


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_an_inference_that_fails_while_it_is_timed_is_an_invalid_evaluation(
    objective: str,
) -> None:
    model = normalise(writing())
    failing = evaluator_of(model, objective=objective, inputs=rows(1, 99))
    for assignment in placements(failing):
        found = failing.evaluate(assignment)
        assert not found.valid
        assert not found.transient
        assert "The region of 'op" in found.error
        assert "ScatterUpdate" in found.error
    failing.close()
