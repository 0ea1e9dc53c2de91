"""Inputs of measured models: read those of the user, or invent legal ones.

In an ``.npz`` file a single sample has its arrays under the names of the inputs, NAME; several
samples have theirs under ``0/NAME``, ``1/NAME`` and so on. `save_inputs` writes them.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13

from device_placement.envs.errors import InputError, InventedInputsWarning, unknown
from device_placement.envs.files import replaced
from device_placement.envs.models.deciding_inputs import deciding_inputs
from device_placement.envs.models.index_ranges import index_ranges
from device_placement.envs.models.normalisation import input_name
from device_placement.envs.untrusted import check_regular

Inputs = str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""An ``.npz`` file, an array for each input by name, or several such samples."""

Sample = tuple[NDArray[Any], ...]  # one array per input of the model, in its order

_SUBSTITUTES: Mapping[str, type] = {
    **dict.fromkeys(("bf16", "f8e4m3", "f8e5m2"), np.float32),
    "i4": np.int8,
    "u4": np.uint8,
}
"""Types that NumPy lacks, with those that arrays for them have; OpenVINO converts them."""
_LIMITS = {"i4": (-8, 7), "u4": (0, 15)}


@dataclass(frozen=True)
class Samples:
    """Values of all inputs of a model, one or several times, checked."""

    samples: tuple[Sample, ...]  # (num_samples, num_inputs) arrays
    given: bool = True  # by the user; False: invented
    usual: bool = False  # invented without regard to the model, as they all once were

    @property
    def key(self) -> str:
        """A fingerprint of the values, 32 hexadecimal digits; empty for the usual ones."""
        if self.usual:
            return ""
        digest = hashlib.blake2b(digest_size=16)
        for sample in self.samples:
            for array in sample:
                digest.update(repr((str(array.dtype), array.shape)).encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def tensors(self, model: Any) -> list[list[ov.Tensor]]:
        """Return (num_samples, num_inputs) tensors, of the types of a model's inputs."""
        kinds = [port.get_element_type() for port in model.inputs]
        return [
            [_to_tensor(array, kind) for array, kind in zip(sample, kinds, strict=True)]
            for sample in self.samples
        ]


def read_inputs(model: ov.Model, inputs: Inputs | Samples | None) -> Samples:
    """Return the values of a model's inputs, checked against its names, shapes and types.

    Args:
        model: the normalised model.
        inputs: an array for each input by name, a sequence of such samples, or an ``.npz`` file
            of either. Arrays have the type of their input; float32 for bf16 and f8, int8 and
            uint8 for i4 and u4. Plain numbers are converted. None: `invented_inputs`.

    Raises:
        InputError: when the file can't be read, a name is unknown or missing, or an array has
            another shape or type.
    """
    if inputs is None:
        return invented_inputs(model)
    if isinstance(inputs, Samples):
        return inputs
    samples: list[Any]
    if isinstance(inputs, str | os.PathLike):
        samples = _split(_load(Path(inputs)), model)
    elif isinstance(inputs, Mapping):
        samples = [inputs]
    elif isinstance(inputs, Sequence) and all(isinstance(one, Mapping) for one in inputs):
        samples = [*inputs]
    else:
        raise InputError(
            f"Got inputs of type {type(inputs).__name__}; give a dict with an array for each input "
            "by name, a list of such dicts, or the path of an .npz file."
        )
    if not samples:
        raise InputError("Got inputs without a sample; give at least one array for each input.")
    return Samples(tuple(_check(model, one) for one in samples))


def invented_inputs(model: ov.Model, seed: int = 0) -> Samples:
    """Return one sample for a model, equal for equal seeds.

    Floating-point values are standard normal, others 0 or 1, which is a legal index, mask or flag
    of almost every model. Where the model shows that an index has to be another, it is the
    nearest legal one.
    """
    generator = np.random.default_rng(seed)
    usual = [_invent(port, generator) for port in model.inputs]
    legal = [
        values if known is None else np.clip(values, *known).astype(values.dtype)
        for values, known in zip(usual, index_ranges(model), strict=True)
    ]
    alike = all(np.array_equal(one, other) for one, other in zip(usual, legal, strict=True))
    return Samples((tuple(legal),), given=False, usual=alike)


def save_inputs(path: str | os.PathLike[str], samples: Iterable[Mapping[str, Any]]) -> None:
    """Write samples, each an array for every input by name, as an ``.npz`` file for ``inputs=``.

    Raises:
        InputError: when something is no array of numbers or texts.
    """
    arrays: dict[str, Any] = {
        f"{number}/{name}": np.asarray(values)
        for number, sample in enumerate(samples)
        for name, values in sample.items()
    }
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise InputError(f"Got objects as {name!r}; give an array of numbers or texts.")
    with replaced(path) as draft, draft.open("wb") as file:
        np.savez(file, **arrays)


def invented_note(model: ov.Model) -> str:
    """Return a sentence about the inputs whose values decide what runs; empty without any."""
    found = deciding_inputs(model)
    if not found:
        return ""
    kinds = ", ".join(dict.fromkeys(kind for several in found.values() for kind in several))
    names = ", ".join(map(repr, found))
    return (
        f"{names} of {model.get_friendly_name()!r} {'decide' if len(found) > 1 else 'decides'} "
        f"which ops run, or on what sizes ({kinds}), and the values are invented. Give real ones: "
        "inputs={...}, or --inputs FILE.npz on the command line."
    )


def warn_of_invented(model: ov.Model) -> None:
    """Warn if invented values decide what a model runs."""
    if note := invented_note(model):
        warnings.warn(note, InventedInputsWarning, stacklevel=3)


def _load(path: Path) -> dict[str, Any]:
    """Return the arrays in a file, by name; pickled objects are refused."""
    try:
        check_regular(path)
        if path.exists() and not zipfile.is_zipfile(path):
            raise ValueError("it is no zip archive; numpy.save writes one array without a name.")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            _check_size(content.zip)
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, *_BROKEN) as error:
        reason = str(error).rstrip(".")
        raise InputError(
            f"Can't read the inputs {str(path)!r}: {reason}. Give an .npz file with an array of "
            "numbers or texts for each input, as numpy.savez(FILE, NAME=array) writes it."
        ) from error


