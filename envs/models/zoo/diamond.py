"""Smallest model with a choice of placements: one product feeds two, which are added."""

from __future__ import annotations

import math

import numpy as np
import openvino as ov
from openvino import opset13 as op

from device_placement.envs.models.zoo.layers import parameter, result
from device_placement.envs.models.zoo.weights import Weights

WIDTH = 64


def product(weights: Weights, name: str, x: ov.Node) -> ov.Node:
    """Return a square matrix product; its weight is f32, so that no Convert counts as an op."""
    values = weights.normal((WIDTH, WIDTH), std=math.sqrt(1 / WIDTH)).astype(np.float32)
    return op.matmul(x, op.constant(values, name=f"{name}/weight"), False, False, name=name)


def diamond() -> ov.Model:
    """Return the diamond: `source` feeds `left` and `right`, which `join` adds: 9 ops, 9 edges.

    Of the 9 ops 4 compute; the rest are a Parameter, a Result and three constants. For tests and
    docs: it runs in microseconds, too short to learn on. Input `x`: (1, 64) f32, of order 1. Output
    `y`: (1, 64) f32.
    """
    weights = Weights(seed=4)
    x = parameter("x", [1, WIDTH])
    source = product(weights, "source", x)
    left, right = product(weights, "left", source), product(weights, "right", source)
    return ov.Model([result("y", op.add(left, right, name="join"))], [x], "diamond")
