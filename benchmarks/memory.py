"""Does memory stay flat over many evaluations, here and in the measuring process?

Run it with::

python -m device_placement.benchmarks.memory
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import psutil
import tyro

from device_placement.agents.placers.baselines import random_assignment
from device_placement.envs.env import DevicePlacementEnv
from device_placement.envs.measuring.machine import describe_machine

LIMIT_MB = 200.0


@dataclass(frozen=True)
class MemoryConfig:
    """What to evaluate."""

    model: str = "resnet50"
    """Model, as load_model takes it."""
    devices: str = "auto"
    """Devices, as everywhere."""
    evaluations: int = 300
    """Distinct random placements to evaluate."""
    seed: int = 0
    """Seed of the placements."""


def resident_mb() -> float:
    """Resident memory of this process and of those it started, in megabytes."""
    this = psutil.Process()
    family = [this, *this.children(recursive=True)]
    return sum(float(one.memory_info().rss) for one in family) / 1e6


def memory_over_evaluations(config: MemoryConfig) -> list[float]:
    """Resident megabytes after the first reset and after each evaluation."""
    env = DevicePlacementEnv(
        config.model,
        config.devices,
        horizon=config.evaluations + 1,
        store=None,
        max_evaluations_per_worker=10 * config.evaluations,
    )
    generator = np.random.default_rng(config.seed)
    env.reset(seed=config.seed)
    readings = [resident_mb()]
    for _ in range(config.evaluations):
        env.step(np.array(random_assignment(env.coarse, generator)))
        readings.append(resident_mb())
    env.close()
    return readings


def main(config: MemoryConfig) -> int:
    """Print the readings; 1 when memory grew by more than the limit."""
    print(", ".join(f"{key} {value}" for key, value in describe_machine().items()))
    readings = memory_over_evaluations(config)
    for done in range(0, len(readings), max(1, (len(readings) - 1) // 6)):
        print(f"{config.model}: {done:>4} evaluations, resident {readings[done]:.0f} MB")
    growth = readings[-1] - readings[0]
    print(f"growth {growth:+.0f} MB, most at any time {max(readings):.0f} MB")
    return 0 if growth < LIMIT_MB else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(MemoryConfig, description=__doc__)))
