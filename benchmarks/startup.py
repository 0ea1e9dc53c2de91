"""CPU time until an environment is ready, and until the help of each command is shown.

Each task runs in child processes of its own, in turns with the other tasks; the CPU time of a
child is its user time plus its system time. Ratios are to importing Gymnasium, NumPy and OpenVINO.
Run it with::

    python -m device_placement.benchmarks.startup
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

from device_placement.agents.cli import COMMANDS
from device_placement.agents.options import POSITIONAL, OptionGroups
from device_placement.benchmarks.study import judge, print_table, progress, run

LIBRARIES = "import gymnasium, numpy, openvino"
MAKE = """\
import gymnasium
gymnasium.make("device_placement.envs:SimulatedDevicePlacement-v0", model="{model}").reset(seed=0)
"""
HELP = """\
from device_placement.agents.cli import main
main(["{command}", "--help"])
"""
IMPORTS, READY = "import libraries", "make and reset"
MAX_READY, MAX_HELP = 2.4, 2.0  # times as long as importing the libraries


@dataclass(frozen=True)
class StartupConfig:
    """Options of the study."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {POSITIONAL: ("model",)}

    model: str = "diamond"
    """Bundled model of the environment."""
    repeats: int = 5
    """Child processes per task; the first round is not counted."""
    commands: tuple[str, ...] = tuple(COMMANDS)
    """Commands whose help is timed."""


def cpu_s(code: str) -> float:
    """Run Python code in a child process and return its user and system time in seconds."""
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    user_s = after.children_user - before.children_user
    return user_s + after.children_system - before.children_system


def main(config: StartupConfig) -> int:
    """Print seconds and ratios; return 1 when a ratio is above its limit."""
    tasks = {IMPORTS: LIBRARIES, READY: MAKE.format(model=config.model)}
    tasks |= {f"{name} --help": HELP.format(command=name) for name in config.commands}
    samples_s: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(config.repeats + 1):
        progress(f"round {number} of {config.repeats}")
        for name, code in tasks.items():
            samples_s[name].append(cpu_s(code))
    median_s = {name: statistics.median(times[1:]) for name, times in samples_s.items()}
    ratio = {name: time_s / median_s[IMPORTS] for name, time_s in median_s.items()}
    rows = [("task", "CPU seconds", "ratio")]
    rows += [(name, f"{median_s[name]:.2f}", f"{ratio[name]:.2f}") for name in tasks]
    print_table(rows, right=(1, 2))
    slowest = max((name for name in tasks if name not in (IMPORTS, READY)), key=ratio.__getitem__)
    wanted = {READY: MAX_READY, slowest: MAX_HELP}
    for name, limit in wanted.items():
        print(f"{name} {judge(ratio[name] <= limit, f'a ratio of at most {limit}')}")
    return 0 if all(ratio[name] <= limit for name, limit in wanted.items()) else 1


if __name__ == "__main__":
    run(main, StartupConfig, __doc__)
