"""Small models with states, and models with shapes that depend on the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as ops

SIZE = 8


def weights(generator: np.random.Generator, *shape: int) -> Any:
    return ops.constant(generator.standard_normal(shape, dtype=np.float32) / 4)


def matmul(generator: np.random.Generator, node: Any, size: int = SIZE) -> Any:
    width = int(node.get_output_partial_shape(0)[-1].get_length())
    return ops.matmul(node, weights(generator, width, size), False, False)


def recurrent(layers: int = 2) -> ov.Model:
    """A state for each layer, of static shape."""
    generator = np.random.default_rng(0)
    x = ops.parameter([1, SIZE], np.float32, name="x")
    node, sinks = x, []
    for layer in range(layers):
        zeros = ops.constant(np.zeros((1, SIZE), np.float32))
        past = ops.read_value(zeros, f"state{layer}", np.float32, [1, SIZE])
        new = ops.tanh(ops.add(matmul(generator, node), matmul(generator, past)))
        sinks.append(ops.assign(new, f"state{layer}"))
        node = ops.add(ops.relu(matmul(generator, new)), node)
    return ov.Model([ops.result(node)], sinks, [x], "recurrent")


def decoder(layers: int = 2, beams: bool = True) -> ov.Model:
    """Attention with a cache of keys and values that grows with every run."""
    generator = np.random.default_rng(1)
    x = ops.parameter([1, 3, SIZE], np.float32, name="x")
    beam = ops.parameter([1], np.int32, name="beam")
    node, sinks = x, []
    for layer in range(layers):
        normal = ops.mvn(node, [2], True, 1e-5, "inside_sqrt")
        query, key, value = (matmul(generator, normal) for _ in range(3))
        caches = []
        for name, new in ((f"key{layer}", key), (f"value{layer}", value)):
            empty = ops.constant(np.zeros((1, 0, SIZE), np.float32))
            past = ops.read_value(empty, name, np.float32, ov.PartialShape([1, -1, SIZE]))
            if beams:
                past = ops.gather(past, beam, ops.constant(np.int32(0)))
            caches.append(ops.concat([past, new], 1))
            sinks.append(ops.assign(caches[-1], name))
        scores = ops.softmax(ops.matmul(query, caches[0], False, True), 2)
        mixed = ops.matmul(scores, caches[1], False, False)
        node = ops.add(node, matmul(generator, mixed))
        hidden = ops.gelu(matmul(generator, node, 2 * SIZE), "erf")
        node = ops.add(node, matmul(generator, hidden))
    inputs = [x, beam] if beams else [x]
    return ov.Model([ops.result(node)], sinks, inputs, "decoder")


def detector() -> ov.Model:
    """Boxes and scores of a small network, sorted out by NonMaxSuppression."""
    generator = np.random.default_rng(2)
    image = ops.parameter([1, 3, 16, 16], np.float32, name="image")
    node = image
    for _ in range(2):
        channels = int(node.get_output_shape(0)[1])
        kernels = weights(generator, 8, channels, 3, 3)
        node = ops.relu(ops.convolution(node, kernels, [2, 2], [1, 1], [1, 1], [1, 1]))
    cells = ops.transpose(ops.reshape(node, np.array([1, 8, 16]), False), np.array([0, 2, 1]))
    corners = ops.sigmoid(matmul(generator, cells, 4))
    scores = ops.transpose(
        ops.softmax(matmul(generator, cells, 3), 2), ops.constant(np.array([0, 2, 1]))
    )
    chosen = ops.non_max_suppression(
        corners, scores, ops.constant(np.int64(5)), ops.constant(np.float32(0.4)),
        ops.constant(np.float32(0.3)),
    )  # fmt: skip
    index = ops.gather(chosen.output(0), ops.constant(np.int64(2)), ops.constant(np.int64(1)))
    boxes = ops.gather(corners, index, ops.constant(np.int64(1)))
    results = [ops.result(boxes), ops.result(chosen.output(1)), ops.result(ops.relu(scores))]
    return ov.Model(results, [image], "detector")


def nonzero_in_the_middle() -> ov.Model:
    """The positive elements are picked, and their sum scales what follows."""
    generator = np.random.default_rng(3)
    x = ops.parameter([4, SIZE], np.float32, name="x")
    node = matmul(generator, x)
    at = ops.transpose(ops.non_zero(ops.relu(node), "i64"), ops.constant(np.array([1, 0])))
    picked = ops.tanh(ops.gather_nd(node, at, 0))
    total = ops.reduce_sum(picked, ops.constant(np.array([0])), False)
    number = ops.convert(ops.gather(ops.shape_of(picked), 0, 0), "f32")
    out = ops.relu(ops.add(matmul(generator, ops.multiply(node, total)), number))
    return ov.Model([ops.result(ops.add(matmul(generator, out), node))], [x], "nonzero")


def branches_of_two_shapes() -> ov.Model:
    """An If that returns more or fewer rows."""
    generator = np.random.default_rng(4)
    x = ops.parameter([4, SIZE], np.float32, name="x")
    node = matmul(generator, x)
    mean = ops.reduce_mean(node, ops.constant(np.array([0, 1])), False)
    flag = ops.greater(mean, ops.constant(np.float32(0)))
    node_if = ops.if_op(flag.output(0))
    for rows, choose in ((4, node_if.set_then_body), (2, node_if.set_else_body)):
        inner = ops.parameter([4, SIZE], np.float32)
        start, stop, step = (ops.constant(np.array([one])) for one in (0, rows, 1))
        result = ops.result(ops.slice(ops.exp(inner), start, stop, step))
        choose(ov.Model([result], [inner], "body"))
    then, other = node_if.get_then_body(), node_if.get_else_body()
    node_if.set_input(node.output(0), then.get_parameters()[0], other.get_parameters()[0])
    out = node_if.set_output(then.get_results()[0], other.get_results()[0])
    wide = ops.relu(out)
    total = ops.reduce_sum(wide, ops.constant(np.array([0])), True)
    return ov.Model([ops.result(wide), ops.result(ops.add(node, total))], [x], "branches")


DYNAMIC = (detector, nonzero_in_the_middle, branches_of_two_shapes)
STATEFUL = (recurrent, decoder)
