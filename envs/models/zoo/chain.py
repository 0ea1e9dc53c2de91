"""Chain of ops that do next to nothing, to measure the overhead of running an op."""

from __future__ import annotations

import openvino as ov
from openvino import opset13 as op

from device_placement.envs.models.zoo.layers import parameter, result

WIDTH = 16


def chain(length: int) -> ov.Model:
    """Return a chain of ELUs. Input `x` and output `y`: (1, 16) f32."""
    x = value = parameter("x", [1, WIDTH])
    for number in range(length):
        value = op.elu(value, 0.5, name=f"elu{number}")
    return ov.Model([result("y", value)], [x], f"chain{length}")
