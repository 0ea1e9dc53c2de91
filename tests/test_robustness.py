"""Broken input of every kind: only documented errors come out.

Over 10,000 cases with those of the store (`test_store.py`), always the same ones. Models are
loaded in another process: OpenVINO's readers are C++, and what breaks one must not take the
tests with it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import math
import multiprocessing
import os
import resource
import string
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import graphs  # noqa: F401 -- for its profile: no deadline
import numpy as np
import openvino as ov
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from device_placement.envs import (
    Device,
    DeviceError,
    ModelError,
    Placement,
    PlacementError,
    coarsen,
    load_model,
    make_core,
    model_hash,
    parse_devices,
    read_graph,
    zoo,
)
from device_placement.envs.claim import Claim
from device_placement.envs.coarsening import CoarseGraph
from device_placement.envs.models import parse_input_shapes, save_model

TWO_CPUS = "CPU,CPU_F32:INFERENCE_PRECISION_HINT=f32;NUM_STREAMS=1"
SIZES = [-(2**63), -2, -1, 0, 1, 2, 3, 63, 64, 65, 2**26, 2**31, 2**40, 2**62, 2**63 - 1, 2**64]
WORDS = ["", " ", "-1", "0", "1,64,1", "9" * 20, "1e9", "nan", "?", "1..3", "\x01", "\xe4", "true"]
HUGE = 10**400
READ_TIMEOUT_S = 120.0


def cases(count: int) -> settings:
    return settings(max_examples=count, derandomize=True, database=None)


def pick(draw: st.DrawFn, items: Sequence[Any]) -> Any:
    return items[draw(st.integers(0, len(items) - 1))]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with stretches of it cut out, cut off, overwritten or put in elsewhere."""
    content = whole
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        stop = start + draw(st.sampled_from([0, 1, 8, 100, len(content)]))
        source = draw(st.integers(0, len(whole)))
        patch = draw(st.binary(max_size=8) | st.just(whole[source : source + 60]))
        content = content[:start] + patch + content[stop:]
    return content


# Devices

GRAMMAR = st.text(string.ascii_uppercase + "019_.:;=, \n", max_size=30)
texts = (
    st.text()
    | GRAMMAR
    | damaged(TWO_CPUS.encode()).map(lambda content: content.decode(errors="replace"))
)


@cases(2000)
@given(texts)
def test_a_device_is_read_and_written_back_or_refused(text: str) -> None:
    try:
        device = Device.parse(text)
    except DeviceError:
        return
    assert Device.parse(str(device)) == device


@cases(1500)
@given(texts | st.lists(texts | st.integers() | st.none(), max_size=3))
def test_devices_are_read_and_written_back_or_refused(devices: Any) -> None:
    try:
        parsed = parse_devices(devices)
    except DeviceError:
        return
    assert parse_devices([str(device) for device in parsed]) == parsed


@pytest.mark.parametrize("text", ["CPU.B", "HETERO.CPU", "CPU_B:\u0436=1", "CPU_B:NUM_STREAMS=x"])
def test_a_device_that_can_be_read_but_not_made_is_refused(text: str) -> None:
    with pytest.raises(DeviceError, match="refuses"):
        make_core([text])


# Placements


@functools.cache
def problem() -> tuple[ov.Model, CoarseGraph]:
    model = load_model("diamond")
    return model, coarsen(read_graph(model, TWO_CPUS))


@functools.cache
def valid_placement() -> str:
    """What `Placement.save` writes."""
    coarse = problem()[1]
    assignment = [group % 2 for group in range(coarse.num_groups)]
    placement = Placement.from_groups(coarse, parse_devices(TWO_CPUS), assignment)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "placement.json"
        dataclasses.replace(placement, claim=Claim("CPU", 1.5, 0.01)).save(path)
        return path.read_text(encoding="utf-8")


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["CPU", "CPU_F32", "CPU:A=1", "AUTO", "deep", HUGE, -0.0, 1, 2])
)
jsons = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def containers(content: Any) -> list[Any]:
    """Every list and object of a JSON value that has something in it."""
    inner = content.values() if isinstance(content, dict) else content
    nested = [one for one in inner if isinstance(one, (dict, list))]
    return [
        *([content] if content else []),
        *(found for one in nested for found in containers(one)),
    ]


