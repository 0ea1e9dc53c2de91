"""What speaks against trusting a machine's measurements: facts, and advice from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MAX_LOAD = 0.3  # others' load per core
MAX_BUSY = 0.1  # share of the processor that others use
MAX_STEAL = 0.01  # share of the time that a hypervisor gives to others
MAX_NOISE = 0.03  # coefficient of variation of paired measurements
MIN_MEMORY = 2e9  # bytes: a large model, compiled a few times


@dataclass(frozen=True)
class Facts:
    """What was found out about a machine; None or NaN where it is not told."""

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
        lambda facts: "Another process is measuring right now; this one takes turns with it.",
    ),
    (
        lambda facts: facts.load_per_core > MAX_LOAD or facts.busy > MAX_BUSY,
        lambda facts: (
            f"Others keep the processor busy (load {facts.load_per_core:.2f} a core, "
            f"{facts.busy:.0%} in use now); end them, or wait until they are done."
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
            "speed with load; set it by: sudo cpupower frequency-set -g performance"
        ),
    ),
    (
        lambda facts: facts.on_battery,
        lambda facts: "The machine runs on its battery, and slower for it; plug it in.",
    ),
    (
        lambda facts: facts.usable_cores < facts.logical_cores,
        lambda facts: (
            f"This process may use {facts.usable_cores} of {facts.logical_cores} cores; times hold "
            "for these only, and are stored as such."
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
            f"There is one device, {facts.devices[0]}; a further CPU instance makes a second one: "
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
            f"Even paired measurements vary by {facts.noise:.1%}; make the machine quieter, or ask "
            "for more samples (--max-samples 100 --max-seconds 20)."
        ),
    ),
)


def advise(facts: Facts) -> list[str]:
    """What to do before measuring here, the most disturbing first; empty when all is well."""
    return [text(facts) for applies, text in RULES if applies(facts)]
