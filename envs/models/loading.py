"""Load a model from a name, file, OpenVINO model or torch module; save it and hash it."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from device_placement.envs.errors import ModelError, unknown
from device_placement.envs.models import zoo
from device_placement.envs.models.normalisation import (
    Shapes,
    bodies_of,
    normalise,
    set_input_shapes,
)


def load_model(
    source: Any, *, example_input: Any = None, input_shapes: Shapes | None = None
) -> ov.Model:
    """Load a model, normalise it, and return it.

    Args:
        source: a zoo name (``"resnet50"``), the path of any file that OpenVINO reads
            (``.xml``, ``.onnx``, ``.pb``, ``.tflite``, ...), an ``openvino.Model``
            (which is not changed), or a ``torch.nn.Module``.
        example_input: for a torch module, what its ``forward`` takes: a tensor, a tuple
            of tensors or a dict of them. Its shapes become the model's.
        input_shapes: static shapes in place of dynamic ones, by input name
            (``{"input_ids": [1, 128]}``) or in the order of the inputs.

    Returns:
        A normalised ``openvino.Model``.

    Raises:
        ModelError: when the source is unknown, missing or unreadable, or when shapes of its
            inputs stay dynamic. Shapes that depend on the data are allowed.

    >>> load_model("diamond").get_friendly_name()
    'diamond'
    """
    if isinstance(source, ov.Model):
        return normalise(source, input_shapes)
    if _is_torch_module(source):
        return normalise(_convert_torch(source, example_input), input_shapes)
    if not isinstance(source, (str, os.PathLike)):
        raise ModelError(
            f"Can't load a model from {type(source).__name__}; give a zoo name, the path of a "
            "model file, an openvino.Model or a torch.nn.Module."
        )
    if str(source) in zoo.ZOO:
        return normalise(zoo.build(str(source)), input_shapes)
    return normalise(_read_file(Path(source)), input_shapes)


def model_file(source: Any) -> str:
    """Return the absolute path of the file that `load_model` reads; empty if it reads none.

    >>> model_file("resnet50")
    ''
    """
    is_path = isinstance(source, (str, os.PathLike)) and str(source) not in zoo.ZOO
    return os.path.abspath(source) if is_path else ""


def save_model(model: ov.Model, path: str | os.PathLike[str]) -> None:
    """Write a model as OpenVINO's ``.xml`` and ``.bin``, with unchanged weights.

    Raises:
        ModelError: when the path does not end in ``.xml`` or can't be written.
    """
    try:
        ov.serialize(model, Path(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(
            f"Can't write the model to {str(path)!r}: {reason} Give a path that ends in .xml, in "
            "a folder that exists."
        ) from error


def model_hash(model: ov.Model) -> str:
    """Return a fingerprint of a normalised model: structure, attributes, shapes and weights.

    Names given by converters do not count, so the same model loaded twice, or in
    another process, has the same hash.

    Returns:
        32 hexadecimal digits (BLAKE2b, 128 bits).
    """
    digest = hashlib.blake2b(digest_size=16)
    _hash_ops(model, digest)
    return digest.hexdigest()


def parse_input_shapes(text: str) -> dict[str, list[int]] | None:
    """Return the shapes in ``name=1,3,224,224;name=1,128``; None when there are none.

    Raises:
        ModelError: when the text is not of that form.

    >>> parse_input_shapes("ids=1,128; mask=1,128")
    {'ids': [1, 128], 'mask': [1, 128]}
    """
    shapes: dict[str, list[int]] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, _, sizes = part.rpartition("=")
        numbers = [size.strip() for size in sizes.split(",")]
        if not name.strip() or name.strip() in shapes or not all(map(_is_size, numbers)):
            raise ModelError(
                f"Can't read the input shape {part!r}; write each input once, with sizes "
                "above 0, as in input_ids=1,128;attention_mask=1,128."
            )
        shapes[name.strip()] = [int(number) for number in numbers]
    return shapes or None


def _is_size(text: str) -> bool:
    return text.isdecimal() and len(text) < 19 and int(text) > 0  # one that an int64 holds


def _is_torch_module(source: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module)


def _convert_torch(module: Any, example_input: Any) -> ov.Model:
    if example_input is None:
        raise ModelError(
            f"Got the torch module {type(module).__name__} without example_input; give the "
            "tensors that its forward() takes."
        )
    try:
        with warnings.catch_warnings():  # OpenVINO's tracing of choice, deprecated by torch
            warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
            model = ov.convert_model(module, example_input=example_input)
    except Exception as error:
        raise ModelError(
            f"OpenVINO can't convert the torch module {type(module).__name__}: {error}"
        ) from error
    model.set_friendly_name(type(module).__name__)
    shapes = _example_shapes(example_input)
    if model.is_dynamic() and len(shapes) == len(model.inputs):
        set_input_shapes(model, shapes)
    return model


def _example_shapes(example_input: Any) -> Any:
    """Return the shapes of an example input, by name if it is a dict."""
    if isinstance(example_input, Mapping):
        return {name: tuple(value.shape) for name, value in example_input.items()}
    values = example_input if isinstance(example_input, (tuple, list)) else [example_input]
    return [tuple(value.shape) for value in values if hasattr(value, "shape")]


def _read_file(path: Path) -> ov.Model:
    if not os.path.exists(path):  # unlike Path.exists(), False for a name that is too long
        hint = unknown("model", str(path), zoo.ZOO)
        raise ModelError(f"No model file {str(path)!r}, and no bundled model of that name. {hint}")
    if not path.is_file():
        raise ModelError(f"{str(path)!r} is not a file; give the .xml or .onnx file itself.")
    try:
        return ov.Core().read_model(path)
    except (RuntimeError, UnicodeError) as error:  # a message may quote bytes that are not UTF-8
        raise ModelError(
            f"OpenVINO can't read the model file {str(path)!r}: {_reasons(error)}. Check that it "
            "is complete, in a format that OpenVINO reads, and that an .xml has its .bin next to "
            "it."
        ) from error


# Lines of OpenVINO's reports that name places in its source, or repeat other lines.
_NOISE = re.compile(
    r"Exception from |Check .* failed at |While validating |FrontEnd API failed |Summary:|"
    r"Model wasn't fully converted|-- Conversion is failed for|\[.*\.cpp"
)


def _reasons(error: Exception) -> str:
    r"""Return what OpenVINO says is wrong, for each op that it can't convert.

    >>> _reasons(RuntimeError("-- Conv-1 with a message:\nSummary:\nIts rank is unknown"))
    'Conv-1: Its rank is unknown'
    """
    lines = [line.strip() for line in str(error).splitlines()]
    kept = dict.fromkeys(line for line in lines if line and not _NOISE.match(line))
    text = " ".join(kept) or str(error).strip()
    return re.sub(r"-- (\S+) with a message:", r"\1:", text).rstrip(".")


def _hash_ops(model: ov.Model, digest: Any) -> None:
    ops = model.get_ordered_ops()
    number = {op.get_instance_id(): index for index, op in enumerate(ops)}
    for op in ops:
        inputs = [
            (number[value.get_node().get_instance_id()], value.get_index())
            for value in op.input_values()
        ]
        outputs = [
            (str(out.get_element_type()), str(out.get_partial_shape())) for out in op.outputs()
        ]
        attributes = sorted((key, str(value)) for key, value in op.get_attributes().items())
        digest.update(repr((op.get_type_name(), attributes, inputs, outputs)).encode())
        if op.get_type_name() == "Constant":
            digest.update(_constant_bytes(op))
        bodies = bodies_of(op)
        if bodies:
            digest.update(repr(_wiring(op, len(bodies))).encode())
        for body in bodies:
            _hash_ops(body, digest)
    order = [number[op.get_instance_id()] for op in (*model.get_parameters(), *model.get_results())]
    if order != sorted(order):  # the usual order adds nothing
        digest.update(repr(order).encode())


def _constant_bytes(op: Any) -> Any:
    if op.get_element_type() == ov.Type.string:
        return repr(op.get_value_strings()).encode()
    return np.ascontiguousarray(op.data).reshape(-1).view(np.uint8)


def _wiring(op: Any, num_bodies: int) -> list[Any]:
    """Return how inputs and outputs of a control-flow op are joined to those of its bodies."""
    if op.get_type_name() == "If":
        described = [
            one
            for body in range(num_bodies)
            for one in (op.get_input_descriptions(body), op.get_output_descriptions(body))
        ]
    else:
        described = [op.get_input_descriptions(), op.get_output_descriptions()]
    wiring = [[(type(one).__name__, _fields(one)) for one in several] for several in described]
    if op.get_type_name() == "Loop":
        wiring.append([("special", _fields(op.get_special_body_ports()))])
    return wiring


def _fields(record: Any) -> list[tuple[str, int]]:
    """Return the numbers in a record of OpenVINO, by name."""
    named = {name: getattr(record, name) for name in dir(record) if not name.startswith("_")}
    return sorted((name, value) for name, value in named.items() if isinstance(value, int))
