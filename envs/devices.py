"""Devices: names and properties, discovery, and a core with further CPU instances."""

from __future__ import annotations

import difflib
import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import openvino as ov
from openvino.properties.device import Type

from device_placement.envs.affinities import is_placed, restore_affinities
from device_placement.envs.cores import check_separate, cpu_affinity, format_cores, parse_cores
from device_placement.envs.errors import DeviceError, DevicePlacementError

FURTHER_CPU = "CPU_F32:INFERENCE_PRECISION_HINT=f32"  # what `auto` adds to a single device
UNLOADABLE = "can't be loaded"  # begins the text for a device that is only listed
CORES = "CORES"  # our property of a further CPU instance: the cores that it owns
HALVES = "halves"  # of the cores, a device each
CORES_EXAMPLE = "CPU_0:CORES=0-3+8"
EXTENSIONS_VARIABLE = "DEVICE_PLACEMENT_EXTENSIONS"  # of the environment
VIRTUAL_DEVICES = ("AUTO", "MULTI", "HETERO", "BATCH")
MEMORY_PROPERTIES = {"GPU": "GPU_DEVICE_TOTAL_MEM_SIZE", "NPU": "NPU_DEVICE_TOTAL_MEM_SIZE"}

# OpenVINO takes only text that UTF-8 can encode, so no lone surrogates; no control characters, as
# devices are shown and recorded.
MAX_BYTES = 2**63 - 1  # of a memory
_FORM = re.compile(
    r"(?P<name>[A-Za-z][\w.]*)(:(?P<properties>[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+))?"
)


@dataclass(frozen=True)
class Device:
    """One device, written ``NAME`` or ``NAME:KEY=VALUE;KEY=VALUE``.

    The properties are OpenVINO's, but for ``CORES``, which makes a further CPU instance run on
    some cores of the processor only, one thread on each: ``CPU_0:CORES=0-3+8``.

    >>> Device.parse("CPU_F32:INFERENCE_PRECISION_HINT=f32")
    Device(name='CPU_F32', properties=(('INFERENCE_PRECISION_HINT', 'f32'),), memory_bytes=None)
    >>> str(Device("GPU.0", (("NUM_STREAMS", "2"),)))
    'GPU.0:NUM_STREAMS=2'
    """

    name: str
    properties: tuple[tuple[str, str], ...] = ()
    memory_bytes: int | None = None  # None: no limit is known

    def __post_init__(self) -> None:
        if self.memory_bytes is not None:
            _check_bytes(self.name, self.memory_bytes)
        _check_cores(self)

    @property
    def cores(self) -> tuple[int, ...]:
        """The cores that the device owns; none: it shares them all."""
        return parse_cores(dict(self.properties).get(CORES, "")) if self._owns_cores else ()

    @property
    def openvino_properties(self) -> dict[str, str]:
        """What OpenVINO is to set for the device."""
        given = {key: value for key, value in self.properties if key != CORES}
        if not self._owns_cores:
            return given
        # Unpinned, a plugin's threads stay on the cores of the thread that starts them.
        own = {"INFERENCE_NUM_THREADS": str(len(self.cores)), "ENABLE_CPU_PINNING": "NO"}
        return own | given

    @property
    def _owns_cores(self) -> bool:
        return CORES in dict(self.properties)

    def __str__(self) -> str:
        settings = ";".join(f"{key}={value}" for key, value in self.properties)
        return f"{self.name}:{settings}" if settings else self.name

    @classmethod
    def parse(cls, text: str) -> Device:
        """Return the device that a string describes.

        Raises:
            DeviceError: when the text is not of the form above.
        """
        match = _FORM.fullmatch(text.strip()) if isinstance(text, str) else None
        pairs = (
            [part.partition("=") for part in (match["properties"] or "").split(";") if part]
            if match
            else []
        )
        if match is None or any(not (key.strip() and value.strip()) for key, _, value in pairs):
            raise DeviceError(
                f"Can't read the device {text!r}; write NAME or NAME:KEY=VALUE;KEY=VALUE, "
                f"as in CPU or {FURTHER_CPU}."
            )
        return cls(match["name"], tuple((key.strip(), value.strip()) for key, _, value in pairs))


@dataclass(frozen=True)
class SharedMemory:
    """Memory that holds the weights of several devices, such as a laptop's CPU, GPU and NPU."""

    devices: tuple[str, ...]  # their names
    memory_bytes: int  # for all of them together

    def __post_init__(self) -> None:
        _check_bytes(" and ".join(self.devices), self.memory_bytes)


def _check_cores(device: Device) -> None:
    text = dict(device.properties).get(CORES)
    if text is None:
        return
    try:
        parse_cores(text)
    except ValueError as error:
        raise DeviceError(
            f"Can't read CORES={text} of the device {device.name!r}: {error}. Write numbers and "
            f"ranges joined by +, as in {CORES_EXAMPLE}."
        ) from error
    if not is_cpu(device.name) or device.name == "CPU":
        raise DeviceError(
            f"Got CORES={text} for the device {device.name!r}; only a further CPU instance, with a "
            f"name of its own, can own cores, as in {CORES_EXAMPLE}."
        )
    if dict(device.properties).get("ENABLE_CPU_PINNING", "NO").upper() not in ("NO", "FALSE"):
        raise DeviceError(
            f"Got ENABLE_CPU_PINNING and CORES for the device {device.name!r}; pinned threads "
            "leave its cores. Leave one of the two out."
        )


