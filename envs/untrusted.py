"""Files from elsewhere: bounded readers, and one error for whatever is wrong with a file."""

from __future__ import annotations

import contextlib
import json
import os
import re
import reprlib
import typing
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from device_placement.envs.devices import Device
from device_placement.envs.errors import DeviceError, DevicePlacementError, printable

MIB = 1 << 20
MAX_BYTES = 64 * MIB  # of a text file
MAX_REASON = 200  # characters
MAX_DEVICES_READ = 64

_WORD = re.compile(r"[A-Za-z][\w.+-]{0,63}")
_SMALL_NUMBER = re.compile(r"\d{1,3}")
_CORES = re.compile(r"\d{1,4}(-\d{1,4})?(\+\d{1,4}(-\d{1,4})?){0,63}")
FILE_PROPERTIES = {
    "CORES": _CORES,
    "CPU_DENORMALS_OPTIMIZATION": _WORD,
    "ENABLE_CPU_PINNING": _WORD,
    "ENABLE_HYPER_THREADING": _WORD,
    "EXECUTION_MODE_HINT": _WORD,
    "INFERENCE_NUM_THREADS": _SMALL_NUMBER,
    "INFERENCE_PRECISION_HINT": _WORD,
    "KV_CACHE_PRECISION": _WORD,
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": _SMALL_NUMBER,
    "MODEL_PRIORITY": _WORD,
    "NPU_TURBO": _WORD,
    "NUM_STREAMS": re.compile(r"\d{1,3}|AUTO|NUMA|-[12]"),
    "PERFORMANCE_HINT": _WORD,
    "PERFORMANCE_HINT_NUM_REQUESTS": _SMALL_NUMBER,
    "SCHEDULING_CORE_TYPE": _WORD,
}
"""Properties that a file may set on a device, and the form of their values.

None of them writes a file, reads one, or takes much memory.
"""


@contextlib.contextmanager
def reading(
    path: str | os.PathLike[str],
    kind: str,
    advice: str,
    error: type[DevicePlacementError] = DevicePlacementError,
) -> Iterator[None]:
    """Turn whatever fails while a file is read into one error.

    Args:
        path: of the file.
        kind: what it should be, as in "a placement".
        advice: what to do, a sentence without its capital.
        error: class of the error.

    Raises:
        DevicePlacementError: or the given subclass, in place of any exception.
    """
    try:
        yield
    except DevicePlacementError as reason:
        raise error(f"Can't use {str(path)!r}: {reason}") from reason
    except Exception as reason:  # a file from elsewhere may hold anything
        text = printable(" ".join(str(reason).split()), MAX_REASON)
        what = f"{type(reason).__name__}: {text}" if text else type(reason).__name__
        raise error(f"Can't read {str(path)!r} as {kind} ({what}); {advice}") from reason


def read_bytes(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: when it can't be read.
        ValueError: when it is not a regular file, or larger than the bound.
    """
    check_regular(path)
    with Path(path).open("rb") as file:
        if os.fstat(file.fileno()).st_size > max_bytes:  # without reading all that
            raise _too_large(max_bytes)
        return _bounded(file.read(max_bytes + 1), max_bytes)


def check_regular(path: str | os.PathLike[str]) -> None:
    """Check that a path is a regular file, or nothing.

    Raises:
        ValueError: when it is something else, as a pipe, which waits for a writer.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError("it is not a regular file")


def read_json(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> Any:
    """Return the content of a JSON file, as `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path, max_bytes))


def parse_json(content: bytes | str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: when it is none, or nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_member(path: str | os.PathLike[str], name: str, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the content of a file in a zip archive, however well it was packed.

    Raises:
        KeyError: when the archive has no such file.
        ValueError: when it is larger than the bound.
    """
    if not Path(path).is_file():
        raise FileNotFoundError("there is no such file")
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        return _bounded(file.read(max_bytes + 1), max_bytes)


def check_types(what: str, values: Mapping[str, Any], kind: type[Any]) -> None:
    """Check values of a dataclass by name; other names are ignored.

    Args:
        what: the values are, for the message.
        values: from a file.
        kind: the dataclass.

    Raises:
        TypeError: when one is of another type than its field.
    """
    for name, allowed in typing.get_type_hints(kind).items():
        if typing.get_origin(allowed) is ClassVar or name not in values:
            continue
        kinds = typing.get_args(allowed) or (allowed,)
        value = values[name]
        if typing.get_origin(allowed) is tuple:  # of any length
            names = f"a list of {kinds[0].__name__}"
            holds = isinstance(value, list | tuple) and all(type(one) is kinds[0] for one in value)
        else:
            names = " or ".join(one.__name__ for one in kinds)
            holds = type(value) in kinds or (type(value) is int and float in kinds)
        if not holds:
            raise TypeError(f"the {what} {name} is {reprlib.repr(value)}; it must be {names}")


def check_count(value: Any, most: int = 2**53) -> int:
    """Return a number from a file, after checking that it is whole, 0 or more, and not too large.

    Raises:
        ValueError: when it is not.
    """
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"got {reprlib.repr(value)} for a count of 0 to {most}")
    return value


def check_file_devices(
    devices: Sequence[Device], source: str | os.PathLike[str], trusted: Sequence[Device] = ()
) -> None:
    """Check that devices named in a file have only properties that a file may set.

    Args:
        devices: from the file.
        source: the file, for the message.
        trusted: devices that the user gave; those may have any property.

    Raises:
        DeviceError: when one has another property, or there are too many.
    """
    if len(devices) > MAX_DEVICES_READ:
        raise DeviceError(
            f"Got {len(devices)} devices in {str(source)!r}; a file may name {MAX_DEVICES_READ}."
        )
    for device in devices:
        unusual = [
            f"{key}={value}" for key, value in device.properties if not _is_usual(key, value)
        ]
        if unusual and device not in trusted:
            properties = printable("; ".join(unusual), MAX_REASON)
            raise DeviceError(
                f"Got {properties} for the device {device.name!r} in {str(source)!r}; a file may "
                f"set {', '.join(FILE_PROPERTIES)}, to words and small numbers. If you want it, "
                f"repeat the devices: devices='{printable(str(device), MAX_REASON)}'."
            )


def _is_usual(key: str, value: str) -> bool:
    form = FILE_PROPERTIES.get(key)
    return form is not None and form.fullmatch(value) is not None


def _bounded(content: bytes, max_bytes: int) -> bytes:
    if len(content) > max_bytes:
        raise _too_large(max_bytes)
    return content


def _too_large(max_bytes: int) -> ValueError:
    return ValueError(f"it is larger than {max_bytes // MIB} MiB")
