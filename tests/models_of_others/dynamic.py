"""Models whose course or sizes depend on the data: a loop with a branch, a detector with NMS."""

from __future__ import annotations

import io

import numpy as np
import onnx
import openvino as ov
import torch
from common import SIZE
from onnx import TensorProto, helper, numpy_helper
from torch import nn


class Branches(nn.Module):
    """A step that is repeated as often as an input says, and one of two layers after it."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.one, self.other = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        state = torch.zeros_like(x)
        for _ in range(int(steps)):
            state = torch.tanh(self.cell(torch.cat([x, state], 1)))
        if bool(state.mean() > 0):
            state = torch.relu(self.one(state))
        else:
            state = torch.tanh(self.other(state))
        return state + x


def if_loop() -> ov.Model:
    """A scripted torch module with a loop of unknown length and a branch."""
    module = torch.jit.script(Branches().eval())
    model = ov.convert_model(module, example_input=(torch.rand(8, 32), torch.tensor(3)))
    for port, name in zip(model.inputs, ("x", "steps"), strict=True):
        port.get_tensor().set_names({name})
    model.reshape({"x": [8, 32], "steps": []})
    return model


class Detector(nn.Module):
    """A detector with one box of three classes for each cell, as YOLO's head gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.SiLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.SiLU()
        )
        self.boxes, self.scores = nn.Conv2d(32, 4, 1), nn.Conv2d(32, 3, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        node = self.backbone(image)
        rows = torch.arange(node.shape[2], dtype=torch.float32)
        centre = torch.stack(torch.meshgrid(rows, rows, indexing="ij")).reshape(1, 2, -1)
        offset, size = self.boxes(node).flatten(2).split(2, 1)
        half = torch.exp(size)
        middle = centre + torch.sigmoid(offset)
        boxes = torch.cat([middle - half, middle + half], 1).transpose(1, 2)
        return boxes, torch.sigmoid(10 * self.scores(node).flatten(2))


def detector_nms() -> bytes:
    """An "end-to-end" export: non-maximum suppression inside, and an unknown number of boxes."""
    file, names = io.BytesIO(), ["all_boxes", "all_scores"]
    torch.onnx.export(
        Detector().eval(), (torch.rand(1, 3, SIZE, SIZE),), file, dynamo=False,
        input_names=["image"], output_names=names, opset_version=17,
    )  # fmt: skip
    model = onnx.load_from_string(file.getvalue())
    graph = model.graph
    constants = {
        "most": np.int64([20]), "overlap": np.float32([0.5]), "least": np.float32([0.6]),
        "zero_axis": np.int64([0]), "one": np.int64(1), "two": np.int64(2),
    }  # fmt: skip
    graph.initializer.extend(numpy_helper.from_array(one, name) for name, one in constants.items())
    graph.node.extend(
        helper.make_node(kind, inputs, [output], **attributes)
        for kind, inputs, output, attributes in (
            ("NonMaxSuppression", [*names, "most", "overlap", "least"], "chosen", {}),
            ("Gather", ["chosen", "two"], "place", {"axis": 1}),
            ("Gather", ["chosen", "one"], "labels", {"axis": 1}),
            ("Squeeze", ["all_boxes", "zero_axis"], "rows", {}),
            ("Gather", ["rows", "place"], "boxes", {"axis": 0}),
            ("GatherND", ["all_scores", "chosen"], "scores", {}),
        )
    )
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("boxes", TensorProto.FLOAT, ["found", 4]),
            ("scores", TensorProto.FLOAT, ["found"]),
            ("labels", TensorProto.INT64, ["found"]),
        )
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
