"""A layer of attention, of which CPUs fuse more or less by their instructions."""

from __future__ import annotations

import numpy as np
import openvino as ov
import openvino.opset15 as ops

WORDS, HEADS, WIDTH = 16, 4, 64


def attention() -> ov.Model:
    generator = np.random.default_rng(0)

    def linear(node: ov.Node) -> ov.Node:
        weights = generator.standard_normal((WIDTH, WIDTH), dtype=np.float32) / 8
        bias = generator.standard_normal(WIDTH, dtype=np.float32)
        product = ops.matmul(node, ops.constant(weights), False, False)
        return ops.add(product, ops.constant(bias))

    def heads(node: ov.Node) -> ov.Node:
        parted = ops.reshape(node, [1, WORDS, HEADS, WIDTH // HEADS], False)
        return ops.transpose(parted, [0, 2, 1, 3])

    x = ops.parameter([1, WORDS, WIDTH], np.float32, name="x")
    query, key, value = (heads(linear(x)) for _ in range(3))
    scores = ops.divide(ops.matmul(query, key, False, True), ops.constant(np.float32(4)))
    mixed = ops.matmul(ops.softmax(scores, 3), value, False, False)
    joined = ops.reshape(ops.transpose(mixed, [0, 2, 1, 3]), [1, WORDS, WIDTH], False)
    return ov.Model([ops.result(ops.gelu(linear(joined), "erf"))], [x], "attention")
