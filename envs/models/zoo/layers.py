"""Building blocks of the bundled models: fp16-stored weights, convolution, dense, layer norm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset1
from openvino import opset13 as op

from device_placement.envs.models.zoo.weights import Weights

Pair = int | tuple[int, int]

BIAS_STD = 0.1
NORM_STD = 0.1
LAYER_NORM_EPS = 1e-12


def pair(value: Pair) -> list[int]:
    """Return height and width from one number or two.

    >>> pair(3), pair((1, 7))
    ([3, 3], [1, 7])
    """
    return [value, value] if isinstance(value, int) else list(value)


def width(x: ov.Node, axis: int) -> int:
    """Return the static size of a node's first output along an axis."""
    return int(x.get_output_shape(0)[axis])


def parameter(name: str, shape: Sequence[int], dtype: ov.Type = ov.Type.f32) -> ov.Node:
    """Return a model input whose tensor carries the input's name."""
    node = op.parameter(list(shape), dtype, name=name)
    node.output(0).set_names({name})
    return node


def result(name: str, x: ov.Node) -> ov.Node:
    """Return a model output whose tensor carries the output's name."""
    x.output(0).set_names({name})
    return op.result(x, name=f"{name}/result")


def integers(name: str, values: npt.ArrayLike) -> ov.Node:
    """Return an i64 constant: axes, shapes, permutations, indices."""
    return op.constant(np.array(values, dtype=np.int64), name=name)


def unsqueeze(name: str, x: ov.Node, axis: ov.Node) -> ov.Node:
    """Return a new axis of size 1, with a name, which OpenVINO's own function ignores."""
    out = op.unsqueeze(x, axis)
    out.set_friendly_name(name)
    return out


def half(name: str, values: npt.ArrayLike) -> ov.Node:
    """Return an fp16 constant converted to f32, as a compressed IR stores each weight.

    An fp16 array is shared with the model, not copied.
    """
    array = np.asarray(values, dtype=np.float16)
    stored = op.constant(array, name=f"{name}_compressed", shared_memory=True)
    return op.convert(stored, ov.Type.f32, name=name)


def conv(
    weights: Weights,
    name: str,
    x: ov.Node,
    channels: int,
    kernel: Pair,
    *,
    stride: int = 1,
    pad: Pair = 0,
    gain: float = 2.0,
) -> ov.Node:
    """Return convolution and bias: 6 nodes, 6 edges.

    Args:
        weights: Where the weights come from.
        name: Friendly name of the result; the other nodes' names start with it.
        x: Features of shape (batch, in_channels, height, width).
        channels: Output channels.
        kernel: Height and width of the window.
        stride: Step of the window along both axes.
        pad: Zeros added on both sides of height and of width.
        gain: Weight variance times fan-in: 2 keeps the mean square of a ReLU's output (He et al.
            2015, eq. 10), 1 that of other inputs.
    """
    shape = (channels, width(x, 1), *pair(kernel))
    std = math.sqrt(gain / math.prod(shape[1:]))
    kernels = half(f"{name}/weight", weights.normal(shape, std=std))
    pads = pair(pad)
    out = op.convolution(x, kernels, pair(stride), pads, pads, [1, 1], name=f"{name}/conv")
    bias = half(f"{name}/bias", weights.normal((1, channels, 1, 1), std=BIAS_STD))
    return op.add(out, bias, name=name)


def conv_relu(
    weights: Weights,
    name: str,
    x: ov.Node,
    channels: int,
    kernel: Pair,
    *,
    stride: int = 1,
    pad: Pair = 0,
    gain: float = 2.0,
) -> ov.Node:
    """Return convolution, bias and ReLU: 7 nodes, 7 edges; see `conv`."""
    out = conv(weights, name, x, channels, kernel, stride=stride, pad=pad, gain=gain)
    return op.relu(out, name=f"{name}/relu")


def dense(weights: Weights, name: str, x: ov.Node, features: int, *, gain: float = 1.0) -> ov.Node:
    """Return a product with a (features, in_features) weight, and bias: 6 nodes, 6 edges."""
    fan_in = width(x, -1)
    values = weights.normal((features, fan_in), std=math.sqrt(gain / fan_in))
    matrix = half(f"{name}/weight", values)
    out = op.matmul(x, matrix, False, True, name=f"{name}/matmul")
    bias_shape = (1,) * (len(x.get_output_shape(0)) - 1) + (features,)
    bias = half(f"{name}/bias", weights.normal(bias_shape, std=BIAS_STD))
    return op.add(out, bias, name=name)


def layer_norm(weights: Weights, name: str, x: ov.Node) -> ov.Node:
    """Return MVN over the last axis, scale and shift: 8 nodes, 8 edges."""
    shape = (1, 1, width(x, -1))
    axes = integers(f"{name}/axes", [-1])
    out = op.mvn(x, axes, True, LAYER_NORM_EPS, "inside_sqrt", name=f"{name}/mvn")
    scale = half(f"{name}/weight", weights.normal(shape, std=NORM_STD, mean=1.0))
    shift = half(f"{name}/bias", weights.normal(shape, std=NORM_STD))
    return op.add(op.multiply(out, scale, name=f"{name}/scaled"), shift, name=name)


def max_pool(name: str, x: ov.Node, kernel: int, *, stride: int, pad: int = 0) -> ov.Node:
    """Return the maximum over a square window; opset 1, since later ones also return indices."""
    pads = pair(pad)
    return opset1.max_pool(x, pair(stride), pads, pads, pair(kernel), name=name)


def avg_pool_same(name: str, x: ov.Node) -> ov.Node:
    """Return the mean over 3 x 3 at stride 1, padded by counted zeros (PyTorch's default)."""
    return op.avg_pool(x, [1, 1], [1, 1], [1, 1], [3, 3], False, name=name)


def classifier(weights: Weights, x: ov.Node, classes: int = 1000) -> ov.Node:
    """Return global mean, flattening and a dense layer, as the output `logits`: 11 nodes."""
    axes = integers("avgpool/axes", [2, 3])
    pooled = op.reduce_mean(x, axes, keep_dims=True, name="avgpool")
    flat = op.reshape(pooled, integers("flatten/shape", [0, -1]), True, name="flatten")
    return result("logits", dense(weights, "fc", flat, classes))