def _check_size(archive: zipfile.ZipFile) -> None:
    """Check how large the files of an archive are once unpacked; it never yields more.

    Raises:
        ValueError: when they are too large.
    """
    size = sum(one.file_size for one in archive.infolist())
    if size > MAX_INPUT_BYTES:
        raise ValueError(
            f"it takes {size >> 20} MiB unpacked, and may take {MAX_INPUT_BYTES >> 20}."
        )


MAX_INPUT_BYTES = 4 << 30  # of all samples in a file
_BROKEN = (zipfile.BadZipFile, zlib.error, NotImplementedError, MemoryError, AttributeError)
_NUMBERED = re.compile(r"(\d+)/(.+)", re.DOTALL)


def _split(arrays: Mapping[str, Any], model: ov.Model) -> list[Mapping[str, Any]]:
    """Return the samples in a file: one, or those that its names number.

    Raises:
        InputError: when a number is missing.
    """
    matches = {name: _NUMBERED.fullmatch(name) for name in arrays}
    known = {name for port in model.inputs for name in (*port.get_names(), input_name(port))}
    if not arrays or known.issuperset(arrays) or not all(matches.values()):
        return [arrays]
    samples: dict[int, dict[str, Any]] = {}
    for name, match in matches.items():
        assert match is not None
        samples.setdefault(int(match[1]), {})[match[2]] = arrays[name]
    if sorted(samples) != list(range(len(samples))):
        raise InputError(
            f"Got samples numbered {', '.join(map(str, sorted(samples)))}; number them from 0 "
            "without a gap: 0/NAME, 1/NAME, ..."
        )
    return [samples[number] for number in range(len(samples))]