@st.composite
def twisted_placements(draw: st.DrawFn) -> str:
    """Valid JSON: fields are dropped, renamed, doubled or of another kind, or nest deeply."""
    content = json.loads(valid_placement())
    for _ in range(draw(st.integers(1, 3))):
        found = containers(content)
        if not found:
            break
        place = pick(draw, found)
        key = pick(draw, list(place) if isinstance(place, dict) else range(len(place)))
        value = place.pop(key)
        action = draw(st.sampled_from(["drop", "rename", "double", "set", "set"]))
        new = [draw(jsons)] if action == "set" else [] if action == "drop" else [value]
        if isinstance(place, list):
            place.extend(new * 2 if action == "double" else new)
        else:
            names = {"rename": [draw(st.text(max_size=5))], "double": [key, f"{key}."]}
            place.update((name, one) for one in new for name in names.get(action, [key]))
    text = json.dumps(content)
    if content and draw(st.integers(0, 3)) == 0:
        text = f"{valid_placement().rstrip().removesuffix('}')}, {text[1:]}"  # keys twice
    depth = draw(st.integers(0, 3000))
    text = text.replace('"deep"', "[" * depth + "]" * depth)
    return text.replace(f"{HUGE}", "9" * draw(st.sampled_from([400, 5000])))


def broken_placements() -> st.SearchStrategy[bytes]:
    deep = st.tuples(st.sampled_from(["[", '{"format":', "[[],"]), st.integers(500, 2000))
    valid = valid_placement().encode()
    texts = deep.map(lambda nest: nest[0] * nest[1]) | jsons.map(json.dumps) | twisted_placements()
    return (
        st.binary() | texts.map(str.encode) | twisted_placements().map(str.encode) | damaged(valid)
    )


@cases(3500)
@given(st.deferred(broken_placements))
def test_a_placement_is_loaded_and_fits_or_is_refused(folder: Path, content: bytes) -> None:
    path = folder / "placement.json"
    path.write_bytes(content)
    try:
        placement = Placement.load(path)
    except PlacementError:
        return
    placement.save(path)
    assert Placement.load(path) == placement
    check_use(placement)


def check_use(placement: Placement) -> None:
    """A placement gives each op of the diamond the device that it names for it, or refuses."""
    model, coarse = problem()
    device = {
        name: placement.devices[number].name
        for name, number in zip(placement.op_names, placement.op_devices, strict=True)
    }
    names = coarse.graph.op_names
    with contextlib.suppress(PlacementError):
        groups = placement.to_groups(coarse)
        chosen = [placement.devices[groups[group]].name for group in coarse.op_group]
        assert dict(zip(names, chosen, strict=True)) == device
    for devices in ("CPU_F32,CPU,CPU_C", "CPU"):
        with contextlib.suppress(PlacementError):
            moved = placement.with_devices(parse_devices(devices))
            chosen = [moved.devices[number].name for number in moved.op_devices]
            assert chosen == list(device.values())
    with contextlib.suppress(PlacementError):
        ops = placement.apply(model).get_ops()
        affinities = {op.get_friendly_name(): op.get_rt_info()["affinity"] for op in ops}
        assert {name: str(one.astype(str)) for name, one in affinities.items()} == device


def test_the_valid_placement_fits_and_lost_or_added_ops_do_not(folder: Path) -> None:
    model, coarse = problem()
    path = folder / "placement.json"
    content = json.loads(valid_placement())
    lost = dict(list(content["ops"].items())[1:])
    for ops in ({**content["ops"], "more": "CPU"}, lost, {}):
        path.write_text(json.dumps({**content, "ops": ops}))
        placement = Placement.load(path)
        for use in (placement.apply, placement.to_groups):
            with pytest.raises(PlacementError, match="differ in the ops"):
                use(model if use == placement.apply else coarse)
    path.write_text(json.dumps({**content, "ops": dict(list(content["ops"].items())[::-1])}))
    turned = Placement.load(path)
    assert turned.to_groups(coarse) == tuple(group % 2 for group in range(coarse.num_groups))
    check_use(turned)


# Models


def serve(connection: Connection) -> None:
    """Load each file whose path comes, and send what came of it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))  # a broken size must not take it all
    for path in iter(connection.recv, None):
        try:
            model_hash(load_model(path))
            connection.send("loaded")
        except ModelError:
            connection.send("refused")
        except BaseException as error:  # for the test to show
            connection.send(f"{type(error).__name__}: {error!r}")


class Loader:
    """A process that loads model files, and another one whenever that has died or hangs."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def load(self, path: Path) -> str:
        """Either 'loaded', 'refused', or what else came of it."""
        self.connection.send(str(path))
        try:
            if self.connection.poll(READ_TIMEOUT_S):
                return str(self.connection.recv())
            outcome = f"no answer in {READ_TIMEOUT_S} s"
        except (EOFError, ConnectionResetError):
            self.process.join()
            outcome = f"died with exit code {self.process.exitcode}"
        self.close()
        self.start()
        return outcome

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    loader.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("robustness")


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


