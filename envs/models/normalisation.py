"""Normalisation: the common form that every model has before it is placed.

Inputs have static shapes, constants are folded, each Constant has one consumer, and every op is
named ``op<topological index>_<type>``. Converters and repeated builds name ops differently each
time; these names are stable, so a placement can be joined to a model by name across processes.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13
from openvino.passes import ConstantFolding, Manager

from device_placement.envs.errors import ModelError, unknown

Shapes = Mapping[str, Sequence[int]] | Sequence[Sequence[int]]

_MARK = ["device_placement", "normalised"]


def normalise(model: ov.Model, input_shapes: Shapes | None = None) -> ov.Model:
    """Return a normalised clone of a model; one that is normalised already is only cloned.

    Raises:
        ModelError: when shapes of inputs stay dynamic, `input_shapes` does not fit the model, or
            OpenVINO can't normalise it.
    """
    try:
        return _normalise(model.clone(), input_shapes)
    except (RuntimeError, UnicodeError) as error:  # such as a name that is not UTF-8
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(
            f"OpenVINO can't normalise the model: {reason} Check that its file is complete, and "
            "that its tensors fit into memory at these shapes."
        ) from error


def _normalise(model: ov.Model, input_shapes: Shapes | None) -> ov.Model:
    if _is_normalised(model) and not input_shapes:
        return model
    name = model.get_friendly_name()
    if input_shapes:
        set_input_shapes(model, input_shapes)
    _fold_constants(model)
    _check_inputs(model)
    _guard_attention_masks(model)
    _unshare_constants(model)
    _rename_ops(model)
    model.set_friendly_name(name)
    model.set_rt_info("1", _MARK)
    return model


def original_name(op: ov.Node) -> str:
    """Return the name that an op had before normalisation, for display."""
    info = op.get_rt_info()
    return str(
        info["original_name"].astype(str) if "original_name" in info else op.get_friendly_name()
    )


def set_input_shapes(model: ov.Model, shapes: Shapes) -> None:
    """Set static input shapes of a model, in place.

    Raises:
        ModelError: when they do not fit the inputs.
    """
    ports = model.inputs
    if isinstance(shapes, Mapping):
        by_name = {name: port for port in ports for name in (*port.get_names(), input_name(port))}
        for name in shapes:
            if name not in by_name:
                raise ModelError(unknown("model input", name, by_name))
        chosen = {by_name[name]: shape for name, shape in shapes.items()}
    else:
        if not isinstance(shapes, Sequence):
            raise ModelError(f"Got {shapes!r} for {_describe_inputs(model)}; give their shapes.")
        if len(shapes) != len(ports):
            raise ModelError(
                f"Got {len(shapes)} input shapes for {_describe_inputs(model)}; give one each."
            )
        chosen = dict(zip(ports, shapes, strict=True))
    try:
        model.reshape({port: _static_shape(shape) for port, shape in chosen.items()})
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"The shapes {shapes} do not fit {_describe_inputs(model)}: {error}"
        ) from error


def _static_shape(sizes: Sequence[int]) -> ov.PartialShape:
    numbers = [operator.index(size) for size in sizes]
    if any(number < 0 for number in numbers):
        raise ValueError("a size is 0 or more.")
    return ov.PartialShape(numbers)


def _is_normalised(model: ov.Model) -> bool:
    """Return whether a model has the mark and still the names; saving may have changed its ops."""
    ops = model.get_ops()
    suffixes = {op.get_friendly_name(): f"_{op.get_type_name()}" for op in ops}
    expected = {f"op{index}" for index in range(len(ops))}
    stems = {name.removesuffix(suffix) for name, suffix in suffixes.items()}
    return bool(model.has_rt_info(_MARK)) and stems == expected


def input_name(port: Any) -> str:
    """Return the name of a model's input by which its shape and values are given."""
    # Numbers are what converters call a value without a name.
    names = sorted(port.get_names(), key=lambda name: (name.isdecimal(), name))
    return str(names[0] if names else port.get_node().get_friendly_name())


