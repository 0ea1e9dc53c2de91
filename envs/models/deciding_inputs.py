"""Deciding inputs: those whose values determine which ops a model runs, or on what sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import openvino as ov

from device_placement.envs.models.index_ranges import descriptions
from device_placement.envs.models.normalisation import bodies_of, input_name

Mask = int  # bit i: depends on the model's input i

RANDOM_OPS = ("RandomUniform", "Multinomial")

# Ops whose first input is data; only the others decide the size of the output.
_DATA_FIRST = (
    *("Reshape", "Slice", "StridedSlice", "Broadcast", "Tile", "TopK", "Pad", "Interpolate"),
    *("VariadicSplit", "OneHot", "SliceScatter", "Squeeze", "Unsqueeze", "ReduceSum"),
)


def deciding_inputs(model: ov.Model) -> dict[str, tuple[str, ...]]:
    """Return the deciding inputs of a model by name, each with the types of the ops it decides.

    An input decides when the condition of an If, the number of a Loop's iterations, or the shape
    of an op's output depends on its values.
    """
    names = [input_name(port) for port in model.inputs]
    found: dict[str, dict[str, None]] = {}
    _, decided = _trace(model, [1 << number for number in range(len(names))])
    for mask, kind in decided:
        for number, name in enumerate(names):
            if mask >> number & 1:
                found.setdefault(name, {})[kind] = None
    return {name: tuple(found[name]) for name in names if name in found}


def is_random(model: ov.Model) -> bool:
    """Return whether a model, or the body of an op of it, draws random numbers."""
    return any(
        op.get_type_name() in RANDOM_OPS or any(is_random(body) for body in bodies_of(op))
        for op in model.get_ops()
    )


def _trace(
    model: ov.Model, parameters: Sequence[Mask]
) -> tuple[list[Mask], list[tuple[Mask, str]]]:
    """Return on which inputs each Result depends, and the masks of decisions with op types."""
    known: dict[int, list[Mask]] = {
        parameter.get_instance_id(): [mask]
        for parameter, mask in zip(model.get_parameters(), parameters, strict=True)
    }
    decided: list[tuple[Mask, str]] = []
    for op in model.get_ordered_ops():
        if op.get_type_name() == "Parameter":
            continue
        masks = [
            known[value.get_node().get_instance_id()][value.get_index()]
            for value in op.input_values()
        ]
        together = _union(masks)
        outputs = [together] * op.get_output_size()
        bodies = bodies_of(op)
        if bodies:
            outputs, inner = _trace_bodies(op, bodies, masks)
            decided += inner
        elif op.get_type_name() == "ShapeOf":
            outputs = [0]  # where values decide a shape, they did so before
        elif _sizes_depend_on_values(op):
            kind = op.get_type_name()
            decided.append((_union(masks[1:]) if kind in _DATA_FIRST else together, kind))
        known[op.get_instance_id()] = outputs
    results = [
        known[value.get_node().get_instance_id()][value.get_index()]
        for value in (result.input_value(0) for result in model.get_results())
    ]
    return results, [(mask, kind) for mask, kind in decided if mask]


def _union(masks: Sequence[Mask]) -> Mask:
    together = 0
    for mask in masks:
        together |= mask
    return together


def _sizes_depend_on_values(op: Any) -> bool:
    return all(value.get_partial_shape().is_static for value in op.input_values()) and any(
        output.get_partial_shape().is_dynamic for output in op.outputs()
    )


def _trace_bodies(
    op: Any, bodies: Sequence[ov.Model], masks: Sequence[Mask]
) -> tuple[list[Mask], list[tuple[Mask, str]]]:
    """Return the masks of a control-flow op's outputs, and of what it and its bodies decide."""
    kind = op.get_type_name()
    decided = [(mask, kind) for mask in masks[: {"If": 1, "Loop": 2}.get(kind, 0)]]
    outputs = [_union([mask for mask, _ in decided])] * op.get_output_size()
    for number, body in enumerate(bodies):
        results, inner = _trace_body(op, number, body, masks)
        decided += inner
        if kind == "Loop":
            _, condition = op.get_special_body_ports()
            decided.append((results[condition], kind))
        for one in descriptions(op, number)[1]:
            outputs[one.output_index] |= results[one.body_value_index]
    return outputs, decided


def _trace_body(
    op: Any, number: int, body: ov.Model, masks: Sequence[Mask]
) -> tuple[list[Mask], list[tuple[Mask, str]]]:
    """Return the masks of a body's results and decisions, after all iterations."""
    inputs, _ = descriptions(op, number)
    parameters = [0] * len(body.get_parameters())
    for one in inputs:
        parameters[one.body_parameter_index] |= masks[one.input_index]
    while True:
        results, decided = _trace(body, parameters)
        before = list(parameters)
        for one in inputs:
            if type(one).__name__ == "MergedInputDescription":
                parameters[one.body_parameter_index] |= results[one.body_value_index]
        if parameters == before:
            return results, decided