def check_load(loader: Loader, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert loader.load(path) in ("loaded", "refused")


def test_whole_files_load_and_what_is_no_file_does_not(loader: Loader, folder: Path) -> None:
    xml, weights = whole_ir()
    contents = {
        "whole.xml": xml,
        "whole.onnx": whole_onnx().SerializeToString(),
        "whole.pb": whole_tensorflow(),
    }
    (folder / "whole.bin").write_bytes(weights)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        assert loader.load(folder / name) == "loaded"
        empty = folder / f"empty{Path(name).suffix}"
        empty.touch()
        directory = folder / f"directory{empty.suffix}"
        directory.mkdir()
        for broken in (empty, directory, directory / "missing", folder / ("long" * 99)):
            assert loader.load(broken) == "refused"
    for name in (b"\xff.xml", b"\xff.onnx"):
        path = Path(os.fsdecode(bytes(folder) + b"/" + name))
        path.write_bytes(b"no model")
        with pytest.raises(ModelError, match="can't read the model file"):
            load_model(path)


@cases(500)
@given(
    content=st.binary(),
    suffix=st.sampled_from(["xml", "onnx", "pb", "tflite", "pdmodel", "pt", "meta", "foo", "bin"]),
    start=st.sampled_from([b"", b"<net ", b"\x08\x0a", b"\x1c\0\0\0TFL3"]),
)
def test_bytes_are_no_model(
    loader: Loader, folder: Path, content: bytes, suffix: str, start: bytes
) -> None:
    check_load(loader, folder / f"bytes.{suffix}", start + content)


def broken_irs() -> st.SearchStrategy[bytes]:
    return damaged(whole_ir()[0]) | twisted_irs()


@cases(900)
@given(content=st.deferred(broken_irs), kept=st.none() | st.sampled_from([0.0, 0.3, 1.0, 1.0, 1.0]))
def test_a_broken_ir_is_loaded_or_refused(
    loader: Loader, folder: Path, content: bytes, kept: float | None
) -> None:
    """The weights are missing, cut off or whole."""
    path = folder / "broken.xml"
    weights = whole_ir()[1]
    path.with_suffix(".bin").unlink(missing_ok=True)
    if kept is not None:
        path.with_suffix(".bin").write_bytes(weights[: math.ceil(kept * len(weights))])
    check_load(loader, path, content)


@pytest.mark.parametrize("word", [b"diamond", b"left", b"MatMul", b"transpose_a"])
def test_a_name_that_is_no_utf8_is_refused(loader: Loader, folder: Path, word: bytes) -> None:
    xml, weights = whole_ir()
    (folder / "coded.bin").write_bytes(weights)
    check_load(loader, folder / "coded.xml", xml.replace(word, b"\xff"))


@cases(900)
@given((damaged(whole_onnx().SerializeToString()) | twisted_onnx()).filter(has_low_versions))
def test_a_broken_onnx_model_is_loaded_or_refused(
    loader: Loader, folder: Path, content: bytes
) -> None:
    check_load(loader, folder / "broken.onnx", content)


@cases(300)
@given(damaged(whole_tensorflow()))
def test_a_broken_tensorflow_graph_is_loaded_or_refused(
    loader: Loader, folder: Path, content: bytes
) -> None:
    check_load(loader, folder / "broken.pb", content)


def names_nothing(name: str) -> bool:
    return name not in zoo.ZOO and not os.path.isfile(name)


@cases(200)
@given(st.text().filter(names_nothing))
def test_names_of_nothing_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"No model file|not a file"):
        load_model(name)


@pytest.mark.parametrize("name", ["", ".", "a" * 5000, "a/" * 3000, "\0", "\ud800", "x.onnx/y"])
def test_odd_names_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"No model file|not a file"):
        load_model(name)


shape_texts = (
    st.text()
    | st.text("0123456789,;= x-", max_size=30)
    | damaged(b"ids=1,128; mask=1,128").map(lambda content: content.decode(errors="replace"))
    | st.integers(1, 5000).map(lambda digits: f"x={'1' * digits}")
)


@cases(600)
@given(shape_texts)
def test_input_shapes_are_read_and_written_back_or_refused(text: str) -> None:
    try:
        shapes = parse_input_shapes(text)
    except ModelError:
        return
    pairs = [(name, ",".join(map(str, sizes))) for name, sizes in (shapes or {}).items()]
    assert parse_input_shapes(";".join(f"{name}={sizes}" for name, sizes in pairs)) == shapes


sizes = st.sampled_from(SIZES) | st.integers() | st.none() | st.floats() | st.text(max_size=3)
wrong_shapes = st.lists(st.sampled_from(SIZES), min_size=2, max_size=2) | st.lists(sizes) | sizes


@cases(600)
@given(
    wrong_shapes
    | st.lists(wrong_shapes, min_size=1, max_size=2)
    | st.dictionaries(st.sampled_from(["x", "x", "y", "", 0, None]), wrong_shapes, max_size=2)
)
def test_a_model_takes_the_input_shapes_or_refuses_them(shapes: Any) -> None:
    """The product of two sizes may pass what memory or a 64-bit number holds."""
    try:
        model = load_model(problem()[0], input_shapes=shapes)
    except ModelError:
        return
    given_shapes = list(shapes.values() if isinstance(shapes, dict) else shapes or [])
    assert [list(port.get_shape()) for port in model.inputs] == (given_shapes or [[1, 64]])
