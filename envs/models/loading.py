"""Load a model from a name, file, OpenVINO model or torch module; save it and hash it."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from device_placement.envs.devices import add_extensions, missing_extension
from device_placement.envs.errors import ModelError, unknown
from device_placement.envs.models import zoo
from device_placement.envs.models.normalisation import (
    Shapes,
    bodies_of,
    normalise,
    set_input_shapes,
)
from device_placement.envs.models.side_by_side import JOINT, combine_models, distinct_names


def load_model(
    source: Any, *, example_input: Any = None, input_shapes: Shapes | None = None
) -> ov.Model:
    """Load a model, normalise it, and return it.

    Args:
        source: a zoo name (``"resnet50"``), the path of any file that OpenVINO reads
            (``.xml``, ``.onnx``, ``.pb``, ``.tflite``, ...), an ``openvino.Model``
            (which is not changed), or a ``torch.nn.Module``. Several names and paths, joined by
            ``+`` as in ``"resnet50+inception_v3"``, become one model that holds them side by side;
            see `combine_models`.
        example_input: for a torch module, what its ``forward`` takes: a tensor, a tuple of
            arguments or a dict of them by name. Arguments may be nested tuples, lists and dicts;
            each tensor in them becomes an input of its shape, and is also named by its place, such
            as ``past_0_1``. None and plain numbers become part of the model.
        input_shapes: static shapes in place of dynamic ones, by input name
            (``{"input_ids": [1, 128]}``) or in the order of the inputs. Inputs of models side by
            side begin with the model's name, as in ``bert_base/input_ids``.

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
    parts = model_parts(source)
    if len(parts) > 1:
        loaded = [_load_named(part) for part in parts]
        names = distinct_names([model.get_friendly_name() for model in loaded])
        return normalise(combine_models(dict(zip(names, loaded, strict=True))), input_shapes)
    return normalise(_load_named(str(source)), input_shapes)


