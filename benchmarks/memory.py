"""Growth of memory over many evaluations, here and in the measuring process.

Run it with::

    python -m device_placement.benchmarks.memory
"""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from device_placement.benchmarks.study import OneModelConfig, random_steps, run
from device_placement.envs.measuring.config import MeasureConfig

LIMIT_MB = 200.0


@dataclass(frozen=True)
class MemoryConfig(OneModelConfig):
    """Options of the study."""

    evaluations: int = 300
    """Distinct random placements to evaluate."""


def resident_mb() -> float:
    """Return the resident memory of this process and of those it started, in megabytes."""
    this = psutil.Process()
    family = [this, *this.children(recursive=True)]
    return sum(float(one.memory_info().rss) for one in family) / 1e6


def memory_over_evaluations(config: MemoryConfig) -> list[float]:
    """Return the resident megabytes after the first reset and after each evaluation."""
    one_worker = MeasureConfig(max_evaluations_per_worker=10 * config.evaluations)
    given = config.model, config.devices, config.evaluations, config.seed, one_worker
    with random_steps(*given) as (env, actions):
        readings = [resident_mb()]
        for action in actions:
            env.step(action)
            readings.append(resident_mb())
    return readings


def main(config: MemoryConfig) -> int:
    """Print the readings; return 1 when memory grew by more than the limit."""
    readings = memory_over_evaluations(config)
    for done in range(0, len(readings), max(1, (len(readings) - 1) // 6)):
        print(f"{config.model}: {done:>4} evaluations, resident {readings[done]:.0f} MB")
    growth = readings[-1] - readings[0]
    print(f"growth {growth:+.0f} MB, peak {max(readings):.0f} MB")
    return 0 if growth < LIMIT_MB else 1


if __name__ == "__main__":
    run(main, MemoryConfig, __doc__)