def _check_bytes(name: str, memory_bytes: int) -> None:
    if not 0 <= memory_bytes <= MAX_BYTES:
        raise DeviceError(
            f"Got a memory of {reprlib.repr(memory_bytes)} bytes for {name}; give 0 to {MAX_BYTES}."
        )


def parse_devices(devices: str | Device | Sequence[str | Device]) -> tuple[Device, ...]:
    """Return the devices of a list; a string is split at commas.

    The string ``auto`` means this machine's, as `discover_devices` finds them, and ``halves`` two
    CPU instances with half of the cores each.

    Raises:
        DeviceError: when the list is empty, a name occurs twice or can't be read, two devices own
            one core, or a processor of one core is to be halved.

    >>> [str(device) for device in parse_devices("CPU,GPU.0")]
    ['CPU', 'GPU.0']
    """
    if isinstance(devices, str):
        if devices.strip() == "auto":
            return discover_devices()
        if devices.strip() == HALVES:
            return half_devices()
        devices = [part for part in devices.split(",") if part.strip()]
    items = [devices] if isinstance(devices, Device) else list(devices)
    parsed = tuple(item if isinstance(item, Device) else Device.parse(item) for item in items)
    names = [device.name for device in parsed]
    if not names or len(set(names)) < len(names):
        raise DeviceError(
            f"Got the devices {names}; give at least one, each name once "
            f"(a second CPU needs its own name, as in {FURTHER_CPU})."
        )
    for name in names:
        if name in VIRTUAL_DEVICES:
            raise DeviceError(
                f"Got the device {name!r}, which chooses among devices; name the devices "
                "themselves."
            )
    check_separate({device.name: device.cores for device in parsed})
    return parsed


def half_devices() -> tuple[Device, Device]:
    """Return two CPU instances with half of the cores each that this process may use.

    Of an odd number of cores, the last one belongs to none.

    Raises:
        DeviceError: when there is only one core.
    """
    cores = cpu_affinity()
    if len(cores) < 2:
        raise DeviceError(
            f"Got devices='{HALVES}', but this process may use core {cores[0]} only; two devices "
            f"with cores of their own need two. Use devices='CPU,{FURTHER_CPU}'."
        )
    middle = len(cores) // 2
    first, second = (
        Device(f"CPU_{number}", ((CORES, format_cores(half)),))
        for number, half in enumerate((cores[:middle], cores[middle : 2 * middle]))
    )
    return first, second


def discover_devices() -> tuple[Device, ...]:
    """Return all devices of this machine, the CPU first; a single one gets a further CPU."""
    core = ov.Core()
    names = sorted(core.available_devices, key=lambda name: (not name.startswith("CPU"), name))
    found = with_memory(core, [Device(name) for name in names])
    return found if len(found) > 1 else (*found, Device.parse(FURTHER_CPU))


def with_memory(core: ov.Core, devices: Sequence[Device]) -> tuple[Device, ...]:
    """Return devices with the memory that OpenVINO reports, where they have no limit yet."""
    return tuple(
        replace(one, memory_bytes=_memory_bytes(core, one.name))
        if one.memory_bytes is None
        else one
        for one in devices
    )


def find_shared_memory(core: ov.Core, devices: Sequence[Device]) -> tuple[SharedMemory, ...]:
    """Return the host's memory if a GPU or NPU uses it, as integrated ones do, else nothing."""
    names = tuple(one.name for one in devices if _uses_host_memory(core, one.name))
    if all(is_cpu(name) for name in names):
        return ()
    import psutil  # models and placements do without

    return (SharedMemory(names, psutil.virtual_memory().total),)


def cpu_plugin(core: ov.Core) -> str:
    """Return the name of the CPU plugin here: each architecture has its own.

    >>> cpu_plugin(ov.Core()).endswith("_cpu_plugin")
    True
    """
    return str(core.get_versions("CPU")["CPU"].description)


def make_core(devices: Sequence[str | Device]) -> ov.Core:
    """Return an OpenVINO core in which all given devices are registered, set up and loaded.

    A name that OpenVINO does not know but that contains ``CPU`` becomes a further,
    independent instance of the CPU plugin. When the core reads a model that `Placement.apply`
    placed, it restores the device of every op. It has the extensions of `add_extensions`.

    Raises:
        DeviceError: when a device is unknown, can't be loaded or refuses a property.
        DevicePlacementError: when an extension can't be loaded.
    """
    core = add_extensions(RestoringCore())
    here = list(core.available_devices)
    for device in parse_devices(devices):
        if device.name not in here and is_cpu(device.name):
            _register(core, device.name)
        elif not _is_here(device.name, here):
            raise DeviceError(_unknown_device(device.name, here))
        _load(core, device)
    return core


