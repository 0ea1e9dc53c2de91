"""Command `doctor`: report devices, versions and timing noise, and advise how to measure well."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import psutil

from device_placement.agents.commands.config import DoctorConfig
from device_placement.agents.commands.machine_facts import (
    UNKNOWN,
    Facts,
    frequency,
    gather_facts,
    power_source,
)
from device_placement.envs.arrays import Float64
from device_placement.envs.devices import (
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
from device_placement.envs.measuring.machine import describe_machine
from device_placement.envs.measuring.store import default_path
from device_placement.envs.measuring.timing import relative_samples
from device_placement.envs.models.loading import load_model
from device_placement.envs.rendering.text import align

CHUNK = 6  # samples in one measurement, whose medians are compared
SLOW_PLANS = {  # of Windows, by GUID; their names are in the user's language
    "381b4222-f694-41f0-9685-ff5bb260df2e": "Balanced",
    "a1841308-3541-4fab-bc81-f71556f20b4a": "Power saver",
}


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


def slow_plan(printed: str) -> str:
    """Return the name of a power plan that limits the speed; empty for others.

    >>> slow_plan("Power Scheme GUID: 381b4222-f694-41f0-9685-ff5bb260df2e  (Ausbalanciert)")
    'Balanced'
    """
    return next((name for guid, name in SLOW_PLANS.items() if guid in printed.lower()), "")


def ranges(cores: Sequence[int]) -> str:
    """Return sorted numbers as text.

    >>> ranges([0, 1, 2, 5])
    '0-2,5'
    """
    runs: list[list[int]] = []
    for core in cores:
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _most_of(taken: Sequence[int]) -> str:
    """Return the part of a sentence that names the cores that others use."""
    return f", most of core{'s' if len(taken) > 1 else ''} {ranges(taken)}" if taken else ""


def _state(facts: Facts) -> list[tuple[str, str]]:
    store = default_path()
    size = f"{store.stat().st_size / 1e6:.1f} MB" if store.exists() else "does not exist yet"
    physical = psutil.cpu_count(logical=False) or UNKNOWN
    usable = f"{len(facts.usable)} usable ({ranges(facts.usable)})"
    cores = f"{usable} of {facts.logical_cores} logical, {physical} physical"
    return [
        ("cores", cores),
        ("efficiency cores", ranges(facts.slow_cores) or "none known"),
        ("in use now", f"{facts.busy:.0%} of the usable cores{_most_of(facts.taken)}"),
        ("governor", ", ".join(sorted(set(facts.governors))) or UNKNOWN),
        ("frequency", frequency()),
        ("power", power_source()),
        *([("power plan", facts.power_plan)] if facts.power_plan else []),
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


MAX_BUSY = 0.1  # share of the usable cores that others use
MAX_STEAL = 0.01  # share of the time that a hypervisor gives to others
MAX_NOISE = 0.03  # coefficient of variation of paired measurements
MIN_MEMORY = 2e9  # bytes: a large model, compiled a few times


Rule = tuple[Callable[[Facts], bool], Callable[[Facts], str]]

RULES: tuple[Rule, ...] = (
    (
        lambda facts: facts.measuring,
        lambda facts: "Another process is measuring now; measurements of both will take turns.",
    ),
    (
        lambda facts: facts.busy > MAX_BUSY or bool(facts.taken),
        lambda facts: (
            f"Other processes use {facts.busy:.0%} of the cores that this one may use "
            f"({ranges(facts.usable)}){_most_of(facts.taken)}; stop them, wait until they finish, "
            "or bind this process to other cores."
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
        lambda facts: bool(slow_plan(facts.power_plan)),
        lambda facts: (
            f"The power plan is {slow_plan(facts.power_plan)}, which changes speed with load; "
            "choose best performance in the power settings."
        ),
    ),
    (
        lambda facts: 0 < len(facts.slow_cores) < len(facts.usable),
        lambda facts: (
            f"{len(facts.slow_cores)} of the {len(facts.usable)} usable cores are efficiency "
            "cores, and times depend on which cores run what; name the CPU as "
            "CPU:SCHEDULING_CORE_TYPE=PCORE_ONLY."
        ),
    ),
    (
        lambda facts: facts.on_battery,
        lambda facts: "The machine runs on battery power, which slows it down; plug it in.",
    ),
    (
        lambda facts: len(facts.usable) < facts.logical_cores,
        lambda facts: (
            f"This process may use {len(facts.usable)} of {facts.logical_cores} cores "
            f"({ranges(facts.usable)}); times hold for these cores only and are stored separately."
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