def _check(model: ov.Model, sample: Mapping[str, Any]) -> Sample:
    """Return the arrays of one sample in the order of the model's inputs."""
    by_name = {
        name: number
        for number, port in enumerate(model.inputs)
        for name in (*port.get_names(), input_name(port))
    }
    found: dict[int, NDArray[Any]] = {}
    for name, values in sample.items():
        if name not in by_name:
            raise InputError(unknown("input", name, by_name))
        number = by_name[name]
        if number in found:
            raise InputError(f"Got the input {name!r} twice, by two of its names; give it once.")
        found[number] = _fit(name, values, model.inputs[number])
    missing = [input_name(port) for number, port in enumerate(model.inputs) if number not in found]
    if missing:
        raise InputError(
            f"Got inputs without {', '.join(map(repr, missing))}; the model "
            f"{model.get_friendly_name()!r} takes {', '.join(map(_describe, model.inputs))}. "
            "Give an array for each."
        )
    return tuple(found[number] for number in range(len(model.inputs)))


def _describe(port: Any) -> str:
    return f"{input_name(port)} {port.get_partial_shape()} {port.get_element_type().to_string()}"


def _fit(name: str, values: Any, port: Any) -> NDArray[Any]:
    """Return the array for an input after checking its shape and type."""
    kind = port.get_element_type()
    array = _as_array(name, values, kind)
    if kind == ov.Type.string:
        if array.dtype.kind not in "US":
            raise _wrong_type(name, array.dtype, "text (a NumPy array of str)")
    elif array.dtype != (wanted := _numpy_type(kind)):
        given_in = f", given as {wanted}" if kind.to_string() in _SUBSTITUTES else ""
        raise _wrong_type(name, array.dtype, f"{kind.to_string()}{given_in}", f"{wanted}")
    shape = tuple(port.get_shape())
    if array.shape != shape:
        raise InputError(
            f"Got the shape {list(array.shape)} for the input {name!r}, which has "
            f"{list(shape)}. Give an array of that shape; several samples are a list of dicts, or "
            "0/NAME, 1/NAME, ... in a file."
        )
    low, high = _LIMITS.get(kind.to_string(), (-np.inf, np.inf))
    if array.dtype.kind in "iu" and array.size and (array.min() < low or array.max() > high):
        raise InputError(
            f"Got values from {array.min()} to {array.max()} for the input {name!r} of type "
            f"{kind.to_string()}; give {low} to {high}."
        )
    return array


def _wrong_type(name: str, got: Any, takes: str, convert: str = "str") -> InputError:
    return InputError(
        f"Got {got} for the input {name!r}, which takes {takes}. Convert the array, as in "
        f"array.astype({convert!r})."
    )


def _as_array(name: str, values: Any, kind: ov.Type) -> NDArray[Any]:
    """Return an array of what was given; plain numbers get the type of the input."""
    if isinstance(values, ov.Tensor):
        values = values.str_data if kind == ov.Type.string else values.data
    try:
        array = np.array(values)
        if hasattr(values, "dtype") or kind == ov.Type.string:
            return array
        converted = array.astype(_numpy_type(kind))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(
            f"Got {type(values).__name__} for the input {name!r}, of which NumPy can't make an "
            f"array: {error} Give numbers of type {kind.to_string()}."
        ) from error
    rounded = array.dtype.kind == converted.dtype.kind == "f"
    return converted if rounded or np.array_equal(converted, array) else array


def _numpy_type(kind: ov.Type) -> np.dtype[Any]:
    return np.dtype(_SUBSTITUTES.get(kind.to_string()) or kind.to_dtype())


def _invent(port: Any, generator: np.random.Generator) -> NDArray[Any]:
    shape, kind = tuple(port.get_shape()), port.get_element_type()
    values: Any = generator.integers(0, 2, shape)
    if kind.is_real():
        values = generator.standard_normal(shape, dtype=np.float32)
    return np.asarray(values, dtype=np.str_ if kind == ov.Type.string else _numpy_type(kind))


def _to_tensor(values: NDArray[Any], kind: ov.Type) -> ov.Tensor:
    if kind.to_string() in _SUBSTITUTES:
        tensor = ov.Tensor(kind, ov.Shape(values.shape))
        constant = opset13.constant(values.astype(np.float32), dtype=kind)  # owns its memory
        constant.get_tensor_view().copy_to(tensor)
        return tensor
    return ov.Tensor(np.require(values, requirements=("C", "W", "O")))
