"""Facts about this machine that decide how well it measures: load, power, cores, devices."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from device_placement.envs.cores import cpu_affinity
from device_placement.envs.devices import UNLOADABLE, device_names, make_core
from device_placement.envs.measuring.efficiency_cores import efficiency_cores
from device_placement.envs.measuring.lock import lock_path

WATCH_S = 1.0  # how long other processes are watched
MAX_CORE_BUSY = 0.5  # share of one core: the threads on the others would wait for the one there
GOVERNORS = "devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"  # under /sys
UNKNOWN = "unknown"
BATTERY = "battery"


@dataclass(frozen=True)
class Facts:
    """State of a machine; NaN where a value is unknown."""

    usable: tuple[int, ...]  # cores that this process may use
    logical_cores: int
    busy: float  # share of the usable cores that other processes use
    steal: float  # share of the time that a hypervisor gives to others
    free_memory: float  # bytes
    taken: tuple[int, ...] = ()  # usable cores of which others use more than `MAX_CORE_BUSY`
    slow_cores: tuple[int, ...] = ()  # usable cores that are efficiency cores
    power_plan: str = ""  # as Windows prints it
    governors: tuple[str, ...] = ()  # of the cores' frequency
    on_battery: bool = False
    measuring: bool = False  # another process holds the lock
    devices: tuple[str, ...] = ("CPU",)  # that load
    broken: tuple[tuple[str, str], ...] = ()  # devices that don't, and why
    noise: float = float("nan")  # coefficient of variation of paired measurements


def gather_facts() -> Facts:
    """Examine the machine, and watch the load of other processes for a second."""
    usable = cpu_affinity()
    used, steal = _watch_cores(usable)
    names = device_names(make_core(["CPU"]))
    broken = {name: text for name, text in names.items() if text.startswith(UNLOADABLE)}
    return Facts(
        usable=tuple(usable),
        logical_cores=os.cpu_count() or 1,
        busy=statistics.mean(used.values()),
        taken=tuple(core for core, share in used.items() if share > MAX_CORE_BUSY),
        steal=steal,
        free_memory=float(psutil.virtual_memory().available),
        governors=_governors(),
        power_plan=_power_plan(),
        slow_cores=tuple(sorted(set(usable) & set(efficiency_cores()))),
        on_battery=power_source() == BATTERY,
        measuring=_is_measuring(),
        devices=tuple(name for name in names if name not in broken),
        broken=tuple(broken.items()),
    )


def _watch_cores(usable: Sequence[int]) -> tuple[dict[int, float], float]:
    """Watch for `WATCH_S`, and return the share of each core in use, and of stolen time.

    Args:
        usable: the cores that this process may use; the others do not count.
    """
    times = psutil.cpu_times_percent(interval=WATCH_S, percpu=True)
    if max(usable) >= len(times):  # some cores are off, so the rows have other numbers
        usable = range(len(times))
    used = {core: min(1.0, max(0.0, 1.0 - _idle(times[core]) / 100.0)) for core in usable}
    stolen = [getattr(times[core], "steal", math.nan) / 100.0 for core in usable]
    return used, statistics.mean(stolen)


def _idle(times: Any) -> float:
    """Return the percentage in which a core does nothing, or is not there for this machine."""
    waits = (getattr(times, name, 0.0) for name in ("iowait", "steal"))
    return float(times.idle + sum(waits))


def _governors() -> tuple[str, ...]:
    """Return the frequency governor of each core, where it is known."""
    found = []
    for path in sorted(Path("/sys").glob(GOVERNORS)):
        with contextlib.suppress(OSError):  # a core that is off has none
            found.append(path.read_text(encoding="ascii").strip())
    return tuple(found)


def _power_plan() -> str:
    """Return what Windows prints about its power plan; empty elsewhere."""
    if sys.platform != "win32":
        return ""
    try:
        done = subprocess.run(
            ["powercfg", "/getactivescheme"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def frequency() -> str:
    """Return the processor's current frequency, and its limits where they are known."""
    try:
        found = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    except (OSError, NotImplementedError):  # some kernels hide the files that psutil reads
        found = None
    if found is None:
        return UNKNOWN
    limits = f"{found.min:.0f} to {found.max:.0f} MHz" if found.max else UNKNOWN
    return f"{found.current:.0f} MHz now; limits {limits}"


def power_source() -> str:
    """Return the power source: mains, battery or unknown."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is None or battery.power_plugged is None:
        return UNKNOWN
    return "mains" if battery.power_plugged else BATTERY


def _is_measuring() -> bool:
    """Return whether another process holds the lock."""
    try:
        with FileLock(lock_path(), blocking=False, mode=0o666):
            return False
    except Timeout:
        return True
    except OSError:  # machine_lock() reports it
        return False