def _describe_inputs(model: ov.Model) -> str:
    inputs = [f"{input_name(port)} {port.get_partial_shape()}" for port in model.inputs]
    return f"the inputs of {model.get_friendly_name()!r}: {', '.join(inputs)}"


def _check_inputs(model: ov.Model) -> None:
    shapes = {input_name(port): port.get_partial_shape() for port in model.inputs}
    dynamic = {name: shape for name, shape in shapes.items() if shape.is_dynamic}
    if dynamic:
        given = ", ".join(f'"{name}": {_example(shape)}' for name, shape in dynamic.items())
        raise ModelError(
            f"Dynamic shapes in {_describe_inputs(model)}. A placement is timed for one "
            f"shape: give it, as in input_shapes={{{given}}}."
        )


def _example(shape: ov.PartialShape) -> list[int]:
    """Return a static shape that fits a dynamic one."""
    if shape.rank.is_dynamic:
        return [1, 3, 224, 224]
    return [max(size.get_min_length(), 1) for size in shape]


def _fold_constants(model: ov.Model) -> None:
    """Compute everything that depends only on Constants and static shapes.

    Converters keep OpenVINO's pass away from some ShapeOf ops. Left in the model they cost
    nothing, but HETERO fails to run parts that it cuts between a shape and its use.
    """
    for op in model.get_ordered_ops():
        if op.get_type_name() == "ShapeOf" and op.get_input_partial_shape(0).is_static:
            shape = np.array(list(op.get_input_shape(0)), dtype=op.get_element_type().to_dtype())
            for target in op.output(0).get_target_inputs():
                target.replace_source_output(opset13.constant(shape).output(0))
    held = _hold_quantised(model)
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(model)
    for target, constant in held:
        target.replace_source_output(constant)
    model.validate_nodes_and_infer_types()


def _unfoldable(shape: Sequence[int]) -> Any:
    """Return an output of a shape that no pass can compute."""
    size = opset13.constant(np.array(shape, np.int64))
    ends = (opset13.constant(np.int32(end)) for end in (0, 1))
    return opset13.random_uniform(size, *ends, "i32").output(0)


_QUANTISED = ("i8", "u8", "i4", "u4", "u6", "u3", "u2", "nf4", "f4e2m1", "f8e4m3", "f8e5m2")
"""Types that weights are quantised to."""


def _hold_quantised(model: ov.Model) -> list[tuple[Any, Any]]:
    """Replace quantised weights, here and in bodies, by outputs that can't be folded.

    Plugins compute in low precision where they find Constant, Convert, Subtract and Multiply;
    folded into real numbers, weights are 4 to 8 times as large and run in f32.

    Returns:
        The inputs that read weights, and the outputs to put back there.
    """
    held = []
    for op in model.get_ordered_ops():
        for body in bodies_of(op):
            held += _hold_quantised(body)
        if op.get_type_name() == "Constant" and op.get_element_type().to_string() in _QUANTISED:
            for target in _targets(op):
                reader = target.get_node()
                if reader.get_type_name() == "Convert" and reader.get_element_type().is_real():
                    target.replace_source_output(_unfoldable(list(op.get_output_shape(0))))
                    held.append((target, op.output(0)))
    return held


def _guard_attention_masks(model: ov.Model) -> None:
    """Write attention masks so that OpenVINO's CPU plugin computes them right in bf16.

    Seen in OpenVINO 2026.4.1 on a CPU with AVX512_BF16: a fused attention whose mask is
    broadcast over the queries, is the second operand of its sum and is an input of the
    compiled model has relative errors near 1. HETERO makes the mask such an input wherever
    it cuts before it. With the mask as the first operand the result is right. As
    ``ScaledDotProductAttention`` has no sum whose operands could be swapped, a maximum with minus
    infinity is put between input and attention; it changes no value and is fused.
    """
    for op in model.get_ordered_ops():
        if op.get_type_name() == "Softmax":
            _put_mask_first(op.input_value(0).get_node())
        elif op.get_type_name() == "ScaledDotProductAttention" and len(op.inputs()) > 3:
            mask = op.input_value(3)
            if mask.get_element_type() == ov.Type.f32:
                lowest = opset13.constant(np.array(-np.inf, dtype=np.float32))
                op.input(3).replace_source_output(opset13.maximum(mask, lowest).output(0))


