"""Parts of several models: a small classifier, and the conversion from torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import openvino as ov
import torch
from torch import nn

SIZE = 128  # of images, in pixels
SEVEN_BITS = 63  # of larger weights, pairs of products overflow on CPUs without VNNI


class Classifier(nn.Module):
    """A small convolutional network with a residual connection."""

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.depthwise = nn.Conv2d(width, width, 3, 1, 1, groups=width)
        self.pointwise = nn.Conv2d(width, 2 * width, 1)
        self.block = nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3, 1, 1), nn.ReLU())
        self.head = nn.Linear(2 * width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        node = torch.relu(self.pointwise(torch.relu(self.depthwise(self.stem(image)))))
        node = node + self.block(node)
        return self.head(node.mean((2, 3)))


def convert(module: nn.Module, example: Any, names: Sequence[str]) -> ov.Model:
    """Convert a torch module as its users do, with names for its inputs."""
    model = ov.convert_model(module.eval(), example_input=example)
    for port, name in zip(model.inputs, names, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
    return model
