"""Description of the machine and of versions, which is stored with every measurement."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from pathlib import Path

import openvino as ov

from device_placement.envs.cores import cpu_affinity

PACKAGES = ("device-placement", "openvino", "gymnasium", "stable-baselines3", "torch", "numpy")


def describe_machine() -> dict[str, str]:
    """Return processor, cores, operating system and versions of the packages that matter.

    >>> sorted(describe_machine())[:3]
    ['cores', 'device-placement', 'gymnasium']
    """
    result = {
        "processor": processor_name(),
        "cores": str(len(cpu_affinity())),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            result[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return result


def describe_host() -> dict[str, str]:
    """Return what identifies this machine: its name, its processor and its number of cores."""
    return {
        "name": platform.node(),
        "processor": processor_name(),
        "cores": str(os.cpu_count()),
    }


@functools.cache
def processor_name(cpu_info: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name from Linux, or from OpenVINO where Linux does not give it.

    Args:
        cpu_info: Linux's file; it has no name on ARM.
    """
    if cpu_info.exists():
        for line in cpu_info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    try:
        return str(ov.Core().get_property("CPU", "FULL_DEVICE_NAME")).strip()
    except RuntimeError:  # OpenVINO has no CPU plugin here
        return platform.processor() or platform.machine()
