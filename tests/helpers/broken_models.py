"""Whole models of three formats, and the ways to break them."""

from __future__ import annotations

import contextlib
import copy
import functools
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from broken import SIZES, WORDS, damaged, pick
from device_placement.envs.models import zoo
from device_placement.envs.models.loading import save_model


@functools.cache
def whole_ir() -> tuple[bytes, bytes]:
    """The diamond's .xml and .bin."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "diamond.xml"
        save_model(zoo.build("diamond"), path)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def whole_onnx() -> ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Relu", ["y"], ["r"]),
        helper.make_node("Concat", ["r", "y"], ["c"], axis=1),
        helper.make_node("Reshape", ["c", "shape"], ["z"]),
    ]
    weights = [
        numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "w"),
        numpy_helper.from_array(np.array([8]), "shape"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [8])
    graph = helper.make_graph(nodes, "tiny", [x], [z], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


def part(number: int, content: bytes) -> bytes:
    """A field of a protobuf message, encoded."""
    return bytes([number << 3 | 2, len(content)]) + content


def whole_tensorflow() -> bytes:
    """A frozen graph: y = Relu(x), x of 2x3 floats."""
    dtype, shape = bytes([6 << 3, 1]), part(7, part(2, b"\x08\x02") + part(2, b"\x08\x03"))
    attributes = {b"dtype": dtype, b"shape": shape}
    x = b"".join(part(5, part(1, key) + part(2, value)) for key, value in attributes.items())
    y = part(3, b"x") + part(5, part(1, b"T") + part(2, dtype))
    return part(1, part(1, b"x") + part(2, b"Placeholder") + x) + part(
        1, part(1, b"y") + part(2, b"Relu") + y
    )


@st.composite
def twisted_irs(draw: st.DrawFn) -> bytes:
    """Well-formed XML: elements are dropped, doubled, copied elsewhere, or have other attributes.

    Other types are taken from the file alone: OpenVINO 2026.4.1 dies of an Assign, a ReadValue,
    a Broadcast or a MaxPool that lacks its inputs.
    """
    root = ET.fromstring(whole_ir()[0])
    for _ in range(draw(st.integers(1, 4))):
        parents = [one for one in root.iter() if len(one)]
        if not parents:
            break
        parent = pick(draw, parents)
        child = pick(draw, parent)
        action = draw(st.sampled_from(["drop", "double", "copy", "text", "lose", "set", "set"]))
        if action == "drop":
            parent.remove(child)
        elif action in ("double", "copy"):
            target = parent if action == "double" else pick(draw, parents)
            target.append(copy.deepcopy(child))
        elif action == "text":
            child.text = draw(st.sampled_from([*WORDS, *map(str, SIZES)]))
        elif child.attrib:
            key = draw(st.sampled_from(sorted(child.attrib)))
            others = sorted({one.attrib[key] for one in root.iter() if key in one.attrib})
            child.set(key, draw(st.sampled_from([*others, *WORDS, *map(str, SIZES)])))
            if action == "lose":
                del child.attrib[key]
    return ET.tostring(root)


def broken_irs() -> st.SearchStrategy[bytes]:
    return damaged(whole_ir()[0]) | twisted_irs()


def places(message: Any) -> list[tuple[Any, str]]:
    """Every field of a protobuf message and of those in it."""
    found = [(message, field.name) for field in message.DESCRIPTOR.fields]
    for field, value in message.ListFields():
        parts = value if hasattr(value, "extend") else [value]
        found += [place for one in parts if field.message_type for place in places(one)]
    return found


@st.composite
def twisted_onnx(draw: st.DrawFn) -> bytes:
    """Well-formed protobuf: fields are cleared, doubled, turned round or overwritten.

    Op types are those of the model and unknown ones: OpenVINO 2026.4.1 dies of others that lack
    inputs, such as a Conv without weights.
    """
    model = whole_onnx()
    names = ["", "x", "y", "w", "z", "shape", "Relu", "MatMul", "Concat", "Reshape", "Other"]
    for _ in range(draw(st.integers(1, 4))):
        message, name = pick(draw, places(model))
        value = getattr(message, name)
        values = {
            bool: st.booleans(),
            int: st.sampled_from(SIZES) | st.integers(-3, 30),
            float: st.floats(width=32),
            str: st.sampled_from([*names, *WORDS]),
            bytes: st.binary(max_size=9),
        }
        action = draw(st.sampled_from(["clear", "double", "turn", "set", "set", "set"]))
        if action == "clear":
            message.ClearField(name)
        elif hasattr(value, "extend"):
            items = list(value)
            at = draw(st.integers(0, len(items)))
            kind = type(items[0]) if items else None
            more = items[:at] if action == "double" else []
            if action == "set" and kind in values:
                more = [draw(values[kind])]
            copies = copy.deepcopy([*items[at:], *items[:at], *more])
            message.ClearField(name)
            with contextlib.suppress(ValueError):  # out of the field's range
                getattr(message, name).extend(copies)
        elif type(value) in values:
            with contextlib.suppress(ValueError):
                setattr(message, name, draw(values[type(value)]))
        else:
            value.SetInParent()
    return model.SerializeToString()


def has_low_versions(content: bytes) -> bool:
    """OpenVINO 2026.4.1 counts down from the version of an opset; from 2**31 it takes minutes."""
    try:
        model = ModelProto.FromString(content)
    except DecodeError:
        return True
    opsets = [*model.opset_import, *(one for f in model.functions for one in f.opset_import)]
    return all(one.version <= 1000 for one in opsets)
