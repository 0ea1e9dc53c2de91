"""Cost and decisions of a tolerance that grows with the distance from the best, simulated.

The samples are drawn, not measured, so the figures are the same on every machine: random placements
take 1.04 to 1.20 times as long as the best, as those of ResNet-50 do on two CPU instances of one
precision, and single samples vary by 6.5 %: all alike (normal), or some of them much more than the
others, as where other work runs in bursts. The default of `tolerance_growth` was chosen by these
tables. Run it with::

    python -m device_placement.benchmarks.sampling
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from device_placement.benchmarks.ranking import pairs_apart
from device_placement.benchmarks.study import LiveTable, run
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.measuring.timing import Timing, is_clearly_slower, is_precise

BURST = 4.0  # how many times as much a sample varies in a burst


@dataclass(frozen=True)
class SamplingConfig:
    """Options of the study."""

    growths: tuple[float, ...] = (0.0, 0.25, 1.0, 2.0, 4.0, 8.0, 16.0)
    """Values of tolerance_growth to compare with the first."""
    noise: float = 0.065
    """Relative standard deviation of a single sample."""
    bursts: tuple[float, ...] = (0.0, 0.2)
    """Shares of samples that vary 4 times as much as the others; a table for each."""
    pair_s: float = 0.126
    """Seconds of one sample of the best and one of the reference."""
    compile_s: float = 0.5
    """Seconds of compiling a placement."""
    slowest: float = 1.2
    """Time of the slowest placement, over the best."""
    fastest: float = 1.04
    """Time of the fastest placement, over the best."""
    placements: int = 24
    """Placements of a search."""
    best: int = 10
    """How many of the fastest are ordered."""
    difference: float = 0.05
    """Relative difference of the true times from which a pair counts."""
    lead: float = 0.02
    """How much faster than the best a new best is that must not be missed."""
    searches: int = 200
    """Simulated searches with each value."""
    seed: int = 0
    """Seed of the times and of the samples."""

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in self.bursts):
            raise DevicePlacementError(f"Got bursts={self.bursts}; they must be from 0 to 1.")
        if not 1 <= self.fastest <= self.slowest:
            raise DevicePlacementError(
                f"Got fastest={self.fastest:g} and slowest={self.slowest:g}; they must be 1 or "
                "more, fastest at most slowest."
            )


@dataclass(frozen=True)
class Outcome:
    """Searches with one tolerance growth: what they took and found."""

    num_samples: list[int]  # of each placement
    search_s: list[float]  # of each search
    right: list[bool]  # of each pair
    error: list[float]  # relative, of each placement's time
    winner: list[float]  # true time over the best, of each search


def sample(values: Sequence[float], pair_s: float, timing: Timing) -> int:
    """Return how many of the values, (max_samples,) ratios to the best, a protocol takes."""
    for number in range(1, len(values)):
        taken = values[:number]
        if is_precise(taken, timing) or is_clearly_slower(taken, timing, best=1.0):
            return number
        if number * pair_s > timing.max_seconds:
            return number
    return len(values)


def draw(
    true: float, noise: float, share: float, timing: Timing, generator: np.random.Generator
) -> list[float]:
    """Draw the samples of a placement, a share of them in bursts; their median is its true time."""
    calm = noise / np.sqrt(1 - share + share * BURST**2)
    spread = np.where(generator.random(timing.max_samples) < share, BURST * calm, calm)
    drawn = true * np.exp(spread * generator.normal(0.0, 1.0, timing.max_samples))
    return [float(value) for value in drawn]


def search(config: SamplingConfig, growth: float, share: float = 0.0) -> Outcome:
    """Simulate searches; equal seeds draw equal samples, whatever the growth."""
    timing = Timing(tolerance_growth=growth)
    generator = np.random.default_rng(config.seed)
    found = Outcome([], [], [], [], [])
    for _ in range(config.searches):
        true = generator.uniform(config.fastest, config.slowest, config.placements).tolist()
        times, spent_s = [], 0.0
        for time in true:
            pair_s = config.pair_s * (time + 1) / 2
            values = draw(time, config.noise, share, timing, generator)
            number = sample(values, pair_s, timing)
            times.append(statistics.median(values[:number]))
            found.num_samples.append(number)
            spent_s += config.compile_s + pair_s * (timing.warmup / 2 + number)
        pairs = pairs_apart(dict(enumerate(true)), config.best, config.difference)
        found.right.extend(times[slower] > times[faster] for faster, slower in pairs)
        found.error.extend(own / time - 1 for own, time in zip(times, true, strict=True))
        found.search_s.append(spent_s)
        found.winner.append(true[times.index(min(times))])
    return found


def missed(config: SamplingConfig, growth: float, share: float = 0.0) -> float:
    """Return the share of new bests that are taken for clearly slower than the best."""
    timing = Timing(tolerance_growth=growth, tolerance=0.0)
    generator = np.random.default_rng(config.seed)
    number = config.searches * config.placements
    new_best, most = 1 - config.lead, timing.max_samples
    drawn = (draw(new_best, config.noise, share, timing, generator) for _ in range(number))
    return statistics.mean(sample(values, 0.0, timing) < most for values in drawn)


def main(config: SamplingConfig) -> int:
    """Print a table for each share of bursts, with a line for each tolerance growth."""
    print(
        f"pairs right: of the {config.best} fastest, those that differ by {config.difference:.0%}; "
        "winner: its true time over the best;\n"
        f"missed: placements {config.lead:.0%} faster than the best, taken for slower"
    )
    for share in config.bursts:
        print(f"\n{share:.0%} of the samples in bursts:")
        print_table(config, share)
    return 0


def print_table(config: SamplingConfig, share: float) -> None:
    """Print one line per tolerance growth."""
    columns = "growth:>6g", "samples:>9.1f", "s each:>8.2f", "as many:>9.2f", "pairs right:>13.2%"
    table = LiveTable(*columns, "error:>8.2%", "winner:>8.3f", "missed:>8.2%")
    first_s = 0.0
    for growth in config.growths:
        found = search(config, growth, share)
        total_s = sum(found.search_s)
        first_s = first_s or total_s
        table.add(
            growth,
            statistics.mean(found.num_samples),
            total_s / len(found.num_samples),
            first_s / total_s,
            statistics.mean(found.right),
            statistics.stdev(found.error),
            statistics.mean(found.winner),
            missed(config, growth, share),
        )


if __name__ == "__main__":
    run(main, SamplingConfig, __doc__)
