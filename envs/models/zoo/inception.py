"""Inception-v3 (Szegedy et al. 2016, arXiv:1512.00567), in torchvision's layout."""

from __future__ import annotations

from functools import partial

import openvino as ov
from openvino import opset13 as op

from device_placement.envs.models.zoo.layers import (
    avg_pool_same,
    classifier,
    conv_relu,
    half,
    integers,
    max_pool,
    parameter,
    unsqueeze,
)
from device_placement.envs.models.zoo.weights import Weights

MIDDLE_WIDTHS = {"Mixed_6b": 128, "Mixed_6c": 160, "Mixed_6d": 160, "Mixed_6e": 192}
"""Channels inside the 7 x 7 branches of each 17 x 17 module."""
RESCALE = ((0.229, 0.485), (0.224, 0.456), (0.225, 0.406))
"""ImageNet standard deviation and mean of each channel, which the input was normalised with."""


def transform_input(x: ov.Node) -> ov.Node:
    """Convert ImageNet's normalisation to mean 0.5 and deviation 0.5, and return the result."""
    gather_axis = integers("transform/gather_axis", 1)
    unsqueeze_axis = integers("transform/unsqueeze_axis", 1)
    channels = []
    for i, (std, mean) in enumerate(RESCALE):
        name = f"transform.{i}"
        out = op.gather(x, integers(f"{name}/index", i), gather_axis, name=f"{name}/gather")
        out = unsqueeze(f"{name}/unsqueeze", out, unsqueeze_axis)
        out = op.multiply(out, half(f"{name}/scale", std / 0.5), name=f"{name}/scaled")
        shift = half(f"{name}/shift", (mean - 0.5) / 0.5)
        channels.append(op.add(out, shift, name=name))
    return op.concat(channels, 1, name="transform")


def stem(weights: Weights, x: ov.Node) -> ov.Node:
    """Return five convolutions and two poolings, to (1, 192, 35, 35)."""
    out = conv_relu(weights, "Conv2d_1a_3x3", x, 32, 3, stride=2)
    out = conv_relu(weights, "Conv2d_2a_3x3", out, 32, 3)
    out = conv_relu(weights, "Conv2d_2b_3x3", out, 64, 3, pad=1)
    out = max_pool("maxpool1", out, 3, stride=2)
    out = conv_relu(weights, "Conv2d_3b_1x1", out, 80, 1)
    out = conv_relu(weights, "Conv2d_4a_3x3", out, 192, 3)
    return max_pool("maxpool2", out, 3, stride=2)


def block_a(weights: Weights, name: str, x: ov.Node, pool_features: int) -> ov.Node:
    """Return the 35 x 35 module; one branch keeps its 5 x 5 window, as in torchvision."""
    layer = partial(conv_relu, weights)
    one = layer(f"{name}.branch1x1", x, 64, 1)
    five = layer(f"{name}.branch5x5_1", x, 48, 1)
    five = layer(f"{name}.branch5x5_2", five, 64, 5, pad=2)
    three = layer(f"{name}.branch3x3dbl_1", x, 64, 1)
    three = layer(f"{name}.branch3x3dbl_2", three, 96, 3, pad=1)
    three = layer(f"{name}.branch3x3dbl_3", three, 96, 3, pad=1)
    pool = avg_pool_same(f"{name}.avg_pool", x)
    pool = layer(f"{name}.branch_pool", pool, pool_features, 1)
    return op.concat([one, five, three, pool], 1, name=name)


def block_b(weights: Weights, name: str, x: ov.Node) -> ov.Node:
    """Return the reduction from 35 x 35 to 17 x 17 (figure 10)."""
    layer = partial(conv_relu, weights)
    three = layer(f"{name}.branch3x3", x, 384, 3, stride=2)
    double = layer(f"{name}.branch3x3dbl_1", x, 64, 1)
    double = layer(f"{name}.branch3x3dbl_2", double, 96, 3, pad=1)
    double = layer(f"{name}.branch3x3dbl_3", double, 96, 3, stride=2)
    pool = max_pool(f"{name}.branch_pool", x, 3, stride=2)
    return op.concat([three, double, pool], 1, name=name)


