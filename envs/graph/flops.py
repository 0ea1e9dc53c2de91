"""Floating-point operations of one op, by type; a multiply-add counts as two.

The formulas are the usual ones of the roofline literature: exact for convolutions and
matrix products, operations per element elsewhere, zero for ops that only move data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from device_placement.envs.graph.shapes import largest_shape
from device_placement.envs.models.normalisation import bodies_of

# Operations per element of the output. Types that are listed nowhere count as 1.
PER_OUTPUT_ELEMENT: dict[str, float] = {
    "Elu": 4.0,
    "Erf": 8.0,
    "Exp": 4.0,
    "Gelu": 12.0,
    "HSigmoid": 4.0,
    "HSwish": 5.0,
    "Interpolate": 7.0,
    "Mish": 12.0,
    "Sigmoid": 5.0,
    "SoftPlus": 6.0,
    "Softmax": 6.0,
    "LogSoftmax": 7.0,
    "Swish": 6.0,
    "Tanh": 7.0,
}
# Operations per element of the first input.
PER_INPUT_ELEMENT: dict[str, float] = {
    "BatchNormInference": 2.0,
    "GroupNormalization": 8.0,
    "LRN": 8.0,
    "MVN": 7.0,
    "NormalizeL2": 4.0,
    "RMS": 4.0,
    **{f"Reduce{kind}": 1.0 for kind in ("L1", "L2", "Max", "Mean", "Min", "Prod", "Sum")},
}
MOVES_DATA = frozenset(
    [
        "Assign",
        "BatchToSpace",
        "Broadcast",
        "Concat",
        "Constant",
        "Convert",
        "ConvertLike",
        "DepthToSpace",
        "EmbeddingBagOffsetsSum",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Pad",
        "Parameter",
        "ReadValue",
        "Reshape",
        "Result",
        "ReverseSequence",
        "Roll",
        "ScatterElementsUpdate",
        "ScatterNDUpdate",
        "ScatterUpdate",
        "ShapeOf",
        "ShuffleChannels",
        "Slice",
        "SpaceToBatch",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "StridedSlice",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "VariadicSplit",
    ]
)


def op_flops(op: Any) -> float:
    """Return the floating-point operations of one inference of an op.

    Where shapes depend on the data, their upper bounds count, as in `largest_shape`.

    Args:
        op: an ``openvino.Node``.
    """
    kind = op.get_type_name()
    if kind in MOVES_DATA:
        return 0.0
    if kind in _FORMULAS and (bodies_of(op) or _has_ranks(op)):
        return _FORMULAS[kind](op)
    if kind in PER_INPUT_ELEMENT:
        return PER_INPUT_ELEMENT[kind] * _size(_input(op, 0))
    return PER_OUTPUT_ELEMENT.get(kind, 1.0) * _size(_output(op))


def _has_ranks(op: Any) -> bool:
    ports = (*op.inputs(), *op.outputs())
    return all(port.get_partial_shape().rank.is_static for port in ports)


def _input(op: Any, port: int) -> list[int]:
    return list(largest_shape(op.input(port)))


def _output(op: Any) -> list[int]:
    return list(largest_shape(op.output(0)))


def _size(shape: Any) -> float:
    return float(math.prod(shape))


def _convolution(op: Any) -> float:
    # weights are (out, in, *kernel), so the axes after the first are the work of one output
    return 2.0 * _size(_output(op)) * _size(_input(op, 1)[1:])


def _group_convolution(op: Any) -> float:
    # weights are (groups, out / groups, in / groups, *kernel)
    return 2.0 * _size(_output(op)) * _size(_input(op, 1)[2:])


def _backprop(op: Any) -> float:
    # weights are (in, out, *kernel): each input element is spread over out x kernel
    return 2.0 * _size(_input(op, 0)) * _size(_input(op, 1)[1:])


def _group_backprop(op: Any) -> float:
    return 2.0 * _size(_input(op, 0)) * _size(_input(op, 1)[2:])


def _matmul(op: Any) -> float:
    shape = _input(op, 0)
    transposed = bool(op.get_attributes().get("transpose_a", False)) and len(shape) > 1
    return 2.0 * _size(_output(op)) * float(shape[-2 if transposed else -1])


def _pool(op: Any) -> float:
    return _size(_output(op)) * _size(op.get_attributes().get("kernel", ()))


def _attention(op: Any) -> float:
    query, key = _input(op, 0), _input(op, 1)
    return 4.0 * _size(query) * float(key[-2]) + 6.0 * _size(query[:-1]) * float(key[-2])


def _recurrent(op: Any) -> float:
    # W (directions, gates * hidden, input), R (directions, gates * hidden, hidden)
    batch, steps = _input(op, 0)[:2]
    weights = sum(_size(_input(op, port)) for port in _recurrent_weights(op))
    return 2.0 * float(batch) * float(steps) * weights


def _recurrent_weights(op: Any) -> tuple[int, int]:
    return (4, 5) if op.get_type_name() == "LSTMSequence" else (3, 4)


def _cell(op: Any) -> float:
    # W (gates * hidden, input), R (gates * hidden, hidden); an LSTM also has a cell state before
    first = 3 if op.get_type_name() == "LSTMCell" else 2
    weights = sum(_size(_input(op, port)) for port in (first, first + 1))
    return 2.0 * float(_input(op, 0)[0]) * weights


def _einsum(op: Any) -> float:
    # every combination of the labels is one product, whichever order they are summed in
    sizes: dict[str, int] = {}
    terms = op.get_attributes()["equation"].replace(" ", "").split("->")[0].split(",")
    for port, term in enumerate(terms):
        labels, shape = list(term.replace("...", ".")), _input(op, port)
        if "." in labels:
            at, more = labels.index("."), len(shape) - len(labels) + 1
            # the dimensions of an ellipsis are aligned at their ends
            labels[at : at + 1] = [f".{place}" for place in range(more, 0, -1)]
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return float(len(terms)) * _size(sizes.values())


def _deformable(op: Any) -> float:
    # data, offsets, weights (out, in / groups, *kernel); a sample is interpolated from 4 numbers
    kernel = _size(_input(op, 2)[1:])
    return (2.0 + 7.0 / float(_output(op)[1])) * _size(_output(op)) * kernel


def _fourier(op: Any) -> float:
    # 5 n log2(n) for n complex numbers, as in Cooley and Tukey 1965, and half for real ones
    kind = op.get_type_name()
    real = kind in ("RDFT", "IRDFT")
    shape = _output(op) if kind == "IRDFT" else _input(op, 0)
    signal = shape if real else shape[:-1]  # the last axis holds real and imaginary part
    axes = op.input_value(1).get_node()
    if axes.get_type_name() != "Constant":
        return 5.0 * _size(signal)
    length = _size([signal[axis] for axis in np.asarray(axes.data).ravel().tolist()])
    return (2.5 if real else 5.0) * _size(signal) * math.log2(max(length, 2.0))


def _top(op: Any) -> float:
    largest = _output(op)[op.get_attributes()["axis"]]
    return _size(_input(op, 0)) * math.log2(largest + 1.0)


def _branch(op: Any) -> float:
    return max(model_flops(body) for body in bodies_of(op))


def _loop(op: Any) -> float:
    # where the number of trips depends on the data, one trip is counted
    trips = max(1, op.get_num_iterations())
    return float(trips) * sum(model_flops(body) for body in bodies_of(op))


def model_flops(model: Any) -> float:
    """Return the operations of all ops of a model, such as the body of a loop."""
    return sum(op_flops(op) for op in model.get_ops())


_FORMULAS: dict[str, Callable[[Any], float]] = {
    "AvgPool": _pool,
    "DFT": _fourier,
    "DeformableConvolution": _deformable,
    "Einsum": _einsum,
    "GRUCell": _cell,
    "IDFT": _fourier,
    "IRDFT": _fourier,
    "If": _branch,
    "LSTMCell": _cell,
    "Loop": _loop,
    "RDFT": _fourier,
    "RNNCell": _cell,
    "TensorIterator": _loop,
    "TopK": _top,
    "Convolution": _convolution,
    "ConvolutionBackpropData": _backprop,
    "GRUSequence": _recurrent,
    "GroupConvolution": _group_convolution,
    "GroupConvolutionBackpropData": _group_backprop,
    "LSTMSequence": _recurrent,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "RNNSequence": _recurrent,
    "ScaledDotProductAttention": _attention,
}
