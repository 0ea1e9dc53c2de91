"""How much do measurements of one and the same placement differ, alone and under load?

It measures a random placement again and again with both protocols in turns: first on the
machine as it is, then while another process keeps one core busy in bursts. Run it with::

    python -m device_placement.benchmarks.noise
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tyro

from device_placement.agents.placers.baselines import random_assignment
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.machine import describe_machine

PROTOCOLS = ("plain", "paired")
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
class NoiseConfig:
    """What to measure."""

    model: str = "resnet50"
    """Model, as load_model takes it."""
    devices: str = "auto"
    """Devices, as everywhere."""
    repeats: int = 30
    """Measurements with each protocol in each condition."""
    seed: int = 0
    """Seed of the placement."""


@dataclass(frozen=True)
class Noise:
    """What one protocol gave in one condition, (repeats,) each."""

    times_s: list[float]
    spent_s: list[float]

    @property
    def variation(self) -> float:
        """Coefficient of variation of the times."""
        return statistics.stdev(self.times_s) / statistics.mean(self.times_s)


@contextlib.contextmanager
def load() -> Iterator[None]:
    """Another process that uses one core in bursts of up to a second, half of the time."""
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(BURSTS)]) as process:
        try:
            yield
        finally:
            process.kill()


def measure(evaluators: dict[str, Evaluator], config: NoiseConfig) -> dict[str, Noise]:
    """Measure one placement with each protocol in turns."""
    coarse = evaluators["plain"].coarse
    assignment = random_assignment(coarse, np.random.default_rng(config.seed))
    found: dict[str, Noise] = {name: Noise([], []) for name in evaluators}
    for _ in range(config.repeats):
        for name, evaluator in evaluators.items():
            start = time.perf_counter()
            found[name].times_s.append(evaluator.evaluate(assignment).time_s)
            found[name].spent_s.append(time.perf_counter() - start)
    return found


def main(config: NoiseConfig) -> int:
    """Print a line a protocol and condition."""
    print(", ".join(f"{key} {value}" for key, value in describe_machine().items()))
    print(f"{config.model} on {config.devices}, one placement {config.repeats} times\n")
    evaluators = {
        name: make_evaluator(
            config.model,
            config.devices,
            timing=name,
            remeasure=True,
            store=None,
            give_up_factor=1e9,
            confirmations=0,
        )
        for name in PROTOCOLS
    }
    for evaluator in evaluators.values():  # starts the workers and fixes the reference
        evaluator.evaluate([0] * evaluator.coarse.num_groups)
        evaluator.evaluate([1] * evaluator.coarse.num_groups)
    print(f"{'condition':<11}{'timing':<8}{'variation':>10}{'median ms':>11}{'s each':>8}")
    for condition, around in (("quiet", contextlib.nullcontext()), ("loaded", load())):
        with around:
            found = measure(evaluators, config)
        for name, noise in found.items():
            median_ms = 1e3 * statistics.median(noise.times_s)
            spent_s = statistics.median(noise.spent_s)
            numbers = f"{100 * noise.variation:>8.2f} %{median_ms:>11.3f}{spent_s:>8.2f}"
            print(f"{condition:<11}{name:<8}{numbers}", flush=True)
        ratio = found["paired"].variation / found["plain"].variation
        print(f"{condition:<11}paired varies {ratio:.2f} times as much as plain", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(NoiseConfig, description=__doc__)))
