"""Broken input of every kind: only documented errors come out."""

from __future__ import annotations

import copy
import json
import math
import multiprocessing
import re
import resource
import struct
import string
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from device_placement.envs import load_model, model_hash, zoo
from device_placement.envs.errors import ModelError

ODD_NUMBERS = [-1, 0, 1, 2, 3, 7, 63, 65, 255, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1]
ODD_WORDS = ["", " ", "-1", "0", "1,64,1", "99999999999999999999", "1e9", "nan", "?", "-1..3", "\x01",
             "ä", "true", "undefined", "dynamic", "u1", "i4", "string", "f16", "f64", "bf16", "nf4", "u8","boolean","i64"]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with some stretches of it cut out, overwritten or repeated elsewhere."""
    content = whole
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        stop = draw(st.sampled_from([start, start + 1, start + 8, start + 100, len(content)]))
        source = draw(st.integers(0, len(whole)))
        patch = draw(st.binary(max_size=8) | st.just(whole[source : source + 60]))
        content = content[:start] + patch + content[stop:]
    return content


OP_TYPES = sorted({n for n in """Parameter Const Result MatMul Add Convert ShapeOf Reshape Loop TensorIterator If
ReadValue Assign NonZero Split Concat Gather Convolution Range Broadcast Tile LSTMCell Unknown StridedSlice Softmax
TopK OneHot Pad Transpose Squeeze Unsqueeze VariadicSplit RandomUniform NonMaxSuppression PriorBox Interpolate
FakeQuantize DetectionOutput Proposal ROIPooling LSTMSequence GRUSequence RNNSequence EmbeddingBagOffsetsSum
ExperimentalDetectronROIFeatureExtractor BatchNormInference ScaledDotProductAttention Einsum Eye CTCLoss
AvgPool MaxPool DeformableConvolution Bucketize CumSum ReverseSequence ScatterUpdate GatherTree GroupConvolution
RegionYolo ReorgYolo SpaceToBatch BatchToSpace ShuffleChannels MVN NormalizeL2 LRN GridSample RDFT DFT IRDFT
Multinomial Unique StringTensorPack StringTensorUnpack Swish PRelu Clamp Elu Col2Im PagedAttentionExtension
ReduceMean ReduceSum Select Sqrt Power LogSoftmax Log Tanh Mod Maximum
FusedConvolution Subgraph Sink Extension""".split()})


@st.composite
def twisted_xml(draw: st.DrawFn, whole: bytes) -> bytes:
    root = ET.fromstring(whole)
    for _ in range(draw(st.integers(1, 4))):
        parents = [one for one in root.iter() if len(one)]
        if not parents:
            break
        parent = parents[draw(st.integers(0, len(parents) - 1))]
        index = draw(st.integers(0, len(parent) - 1))
        child = parent[index]
        action = draw(st.sampled_from(["drop", "repeat", "move", "attribute", "attribute", "type", "lose", "text", "tag"]))
        if action == "drop":
            parent.remove(child)
        elif action == "repeat":
            parent.insert(index, copy.deepcopy(child))
        elif action == "move":
            other = parents[draw(st.integers(0, len(parents) - 1))]
            other.append(copy.deepcopy(child))
        elif action == "tag":
            child.tag = draw(st.sampled_from(["layer", "edge", "data", "port", "dim", "input", "output", "rt_info", "x","body","port_map","back_edges"]))
        elif action == "text":
            child.text = draw(st.sampled_from(ODD_WORDS + [str(n) for n in ODD_NUMBERS]))
        elif action == "type" and "type" in child.attrib:
            child.set("type", draw(st.sampled_from(OP_TYPES)))
            child.set("version", draw(st.sampled_from([f"opset{i}" for i in range(0, 18)])))
        elif child.attrib:
            key = draw(st.sampled_from(sorted(child.attrib)))
            if action == "lose":
                del child.attrib[key]
            else:
                values = sorted({v for one in root.iter() for v in one.attrib.values()})
                child.set(key, draw(st.sampled_from(values + ODD_WORDS + [str(n) for n in ODD_NUMBERS])))
    try:
        return ET.tostring(root)
    except ValueError:
        return b""


def places(message: Any) -> Iterator[tuple[Any, Any]]:
    """Every field of a protobuf message that can be set, and of those in it."""
    for field in message.DESCRIPTOR.fields:
        yield message, field
    for field, value in message.ListFields():
        if field.message_type:
            for part in value if field.is_repeated else [value]:
                yield from places(part)


ODD = {
    "int": st.sampled_from([*ODD_NUMBERS, -2, -(2**31), -(2**63)]) | st.integers(-3, 30),
    "float": st.floats(),
}


@st.composite
def twisted_proto(draw: st.DrawFn, whole: Any) -> bytes:
    model = copy.deepcopy(whole)
    words = ["", "x", "y", "w", "shape", "z", "Loop", "If", "Scan", "Constant", "Reshape", "MatMul", "ConstantOfShape", "Expand","Range","NonZero","Conv","LSTM","ai.onnx.ml","com.microsoft","location","offset","length","/etc/passwd","/dev/zero","value","body","then_branch","Resize","Split","Slice","QuantizeLinear","\0", "ä"]
    for _ in range(draw(st.integers(1, 4))):
        options = list(places(model))
        message, field = options[draw(st.integers(0, len(options) - 1))]
        value = getattr(message, field.name)
        kind = field.cpp_type
        if field.message_type:
            new = field.message_type._concrete_class()
        elif kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
            new = draw(st.floats(width=32))
        elif kind == field.CPPTYPE_STRING:
            new = draw(st.sampled_from(words) if field.type == field.TYPE_STRING else st.binary(max_size=9) | st.sampled_from(words).map(str.encode))
        elif kind == field.CPPTYPE_ENUM:
            new = draw(st.sampled_from([v.number for v in field.enum_type.values]))
        elif kind == field.CPPTYPE_BOOL:
            new = draw(st.booleans())
        else:
            new = draw(ODD["int"])
            if kind in (field.CPPTYPE_INT32,): new = max(-2**31, min(new, 2**31-1))
            if kind in (field.CPPTYPE_UINT64,): new = abs(new)
        if field.is_repeated:
            items = list(value)
            at = draw(st.integers(0, len(items)))
            action = draw(st.sampled_from(["drop", "repeat", "set", "swap", "clear"]))
            if action == "drop": del items[at:at+1]
            elif action == "repeat" and items: items.insert(at, copy.deepcopy(items[draw(st.integers(0, len(items)-1))]))
            elif action == "set": items[at:at+1] = [new]
            elif action == "swap": items = items[at:] + items[:at]
            else: items = []
            message.ClearField(field.name)
            getattr(message, field.name).extend(items)
        elif draw(st.integers(0, 4)) == 0:
            message.ClearField(field.name)
        elif field.message_type:
            getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, new)
    return model.SerializeToString()


def tiny_onnx() -> Any:
    weights = np.arange(6, dtype=np.float32)
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "w"], ["y"]),
                helper.make_node("Relu", ["y"], ["r"]),
                helper.make_node("Concat", ["r", "y"], ["c"], axis=1),
                helper.make_node("Reshape", ["c", "shape"], ["z"]),
            ],
            "tiny",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, [8])],
            [
                helper.make_tensor("w", TensorProto.FLOAT, [3, 2], weights.tobytes(), raw=True),
                helper.make_tensor("shape", TensorProto.INT64, [1], [8]),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
    )


def serve(connection: Connection) -> None:
    import sys
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    sys.path.insert(0, "/work/main/tests")
    while True:
        path = connection.recv()
        try:
            model_hash(load_model(path))
            connection.send("loaded")
        except ModelError as error:
            connection.send("refused")
        except BaseException as error:
            import traceback
            tb = traceback.extract_tb(error.__traceback__)
            connection.send(f"{type(error).__name__} {tb[-1].name}: {ascii(str(error))[-150:]}")


class Loader:
    def __init__(self):
        self.start()
    def start(self):
        self.c, theirs = multiprocessing.get_context("spawn").Pipe()
        self.p = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
        self.p.start(); theirs.close()
    def ask(self, path):
        self.c.send(str(path))
        if not self.c.poll(30):
            self.p.kill(); self.p.join(); self.start(); return "HANG"
        try:
            return self.c.recv()
        except (EOFError, ConnectionResetError):
            self.p.join(); code = self.p.exitcode; self.start(); return f"DIED {code}"
