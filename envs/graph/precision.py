"""Precision of a model: the types of its weights, and of the layers that a device runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import openvino as ov

from device_placement.envs.models.normalisation import bodies_of

NOT_COMPUTED = ("Input", "Output", "Const", "Result", "Parameter", "Constant")


def weight_types(model: ov.Model) -> dict[str, int]:
    """Return the bytes of a model's Constants by element type, the type with the most first.

    Constants in the bodies of loops and branches count, too. Types have OpenVINO's short names,
    such as ``f32`` and ``u4``.
    """
    sizes: Counter[str] = Counter()
    _count_constants(model, sizes)
    return dict(sizes.most_common())


def _count_constants(model: ov.Model, sizes: Counter[str]) -> None:
    for op in model.get_ops():
        if op.get_type_name() == "Constant":
            sizes[op.get_element_type().to_string()] += op.get_byte_size()
        for body in bodies_of(op):
            _count_constants(body, sizes)


def layer_types_on(core: ov.Core, model: ov.Model, device: str) -> dict[str, Mapping[str, int]]:
    """Return the `layer_types` of a model compiled for a device.

    Empty if the device can't run all of the model, or does not say what it runs.
    """
    try:
        return layer_types(core.compile_model(model, device))
    except RuntimeError:
        return {}


def layer_types(compiled: ov.CompiledModel) -> dict[str, Mapping[str, int]]:
    """Return how many layers of each type a device runs in each precision.

    The precision is that of the layer's kernel, as in ``{"i8": {"Convolution": 4}}``. Both are in
    the order of their number, the largest first. A layer with a body, such as a loop, counts once.

    Raises:
        RuntimeError: when the device does not say what it runs.
    """
    found: dict[str, Counter[str]] = {}
    for layer in compiled.get_runtime_model().get_ops():
        kind, precision = _info(layer, "layerType"), _info(layer, "runtimePrecision")
        if kind not in NOT_COMPUTED:
            found.setdefault(precision, Counter())[kind] += 1
    several = sorted(found.items(), key=lambda item: -item[1].total())
    return {precision: dict(kinds.most_common()) for precision, kinds in several}


def _info(layer: Any, key: str) -> str:
    info = layer.get_rt_info()
    return str(info[key].astype(str)) if key in info else "unknown"