def model_parts(source: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the models that a name or path means, which are to run side by side.

    An existing path that contains a ``+`` is one model.

    >>> model_parts("resnet50+inception_v3")
    ('resnet50', 'inception_v3')
    """
    text = str(source)
    if JOINT not in text or os.path.exists(text):
        return (text,)
    return tuple(part.strip() for part in text.split(JOINT) if part.strip()) or (text,)


def _load_named(source: str) -> ov.Model:
    return zoo.build(source) if source in zoo.ZOO else _read_file(Path(source))


def source_names(source: str | os.PathLike[str]) -> frozenset[str]:
    """Return the friendly names of a model's ops before it is normalised; none of several models.

    Raises:
        ModelError: as `load_model`.

    >>> "left/weight" in source_names("diamond")
    True
    """
    parts = model_parts(source)
    if len(parts) > 1:
        return frozenset()
    return frozenset(op.get_friendly_name() for op in _load_named(parts[0]).get_ops())


def model_file(source: Any) -> str:
    """Return the absolute path of the file that `load_model` reads; empty if it reads none.

    >>> model_file("resnet50")
    ''
    """
    is_path = isinstance(source, (str, os.PathLike)) and str(source) not in zoo.ZOO
    return os.path.abspath(source) if is_path and len(model_parts(source)) == 1 else ""


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
    leaves = _leaves(module, *_arguments(module, example_input))
    try:
        model = _trace(module, example_input, leaves)
    except Exception as error:
        raise ModelError(
            f"OpenVINO can't convert the torch module {type(module).__name__}: {error}"
        ) from error
    model.set_friendly_name(type(module).__name__)
    if len(leaves) == len(model.inputs):
        outputs = [output for op in model.get_ops() for output in op.outputs()]
        taken = {name for output in outputs for name in output.get_names()}
        for port, name in zip(model.inputs, leaves, strict=True):
            port.get_tensor().add_names({name} - taken)
        if model.is_dynamic():
            set_input_shapes(model, [tuple(value.shape) for value in leaves.values()])
    return model


def _trace(module: Any, example_input: Any, leaves: Mapping[str, Any]) -> ov.Model:
    """Convert a torch module; where OpenVINO can't, with only the tensors as its arguments."""
    copied = dict(example_input) if isinstance(example_input, Mapping) else example_input
    positional, named = _arguments(module, example_input)
    flat = _flattened(module, positional, named, list(leaves))
    ways = [(module, copied), (flat, tuple(leaves.values()))]  # OpenVINO changes a dict
    if _has_constants([positional, named]):  # with these it mixes up names, or can't trace
        ways.reverse()
    with warnings.catch_warnings():  # OpenVINO's tracing of choice, deprecated by torch
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        try:
            return ov.convert_model(ways[0][0], example_input=ways[0][1])
        except Exception as error:
            try:
                return ov.convert_model(ways[1][0], example_input=ways[1][1])
            except Exception:
                raise error from None


def _has_constants(value: Any) -> bool:
    """Return whether nested arguments hold something else than tensors."""
    if isinstance(value, Mapping):
        return any(map(_has_constants, value.values()))
    if isinstance(value, (tuple, list)):
        return any(map(_has_constants, value))
    return not hasattr(value, "shape")


Arguments = tuple[Sequence[Any], Mapping[str, Any]]  # by position and by name


def _arguments(module: Any, example_input: Any) -> Arguments:
    """Return the arguments of a module's ``forward``; those by name in its own order."""
    if isinstance(example_input, Mapping):
        order = [name for name in _parameter_names(module) if name in example_input]
        return (), {name: example_input[name] for name in dict.fromkeys([*order, *example_input])}
    return (example_input if isinstance(example_input, (tuple, list)) else [example_input]), {}


def _parameter_names(module: Any) -> list[str]:
    try:
        return list(signature(module.forward).parameters)
    except (TypeError, ValueError):  # of a compiled module
        return []


def _leaves(module: Any, positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors in a module's arguments, in order, by name of the place."""
    found: dict[str, Any] = {}

    def add(value: Any, place: str) -> None:
        if hasattr(value, "shape"):
            name = re.sub(r"\W", "_", place)
            found[name if name not in found else f"{name}_{len(found)}"] = value
        elif isinstance(value, Mapping):
            for key, item in value.items():
                add(item, f"{place}_{key}")
        elif isinstance(value, (tuple, list)):
            for number, item in enumerate(value):
                add(item, f"{place}_{number}")

    names = _parameter_names(module)
    for number, value in enumerate(positional):
        add(value, names[number] if number < len(names) else f"input_{number}")
    for name, value in named.items():
        add(value, name)
    return found


def _flattened(
    module: Any, positional: Sequence[Any], named: Mapping[str, Any], names: Sequence[str]
) -> Any:
    """Return a module that takes the tensors in another one's arguments, by the given names."""
    torch: Any = sys.modules["torch"]  # loaded by whoever made the module

    class Flattened(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: Any) -> Any:
            left = iter(tensors)
            return self.module(*_refilled(positional, left), **_refilled(named, left))

    parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *names)]
    Flattened.forward.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return Flattened()


def _refilled(value: Any, tensors: Iterator[Any]) -> Any:
    """Return nested arguments with other tensors, in the order of `_leaves`."""
    if hasattr(value, "shape"):
        return next(tensors)
    if isinstance(value, Mapping):
        return {key: _refilled(item, tensors) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [_refilled(item, tensors) for item in value]
        if hasattr(value, "_fields"):  # a named tuple
            return type(value)(*items)
        return type(value)(items)
    return value


def _read_file(path: Path) -> ov.Model:
    if not os.path.exists(path):  # unlike Path.exists(), False for a name that is too long
        hint = unknown("model", str(path), zoo.ZOO)
        raise ModelError(f"No model file {str(path)!r}, and no bundled model of that name. {hint}")
    if not path.is_file():
        raise ModelError(f"{str(path)!r} is not a file; give the .xml or .onnx file itself.")
    try:
        model = add_extensions(ov.Core()).read_model(path)
    except (RuntimeError, UnicodeError) as error:  # a message may quote bytes that are not UTF-8
        hint = missing_extension(error) or (
            "Check that it is complete, in a format that OpenVINO reads, and that an .xml has its "
            ".bin next to it."
        )
        raise ModelError(
            f"OpenVINO can't read the model file {str(path)!r}: {_reasons(error)}. {hint}"
        ) from error
    if path.suffix != ".xml":  # what reads other formats names all models alike
        model.set_friendly_name(path.stem)
    return model


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
        wiring.append([("special", [*op.get_special_body_ports()])])
    return wiring


def _fields(record: Any) -> list[tuple[str, int]]:
    """Return the numbers in a record of OpenVINO, by name."""
    named = {name: getattr(record, name) for name in dir(record) if not name.startswith("_")}
    return sorted((name, value) for name, value in named.items() if isinstance(value, int))
