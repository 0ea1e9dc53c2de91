"""Variation of the measured time of one placement, on a quiet and on a loaded machine.

The study measures a random placement repeatedly with both protocols in turns: first on the quiet
machine, then while another process keeps one core busy in bursts. Run it with::

    python -m device_placement.benchmarks.noise
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from device_placement.benchmarks.study import (
    LiveTable,
    OneModelConfig,
    measuring_each,
    random_placements,
    run,
    timed,
)
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.measuring.config import MeasureConfig, make_measure_config

# Each measurement to its end, however slow the placement is.
WHOLE = MeasureConfig(remeasure=True, tolerance_growth=0.0, give_up_factor=1e9, confirmations=0)
PROTOCOLS = {name: make_measure_config(WHOLE, timing=name) for name in ("plain", "paired")}
BURSTS = """
    import random, time
    generator = random.Random(0)
    while True:
        end = time.perf_counter() + generator.uniform(0.05, 1.0)
        while time.perf_counter() < end:
            pass
        time.sleep(generator.uniform(0.05, 1.0))
"""


@dataclass(frozen=True)
class NoiseConfig(OneModelConfig):
    """Options of the study."""

    repeats: int = 30
    """Measurements with each protocol in each condition."""


@dataclass(frozen=True)
class Noise:
    """Seconds that one protocol measured and took in one condition, (repeats,) each."""

    times_s: list[float]
    spent_s: list[float]

    @property
    def variation(self) -> float:
        """Coefficient of variation of the times."""
        return statistics.stdev(self.times_s) / statistics.mean(self.times_s)


@contextlib.contextmanager
def load() -> Iterator[None]:
    """Run another process that uses one core in bursts of up to a second, half of the time."""
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(BURSTS)]) as process:
        try:
            yield
        finally:
            process.kill()


def measure(evaluators: Mapping[str, Evaluator], config: NoiseConfig) -> dict[str, Noise]:
    """Measure one placement with each protocol in turns."""
    (assignment,) = random_placements(evaluators["plain"].coarse, 1, config.seed)
    found: dict[str, Noise] = {name: Noise([], []) for name in evaluators}
    for _ in range(config.repeats):
        for name, evaluator in evaluators.items():
            evaluation, spent_s = timed(evaluator.evaluate, assignment)
            found[name].times_s.append(evaluation.time_s)
            found[name].spent_s.append(spent_s)
    return found


def main(config: NoiseConfig) -> int:
    """Print one line per protocol and condition."""
    columns = "condition:<11", "timing:<8", "variation:>10.2%", "median ms:>11.3f", "s each:>8.2f"
    with measuring_each(config, PROTOCOLS) as evaluators:
        table = LiveTable(*columns)
        for condition, around in (("quiet", contextlib.nullcontext()), ("loaded", load())):
            with around:
                found = measure(evaluators, config)
            for name, noise in found.items():
                medians = statistics.median(noise.times_s), statistics.median(noise.spent_s)
                table.add(condition, name, noise.variation, 1e3 * medians[0], medians[1])
            ratio = found["paired"].variation / found["plain"].variation
            print(f"{condition:<11}paired varies {ratio:.2f} times as much as plain", flush=True)
    return 0


if __name__ == "__main__":
    run(main, NoiseConfig, __doc__)
