"""Command `doctor`: report devices, versions and timing noise, and advise how to measure well."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
from filelock import FileLock, Timeout

from device_placement.agents.commands.config import DoctorConfig
from device_placement.envs.arrays import Float64
from device_placement.envs.devices import (
    UNLOADABLE,
    device_names,
    discover_devices,
    make_core,
    parse_devices,
)
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.graph.coarsening import coarsen
from device_placement.envs.graph.computation_graph import read_graph
from device_placement.envs.measuring.bench import BenchConfig, Job, LocalBench
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.inputs import read_inputs
from device_placement.envs.measuring.lock import lock_path, machine_lock
from device_placement.envs.measuring.machine import cpu_affinity, describe_machine
from device_placement.envs.measuring.store import default_path
from device_placement.envs.measuring.timing import relative_samples
from device_placement.envs.models.loading import load_model
from device_placement.envs.rendering.text import align

CHUNK = 6  # samples in one measurement, whose medians are compared
WATCH_S = 1.0  # how long other processes are watched
GOVERNORS = "devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"  # under /sys
UNKNOWN = "unknown"
BATTERY = "battery"


@dataclass(frozen=True)
class TimingNoise:
    """Variation between measurements of a few samples each."""

    pairs: Float64  # (num_samples, 2) seconds: candidate, reference

    @property
    def plain(self) -> float:
        """Coefficient of variation when the candidate is timed alone."""
        return _variation(self.pairs[:, 0])

    @property
    def paired(self) -> float:
        """Coefficient of variation when it is compared with the reference, pair by pair."""
        return _variation(relative_samples(self.pairs.tolist()))

    @property
    def outlier(self) -> float:
        """The longest sample over the median one."""
        return float(self.pairs[:, 0].max() / np.median(self.pairs[:, 0]))


def run_doctor(config: DoctorConfig) -> int:
    """Print devices, versions, the state of the machine, its timing noise, and advice.

    Raises:
        DevicePlacementError: when a device, the model or the time is wrong.
    """
    if not 0 < config.seconds < math.inf:
        raise DevicePlacementError(f"Got seconds={config.seconds}; give a finite number above 0.")
    facts = gather_facts()
    auto = ",".join(str(device) for device in discover_devices())
    names = device_names(make_core(["CPU"]))
    _print("Devices", [*names.items(), ("auto stands for", auto)])
    _print("Versions and machine", describe_machine().items())
    _print("State", _state(facts))
    print(f"Timing noise, measured for {config.seconds:g} s ...", flush=True)
    noise = measure_noise(config)
    candidate_ms, reference_ms = 1e3 * np.median(noise.pairs, axis=0)
    rows = [
        ("samples", f"{len(noise.pairs)} pairs, {CHUNK} per measurement"),
        ("median time", f"{candidate_ms:.3f} ms, reference {reference_ms:.3f} ms"),
        ("longest sample", f"{noise.outlier:.2f} times the median"),
        ("variation, plain", _percent(noise.plain)),
        ("variation, paired", _percent(noise.paired)),
    ]
    print("\n".join(f"  {line}" for line in align(rows)))
    advice = advise(replace(facts, noise=noise.paired))
    print("\nAdvice")
    for sentence in advice or ["This machine is quiet enough to measure reliably."]:
        print(f"  {sentence}")
    return 0


def gather_facts() -> Facts:
    """Examine the machine, and watch the load of other processes for a second."""
    busy = psutil.cpu_times_percent(interval=WATCH_S)
    idle = busy.idle + getattr(busy, "iowait", 0.0) + getattr(busy, "steal", 0.0)
    names = device_names(make_core(["CPU"]))
    broken = {name: text for name, text in names.items() if text.startswith(UNLOADABLE)}
    return Facts(
        usable_cores=len(cpu_affinity()),
        logical_cores=os.cpu_count() or 1,
        load_per_core=psutil.getloadavg()[0] / (os.cpu_count() or 1),
        busy=max(0.0, 100.0 - idle) / 100.0,
        steal=getattr(busy, "steal", math.nan) / 100.0,
        free_memory=float(psutil.virtual_memory().available),
        governors=_governors(),
        on_battery=_power() == BATTERY,
        measuring=_is_measuring(),
        devices=tuple(name for name in names if name not in broken),
        broken=tuple(broken.items()),
    )


def measure_noise(config: DoctorConfig) -> TimingNoise:
    """Time all on the second device, alternating with all on the first.

    Raises:
        DevicePlacementError: when a device or the model is wrong, or one can't run it.
    """
    devices = parse_devices(config.devices)
    core, model = make_core(devices), load_model(config.model)
    with machine_lock():
        coarse = coarsen(read_graph(model, devices, core))
        timing = MeasureConfig(
            max_samples=10**6, max_seconds=config.seconds, tolerance=0.0, give_up_factor=1e9
        ).protocol
        samples = read_inputs(model, config.inputs or None)
        bench_config = BenchConfig(devices, coarse.graph.op_names, timing, samples=samples)
        bench = LocalBench(model, core, bench_config)
        first, last = (bytes([number]) * coarse.graph.num_ops for number in (0, len(devices) > 1))
        measured = bench.measure(Job(last, reference=first))
        if measured.error:  # the second device can't run all of it
            measured = bench.measure(Job(first, reference=first))
    if measured.error:
        raise DevicePlacementError(
            f"The noise can't be measured with {config.model!r} on {devices[0]}: {measured.error}"
        )
    return TimingNoise(np.array(measured.pairs))


def _variation(samples: Float64) -> float:
    """Return the coefficient of variation of the chunks' medians; NaN if there are too few."""
    whole = samples[: samples.size // CHUNK * CHUNK].reshape(-1, CHUNK)
    if len(whole) < 3:
        return float("nan")
    medians = np.median(whole, axis=1).tolist()
    return float(statistics.stdev(medians) / statistics.mean(medians))


def _percent(variation: float) -> str:
    if math.isnan(variation):
        return f"too few samples ({CHUNK * 3} are needed); raise --seconds"
    return f"{variation:.2%}"


def _governors() -> tuple[str, ...]:
    """Return the frequency governor of each core, where it is known."""
    found = []
    for path in sorted(Path("/sys").glob(GOVERNORS)):
        with contextlib.suppress(OSError):  # a core that is off has none
            found.append(path.read_text().strip())
    return tuple(found)


def _frequency() -> str:
    """Return the processor's current frequency, and its limits where they are known."""
    try:
        frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    except (OSError, NotImplementedError):  # some kernels hide the files that psutil reads
        frequency = None
    if frequency is None:
        return UNKNOWN
    limits = f"{frequency.min:.0f} to {frequency.max:.0f} MHz" if frequency.max else UNKNOWN
    return f"{frequency.current:.0f} MHz now; limits {limits}"


def _power() -> str:
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


def _state(facts: Facts) -> list[tuple[str, str]]:
    store = default_path()
    size = f"{store.stat().st_size / 1e6:.1f} MB" if store.exists() else "does not exist yet"
    physical = psutil.cpu_count(logical=False) or UNKNOWN
    cores = f"{facts.usable_cores} usable of {facts.logical_cores} logical, {physical} physical"
    return [
        ("cores", cores),
        ("governor", ", ".join(sorted(set(facts.governors))) or UNKNOWN),
        ("frequency", _frequency()),
        ("power", _power()),
        (
            "load",
            f"{facts.load_per_core:.2f} per core; {facts.busy:.0%} in use now",
        ),
        ("stolen time", UNKNOWN if math.isnan(facts.steal) else f"{facts.steal:.1%}"),
        ("free memory", f"{facts.free_memory / 1e9:.1f} GB"),
        ("free temporary disk", f"{psutil.disk_usage(tempfile.gettempdir()).free / 1e9:.1f} GB"),
        ("lock", f"{lock_path()}{', held by another process' if facts.measuring else ''}"),
        ("store", f"{store} ({size})"),
    ]


def _print(title: str, rows: Iterable[tuple[str, str]]) -> None:
    print(f"{title}")
    for line in align(list(rows)):
        print(f"  {line}")
    print()


MAX_LOAD = 0.3  # others' load per core
MAX_BUSY = 0.1  # share of the processor that others use
MAX_STEAL = 0.01  # share of the time that a hypervisor gives to others
MAX_NOISE = 0.03  # coefficient of variation of paired measurements
MIN_MEMORY = 2e9  # bytes: a large model, compiled a few times


@dataclass(frozen=True)
class Facts:
    """State of a machine; NaN where a value is unknown."""

    usable_cores: int  # that this process may use
    logical_cores: int
    load_per_core: float
    busy: float  # share of the processor that other processes use
    steal: float  # share of the time that a hypervisor gives to others
    free_memory: float  # bytes
    governors: tuple[str, ...] = ()  # of the cores' frequency
    on_battery: bool = False
    measuring: bool = False  # another process holds the lock
    devices: tuple[str, ...] = ("CPU",)  # that load
    broken: tuple[tuple[str, str], ...] = ()  # devices that don't, and why
    noise: float = float("nan")  # coefficient of variation of paired measurements


Rule = tuple[Callable[[Facts], bool], Callable[[Facts], str]]

RULES: tuple[Rule, ...] = (
    (
        lambda facts: facts.measuring,
        lambda facts: "Another process is measuring now; measurements of both will take turns.",
    ),
    (
        lambda facts: facts.load_per_core > MAX_LOAD or facts.busy > MAX_BUSY,
        lambda facts: (
            f"Other processes keep the processor busy (load {facts.load_per_core:.2f} per core, "
            f"{facts.busy:.0%} in use now); stop them, or wait until they finish."
        ),
    ),
    (
        lambda facts: facts.steal > MAX_STEAL,
        lambda facts: (
            f"The hypervisor gives {facts.steal:.1%} of the time to other machines; trust ratios, "
            "not milliseconds."
        ),
    ),
    (
        lambda facts: bool(set(facts.governors) - {"performance"}),
        lambda facts: (
            f"The frequency governor is {', '.join(sorted(set(facts.governors)))}, which changes "
            "speed with load; run: sudo cpupower frequency-set -g performance"
        ),
    ),
    (
        lambda facts: facts.on_battery,
        lambda facts: "The machine runs on battery power, which slows it down; plug it in.",
    ),
    (
        lambda facts: facts.usable_cores < facts.logical_cores,
        lambda facts: (
            f"This process may use {facts.usable_cores} of {facts.logical_cores} cores; times hold "
            "for these cores only and are stored separately."
        ),
    ),
    (
        lambda facts: facts.free_memory < MIN_MEMORY,
        lambda facts: (
            f"Only {facts.free_memory / 1e9:.1f} GB of memory are free; large models may not "
            "compile, which makes placements invalid."
        ),
    ),
    (
        lambda facts: len(facts.devices) == 1,
        lambda facts: (
            f"There is one device, {facts.devices[0]}; add a second CPU instance: "
            "CPU,CPU_F32:INFERENCE_PRECISION_HINT=f32"
        ),
    ),
    (
        lambda facts: bool(facts.broken),
        lambda facts: (
            "OpenVINO lists devices that it can't load: "
            + " ".join(f"{name} ({reason})" for name, reason in facts.broken)
            + " Install their drivers."
        ),
    ),
    (
        lambda facts: facts.noise > MAX_NOISE,
        lambda facts: (
            f"Even paired measurements vary by {facts.noise:.1%}; make the machine quieter, or "
            "take more samples (--max-samples 100 --max-seconds 20)."
        ),
    ),
)


def advise(facts: Facts) -> list[str]:
    """Return advice on measuring here, the most important first; empty when all is well."""
    return [text(facts) for applies, text in RULES if applies(facts)]
