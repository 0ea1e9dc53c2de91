"""Description of the machine and of versions, which is stored with every measurement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = ("device-placement", "openvino", "gymnasium", "stable-baselines3", "torch", "numpy")


def describe_machine() -> dict[str, str]:
    """Return processor, cores, operating system and versions of the packages that matter.

    >>> sorted(describe_machine())[:3]
    ['cores', 'device-placement', 'gymnasium']
    """
    result = {
        "processor": _processor(),
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
        "processor": _processor(),
        "cores": str(os.cpu_count()),
    }


def cpu_affinity() -> list[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
