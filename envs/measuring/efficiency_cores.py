"""Find the efficiency cores of a hybrid processor, by what each operating system reports."""

from __future__ import annotations

import contextlib
import ctypes
import struct
import subprocess
import sys
from pathlib import Path

SYS_DEVICES = Path("/sys/devices")  # of Linux
INTEL = ("cpu_atom", "cpu_lowpower")  # folders there, for hybrid processors of Intel
SLOWER = 0.8  # share of the largest capacity below which a core of ARM is an efficiency core
CORES = 0  # RelationProcessorCore of Windows


def efficiency_cores() -> tuple[int, ...]:
    """Return the numbers of the efficiency cores; none where all cores are alike, or unknown.

    macOS reports only how many there are; they then have the first numbers.
    """
    if sys.platform == "win32":
        return read_windows_records(_windows_records())
    if sys.platform == "darwin":
        return tuple(range(_macos_count()))
    return read_linux_files(SYS_DEVICES)


def read_linux_files(devices: Path) -> tuple[int, ...]:
    """Return the efficiency cores by the files of Linux.

    Args:
        devices: the folder ``/sys/devices``. Intel's cores are listed in ``cpu_atom/cpus``; those
            of ARM have a smaller ``cpu_capacity``.
    """
    listed = [devices / name / "cpus" for name in INTEL]
    if any(path.exists() for path in listed):
        texts = [path.read_text(encoding="ascii") for path in listed if path.exists()]
        return tuple(sorted(core for text in texts for core in parse_core_list(text)))
    capacities = {}
    for path in devices.glob("system/cpu/cpu[0-9]*/cpu_capacity"):
        with contextlib.suppress(OSError, ValueError):  # a core that is off has none
            number = int(path.parent.name.removeprefix("cpu"))
            capacities[number] = int(path.read_text(encoding="ascii"))
    most = max(capacities.values(), default=0)
    return tuple(sorted(core for core, size in capacities.items() if size < SLOWER * most))


def parse_core_list(text: str) -> list[int]:
    """Return the numbers of a list of cores.

    >>> parse_core_list("0-2,5")
    [0, 1, 2, 5]
    """
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def read_windows_records(records: bytes) -> tuple[int, ...]:
    """Return the cores below the highest efficiency class, which is that of the fastest.

    Args:
        records: ``SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX`` of 64-bit Windows, one for each core.
    """
    classes: dict[int, int] = {}
    start = 0
    while start < len(records):
        relation, size = struct.unpack_from("<II", records, start)
        if relation == CORES:
            (efficiency_class,) = struct.unpack_from("<B", records, start + 9)
            (groups,) = struct.unpack_from("<H", records, start + 30)
            for number in range(groups):
                mask, group = struct.unpack_from("<QH", records, start + 32 + 16 * number)
                for bit in range(64):
                    if mask >> bit & 1:
                        classes[64 * group + bit] = efficiency_class
        start += size
    fastest = max(classes.values(), default=0)
    return tuple(sorted(core for core, one in classes.items() if one < fastest))


def _windows_records() -> bytes:
    # WinDLL is missing elsewhere, so type checkers of other systems do not know it.
    query = ctypes.__dict__["WinDLL"]("kernel32").GetLogicalProcessorInformationEx
    size = ctypes.c_uint32(0)
    query(CORES, None, ctypes.byref(size))  # fails, and sets the size that it needs
    buffer = ctypes.create_string_buffer(size.value)
    return buffer.raw if query(CORES, buffer, ctypes.byref(size)) else b""


def _macos_count() -> int:
    command = ["sysctl", "-n", "hw.perflevel1.logicalcpu"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError):  # all cores are alike
        return 0
