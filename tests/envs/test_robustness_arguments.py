"""Devices, model names and input shapes that are wrong: only documented errors come out."""

from __future__ import annotations

import os
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broken import SIZES, TWO_CPUS, cases, damaged, problem
from device_placement.envs import (
    Device,
    DeviceError,
    ModelError,
    load_model,
    make_core,
    parse_devices,
)
from device_placement.envs.models import zoo
from device_placement.envs.models.loading import parse_input_shapes

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
