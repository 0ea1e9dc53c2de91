"""Small models for the data-flow executor, and their placements on two CPU instances."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as ops

from device_placement.envs import make_core, parse_devices
from device_placement.envs.executors.dataflow import DataflowModel
from device_placement.envs.executors.regions import plan_regions

F32 = "INFERENCE_PRECISION_HINT=f32"  # so outputs are the same on any CPU
ONE, OTHER = "CPU_ONE", "CPU_OTHER"
DEVICES = parse_devices(f"{ONE}:{F32},{OTHER}:{F32}")


@functools.cache
def core() -> ov.Core:
    return make_core(DEVICES)


def placed(
    model: ov.Model, devices: Mapping[str, str] | None = None, **options: Any
) -> DataflowModel:
    """Compile a model whose ops are on the first device, except for those with another one."""
    given = dict(devices or {})
    names = [op.get_friendly_name() for op in model.get_ordered_ops()]
    assert given.keys() <= set(names)
    regions = plan_regions(model, dict.fromkeys(names, ONE) | given)
    return DataflowModel(core(), model, regions, **options)


def reference(model: ov.Model, inputs: Any) -> list[np.ndarray]:
    """The outputs of the whole model on the first device."""
    request = core().compile_model(model, ONE).create_infer_request()
    request.infer(inputs)
    return [np.array(tensor.data) for tensor in request.output_tensors]


def named(op: Any, name: str) -> Any:
    op.set_friendly_name(name)
    return op


def towers(width: int = 8) -> ov.Model:
    """Two branches and their sum; op names: left, left2, right, right2, sum."""
    x = ops.parameter([1, width], np.float32, name="x")
    left = named(ops.multiply(x, ops.constant(np.float32(2))), "left")
    left = named(ops.add(left, ops.constant(np.float32(1))), "left2")
    right = named(ops.negative(x), "right")
    right = named(ops.abs(right), "right2")
    end = named(ops.add(left, right), "sum")
    result = ops.result(end)
    model = ov.Model([result], [x], "towers")
    model.inputs[0].get_tensor().set_names({"x"})
    return model


def expected_towers(x: np.ndarray) -> np.ndarray:
    return 2 * x + 1 + np.abs(x)


APART = {"right": OTHER, "right2": OTHER}


def writing(width: int = 8) -> ov.Model:
    """Overwrites one of four rows, and fails for a row that is not there.

    Op names: row, write, scale.
    """
    x = ops.parameter([1], np.int64, name="x")
    rows = ops.constant(np.ones((4, width), np.float32))
    zeros = ops.constant(np.zeros((1, width), np.float32))
    row = named(ops.multiply(x, ops.constant(np.int64(1))), "row")
    write = named(ops.scatter_update(rows, row, zeros, ops.constant(np.int64(0))), "write")
    scale = named(ops.multiply(write, ops.constant(np.float32(2))), "scale")
    return ov.Model([ops.result(scale)], [x], "writing")


def expected_writing(row: int, width: int = 8) -> np.ndarray:
    rows = np.full((4, width), 2, np.float32)
    rows[row] = 0
    return rows


def slow(steps: int = 40, size: int = 256) -> ov.Model:
    """A chain of matrix products; op names: step0, step1 ..."""
    x = ops.parameter([size, size], np.float32, name="x")
    weights = ops.constant(np.eye(size, dtype=np.float32))
    node = x
    for step in range(steps):
        node = named(ops.matmul(node, weights, False, False), f"step{step}")
    return ov.Model([ops.result(node)], [x], "slow")