def add_extensions(core: ov.Core) -> ov.Core:
    """Add OpenVINO extensions, which bring ops of their own, to a core, and return it.

    They are the libraries in the environment's ``DEVICE_PLACEMENT_EXTENSIONS``, separated as in
    ``PATH``. So every process has them, the measuring one among them.

    Raises:
        DevicePlacementError: when one can't be loaded.
    """
    for path in filter(None, os.environ.get(EXTENSIONS_VARIABLE, "").split(os.pathsep)):
        try:
            core.add_extension(path)
        except RuntimeError as error:
            raise DevicePlacementError(
                f"Can't load the extension {path!r} of {EXTENSIONS_VARIABLE}: {_reason(error)} "
                f"Give paths of OpenVINO extension libraries, separated by {os.pathsep!r}."
            ) from error
    return core


def missing_extension(error: Exception) -> str:
    """Return what to do if OpenVINO can't read a model as it lacks an op; nothing otherwise."""
    if "from unsupported opset" not in str(error):
        return ""
    return (
        f"For ops of an extension, name its library in {EXTENSIONS_VARIABLE}, a variable of the "
        "environment; for those of a newer OpenVINO, install that one."
    )


class RestoringCore(ov.Core):  # type: ignore[misc]  # openvino has no types
    """OpenVINO's core, which also restores the devices of placed models that it reads."""

    def read_model(self, *args: Any, **kwargs: Any) -> ov.Model:
        """Read a model as ``openvino.Core`` does, and restore its devices if it was placed."""
        model: ov.Model = restore_affinities(super().read_model(*args, **kwargs))
        return model

    def compile_model(self, model: Any, *args: Any, **kwargs: Any) -> ov.CompiledModel:
        """Compile a model as ``openvino.Core`` does; a file of a placed model, as it was placed."""
        is_path = isinstance(model, (str, os.PathLike))
        if is_path and os.fspath(model).endswith(".xml"):  # no other format holds devices
            read = self.read_model(model)
            model = read if is_placed(read) else model
        return super().compile_model(model, *args, **kwargs)


def supported_ops(core: ov.Core, model: ov.Model, device: str) -> frozenset[str]:
    """Return the friendly names of a model's ops that a device can run."""
    return frozenset(core.query_model(model, device))


def _is_here(name: str, here: Sequence[str]) -> bool:
    """Return whether a device is on this machine; OpenVINO takes GPU and GPU.0 for the same one."""
    return name in here or f"{name}.0" in here or (name.endswith(".0") and name[:-2] in here)


def _unknown_device(name: str, here: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, here, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"Unknown device {name!r}; this machine has: {', '.join(here)}.{hint} "
        f"A name that contains CPU adds a further CPU instance, as in {FURTHER_CPU}."
    )


def _register(core: ov.Core, name: str) -> None:
    try:
        core.register_plugin(cpu_plugin(core), name)
    except RuntimeError as error:
        raise DeviceError(
            f"OpenVINO refuses the name {name!r} for a further CPU instance: {_reason(error)} "
            f"Write it as in {FURTHER_CPU}."
        ) from error


def _load(core: ov.Core, device: Device) -> None:
    if missing := sorted({*device.cores} - {*(here := cpu_affinity())}):
        raise DeviceError(
            f"Got CORES={format_cores(device.cores)} for the device {device.name!r}, but this "
            f"process can't use {format_cores(missing)}; it may use {format_cores(here)}."
        )
    try:
        core.get_property(device.name, "FULL_DEVICE_NAME")
    except RuntimeError as error:
        raise DeviceError(
            f"OpenVINO lists the device {device.name!r} but can't load it: {_reason(error)} "
            "Install its driver, or leave the device out."
        ) from error
    properties = device.openvino_properties
    try:
        core.set_property(device.name, properties)
    except RuntimeError as error:
        raise DeviceError(
            f"The device {device.name!r} refuses the properties {_text(properties)}: "
            f"{_reason(error)} See OpenVINO's list of properties."
        ) from error


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


def _text(properties: Mapping[str, str]) -> str:
    return ";".join(f"{key}={value}" for key, value in properties.items())


def is_cpu(name: str) -> bool:
    """Return whether a device is an instance of the CPU plugin, whose names contain CPU."""
    return "CPU" in name


def _memory_bytes(core: ov.Core, name: str) -> int | None:
    key = MEMORY_PROPERTIES.get(name.partition(".")[0])
    try:
        return int(core.get_property(name, key)) or None if key else None
    except RuntimeError:  # not reported: no limit is known
        return None


def _uses_host_memory(core: ov.Core, name: str) -> bool:
    if is_cpu(name):
        return True
    try:
        return bool(core.get_property(name, "DEVICE_TYPE") == Type.INTEGRATED)
    except RuntimeError:  # not reported
        return False


def device_names(core: ov.Core) -> Mapping[str, str]:
    """Return OpenVINO's devices here, each with its full name or the reason why it can't load."""
    names = {}
    for name in core.available_devices:
        try:
            names[name] = str(core.get_property(name, "FULL_DEVICE_NAME"))
        except RuntimeError as error:
            names[name] = f"{UNLOADABLE}: {_reason(error)}"
    return names