def block_c(weights: Weights, name: str, x: ov.Node, middle: int) -> ov.Node:
    """Return the 17 x 17 module, with 7 x 7 windows split into 1 x 7 and 7 x 1 (figure 6)."""
    layer = partial(conv_relu, weights)
    row = partial(layer, kernel=(1, 7), pad=(0, 3))
    column = partial(layer, kernel=(7, 1), pad=(3, 0))
    one = layer(f"{name}.branch1x1", x, 192, 1)
    seven = layer(f"{name}.branch7x7_1", x, middle, 1)
    seven = row(f"{name}.branch7x7_2", seven, middle)
    seven = column(f"{name}.branch7x7_3", seven, 192)
    double = layer(f"{name}.branch7x7dbl_1", x, middle, 1)
    double = column(f"{name}.branch7x7dbl_2", double, middle)
    double = row(f"{name}.branch7x7dbl_3", double, middle)
    double = column(f"{name}.branch7x7dbl_4", double, middle)
    double = row(f"{name}.branch7x7dbl_5", double, 192)
    pool = avg_pool_same(f"{name}.avg_pool", x)
    pool = layer(f"{name}.branch_pool", pool, 192, 1)
    return op.concat([one, seven, double, pool], 1, name=name)


def block_d(weights: Weights, name: str, x: ov.Node) -> ov.Node:
    """Return the reduction from 17 x 17 to 8 x 8."""
    layer = partial(conv_relu, weights)
    three = layer(f"{name}.branch3x3_1", x, 192, 1)
    three = layer(f"{name}.branch3x3_2", three, 320, 3, stride=2)
    seven = layer(f"{name}.branch7x7x3_1", x, 192, 1)
    seven = layer(f"{name}.branch7x7x3_2", seven, 192, (1, 7), pad=(0, 3))
    seven = layer(f"{name}.branch7x7x3_3", seven, 192, (7, 1), pad=(3, 0))
    seven = layer(f"{name}.branch7x7x3_4", seven, 192, 3, stride=2)
    pool = max_pool(f"{name}.branch_pool", x, 3, stride=2)
    return op.concat([three, seven, pool], 1, name=name)


def split(weights: Weights, name: str, suffix: str, x: ov.Node) -> ov.Node:
    """Return two convolutions of the same input, 1 x 3 and 3 x 1, side by side."""
    row = conv_relu(weights, f"{name}_{suffix}a", x, 384, (1, 3), pad=(0, 1))
    column = conv_relu(weights, f"{name}_{suffix}b", x, 384, (3, 1), pad=(1, 0))
    return op.concat([row, column], 1, name=name)


def block_e(weights: Weights, name: str, x: ov.Node) -> ov.Node:
    """Return the 8 x 8 module, whose 3 x 3 branches fan out (figure 7)."""
    layer = partial(conv_relu, weights)
    one = layer(f"{name}.branch1x1", x, 320, 1)
    three = layer(f"{name}.branch3x3_1", x, 384, 1)
    three = split(weights, f"{name}.branch3x3", "2", three)
    double = layer(f"{name}.branch3x3dbl_1", x, 448, 1)
    double = layer(f"{name}.branch3x3dbl_2", double, 384, 3, pad=1)
    double = split(weights, f"{name}.branch3x3dbl", "3", double)
    pool = avg_pool_same(f"{name}.avg_pool", x)
    pool = layer(f"{name}.branch_pool", pool, 192, 1)
    return op.concat([one, three, double, pool], 1, name=name)


def inception_v3() -> ov.Model:
    """Return Inception-v3 without its auxiliary head: 728 ops, 768 edges, 23.8 M weights.

    Batch norm is folded into biases, and the input is rescaled as torchvision does for pretrained
    weights. Input `x`: (1, 3, 299, 299) f32, of order 1. Output `logits`: (1, 1000) f32.
    """
    weights = Weights(seed=3)
    x = parameter("x", [1, 3, 299, 299])
    out = stem(weights, transform_input(x))
    for name, features in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        out = block_a(weights, name, out, features)
    out = block_b(weights, "Mixed_6a", out)
    for name, middle in MIDDLE_WIDTHS.items():
        out = block_c(weights, name, out, middle)
    out = block_d(weights, "Mixed_7a", out)
    for name in ("Mixed_7b", "Mixed_7c"):
        out = block_e(weights, name, out)
    return ov.Model([classifier(weights, out)], [x], "inception_v3")
