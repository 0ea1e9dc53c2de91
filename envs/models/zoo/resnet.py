"""ResNet-50 (He et al. 2016, arXiv:1512.03385, table 1), in torchvision's layout."""

from __future__ import annotations

import openvino as ov
from openvino import opset13 as op

from device_placement.envs.models.zoo.layers import (
    classifier,
    conv,
    conv_relu,
    max_pool,
    parameter,
    width,
)
from device_placement.envs.models.zoo.weights import Weights

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Width, number of blocks and first stride of each stage."""
EXPANSION = 4
BRANCH_GAIN = 0.25
"""Gain of a residual branch's last convolution: the sum over 16 blocks then grows only slowly."""


def bottleneck(weights: Weights, name: str, x: ov.Node, planes: int, stride: int) -> ov.Node:
    """Return convolutions 1x1, 3x3 (which strides) and 1x1, added to input or its projection."""
    out_channels = planes * EXPANSION
    out = conv_relu(weights, f"{name}.conv1", x, planes, 1)
    out = conv_relu(weights, f"{name}.conv2", out, planes, 3, stride=stride, pad=1)
    out = conv(weights, f"{name}.conv3", out, out_channels, 1, gain=BRANCH_GAIN)
    if stride != 1 or width(x, 1) != out_channels:
        x = conv(weights, f"{name}.downsample", x, out_channels, 1, stride=stride, gain=1.0)
    return op.relu(op.add(out, x, name=f"{name}.add"), name=f"{name}.relu")


def resnet50() -> ov.Model:
    """Return ResNet-50 with batch norm folded into biases: 396 ops, 411 edges, 25.6 M weights.

    Input `x`: (1, 3, 224, 224) f32, of order 1. Output `logits`: (1, 1000) f32.
    """
    weights = Weights(seed=50)
    x = parameter("x", [1, 3, 224, 224])
    out = conv_relu(weights, "conv1", x, 64, 7, stride=2, pad=3)
    out = max_pool("maxpool", out, 3, stride=2, pad=1)
    for stage, (planes, blocks, first_stride) in enumerate(STAGES, start=1):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            out = bottleneck(weights, f"layer{stage}.{block}", out, planes, stride)
    return ov.Model([classifier(weights, out)], [x], "resnet50")