def _put_mask_first(add: Any) -> None:
    if add.get_type_name() != "Add":
        return
    scores, mask = add.input_values()
    if _is_score(scores.get_node()) and not _is_score(mask.get_node()):
        add.input(0).replace_source_output(mask)
        add.input(1).replace_source_output(scores)


def _is_score(op: Any) -> bool:
    """Return whether an op is a matrix product, scaled or not."""
    if op.get_type_name() in ("Multiply", "Divide"):
        return any(value.get_node().get_type_name() == "MatMul" for value in op.input_values())
    return bool(op.get_type_name() == "MatMul")


def _unshare_constants(model: ov.Model) -> None:
    """Copy each Constant, or what is computed from Constants, for each of its consumers.

    It then moves with the consumer. A chain that turns quantised weights into real numbers is
    copied as a whole, as plugins recognise it next to the op that reads it.
    """
    constant: set[int] = set()
    taken: set[int] = set()
    for op in model.get_ordered_ops():
        sources = [value.get_node().get_instance_id() for value in op.input_values()]
        if op.get_type_name() in ("Constant", *_CHAIN) and constant.issuperset(sources):
            constant.add(op.get_instance_id())
    for op in model.get_ordered_ops():
        if op.get_instance_id() not in constant:
            continue
        consumers: dict[int, list[Any]] = {}
        for target in _targets(op):
            if (number := target.get_node().get_instance_id()) not in constant:
                consumers.setdefault(number, []).append(target)
        chain = _ancestors(op)
        for inputs in consumers.values():
            if taken.isdisjoint(chain):
                taken |= chain
                continue
            copy = _copy(op)
            for target in inputs:
                target.replace_source_output(copy)


# Ops between quantised weights and the op that reads them.
_CHAIN = ("Convert", "Subtract", "Multiply", "Reshape", "Transpose", "FakeQuantize", "FakeConvert")


def _ancestors(op: ov.Node) -> set[int]:
    """Return the instances of an op and of all that it is computed from."""
    found, left = {op.get_instance_id()}, [op]
    while left:
        for value in left.pop().input_values():
            source = value.get_node()
            if source.get_instance_id() not in found:
                found.add(source.get_instance_id())
                left.append(source)
    return found


def _copy(op: ov.Node) -> Any:
    """Return the output of a copy of an op and of all that it is computed from."""
    copy = ov.Model([opset13.result(op.output(0))], []).clone()
    return copy.get_results()[0].input_value(0)


def bodies_of(op: Any) -> list[ov.Model]:
    """Return the sub-models of a control-flow op; none of another one."""
    if op.get_type_name() == "If":
        return [op.get_then_body(), op.get_else_body()]
    return [op.get_function()] if hasattr(op, "get_function") else []


def _targets(op: ov.Node) -> list[Any]:
    """Return the inputs that an op's first output feeds, in an order that repeats."""
    targets = op.output(0).get_target_inputs()
    return sorted(targets, key=lambda port: (port.get_node().get_instance_id(), port.get_index()))


def _rename_ops(model: ov.Model) -> None:
    for index, op in enumerate(model.get_ordered_ops()):
        name = op.get_friendly_name()
        if op.get_type_name() == "Parameter" and not op.output(0).get_names():
            op.output(0).get_tensor().add_names({name})
        op.get_rt_info()["original_name"] = name
        op.set_friendly_name(f"op{index}_{op.get_type_name()}")
