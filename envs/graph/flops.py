"""Floating-point operations of one op, by type; a multiply-add counts as two.

The formulas are the usual ones of the roofline literature: exact for convolutions and
matrix products, operations per element elsewhere, zero for ops that only move data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

# Operations per element of the output. What is not named anywhere here counts as 1.
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
    """Operations of one inference of an op of static shape.

    Args:
        op: an ``openvino.Node``.
    """
    kind = op.get_type_name()
    if kind in MOVES_DATA:
        return 0.0
    if kind in _FORMULAS:
        return _FORMULAS[kind](op)
    if kind in PER_INPUT_ELEMENT:
        return PER_INPUT_ELEMENT[kind] * _size(op.get_input_shape(0))
    return PER_OUTPUT_ELEMENT.get(kind, 1.0) * _size(op.get_output_shape(0))


def _size(shape: Any) -> float:
    return float(math.prod(shape))


def _convolution(op: Any) -> float:
    # weights are (out, in, *kernel), so everything behind the first axis is one output's work
    return 2.0 * _size(op.get_output_shape(0)) * _size(list(op.get_input_shape(1))[1:])


def _group_convolution(op: Any) -> float:
    # weights are (groups, out / groups, in / groups, *kernel)
    return 2.0 * _size(op.get_output_shape(0)) * _size(list(op.get_input_shape(1))[2:])


def _backprop(op: Any) -> float:
    # weights are (in, out, *kernel): each input element is spread over out x kernel
    return 2.0 * _size(op.get_input_shape(0)) * _size(list(op.get_input_shape(1))[1:])


def _group_backprop(op: Any) -> float:
    return 2.0 * _size(op.get_input_shape(0)) * _size(list(op.get_input_shape(1))[2:])


def _matmul(op: Any) -> float:
    shape = list(op.get_input_shape(0))
    transposed = bool(op.get_attributes().get("transpose_a", False)) and len(shape) > 1
    return 2.0 * _size(op.get_output_shape(0)) * float(shape[-2 if transposed else -1])


def _pool(op: Any) -> float:
    return _size(op.get_output_shape(0)) * _size(op.get_attributes().get("kernel", ()))


def _attention(op: Any) -> float:
    query, key = list(op.get_input_shape(0)), list(op.get_input_shape(1))
    return 4.0 * _size(query) * float(key[-2]) + 6.0 * _size(query[:-1]) * float(key[-2])


def _recurrent(op: Any) -> float:
    # W (directions, gates * hidden, input), R (directions, gates * hidden, hidden)
    batch, steps = list(op.get_input_shape(0))[:2]
    weights = sum(_size(op.get_input_shape(port)) for port in _recurrent_weights(op))
    return 2.0 * float(batch) * float(steps) * weights


def _recurrent_weights(op: Any) -> tuple[int, int]:
    return (4, 5) if op.get_type_name() == "LSTMSequence" else (3, 4)


_FORMULAS: dict[str, Callable[[Any], float]] = {
    "AvgPool": _pool,
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
