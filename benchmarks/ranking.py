"""Placements a minute with different rules of sampling, and the decisions that they cost.

Random placements of each model are measured in three ways in turns, placement by placement:
with a flat tolerance, with one that grows with the distance from the best (the default settings),
and with the naive protocol of the field (read the model, compile, 10 runs, mean of the last 5).
The placements that either rule has among its ten fastest are then measured at length, in turns.
Of the ten that are truly fastest, the study counts the pairs that each way orders rightly, if the
true times differ by at least 5 %, and compares the winners of the two rules. Run it with::

    python -m device_placement.benchmarks.ranking

By default both devices compute in f32: so no device is far slower than the other, and what a
placement loses, it loses by being cut. ``--devices auto`` takes this machine's.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_placement.benchmarks.study import (
    LiveTable,
    ModelsConfig,
    OneModelConfig,
    measuring_each,
    run,
    timed,
)
from device_placement.envs.evaluation import single_assignments
from device_placement.envs.measuring.compare import compare, placed
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.lock import machine_lock
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.measuring.timing import median_interval
from device_placement.envs.models.loading import save_model
from device_placement.envs.placement import Placement

TWO_OF_A_KIND = "CPU:INFERENCE_PRECISION_HINT=f32,CPU_F32:INFERENCE_PRECISION_HINT=f32"
FLAT, GROWING, NAIVE = "flat", "growing", "naive"
RULES = {FLAT: MeasureConfig(tolerance_growth=0.0), GROWING: MeasureConfig()}
BATCH = 8  # programs held in memory at once
PASSES = 2  # compiles that a true time is taken over

Timer = Callable[[Sequence[int]], float]  # (num_groups,) device numbers -> seconds


@dataclass(frozen=True)
class RankingConfig(ModelsConfig):
    """Options of the study."""

    devices: str = TWO_OF_A_KIND
    """Devices, comma-separated, as for the commands."""
    placements: int = 12
    """Random placements."""
    best: int = 10
    """How many of the fastest to order."""
    difference: float = 0.05
    """Least relative difference of the true times in a pair."""
    rounds: int = 10
    """Samples of each compile of a placement for its true time."""
    seed: int = 0
    """Seed of all random choices."""


@dataclass(frozen=True)
class Found:
    """What one way of measuring found and took, (num_placements,) each."""

    times_s: list[float]
    spent_s: list[float]

    def fastest(self, number: int) -> list[int]:
        """Return the numbers of the fastest placements, in order."""
        return [int(one) for one in np.argsort(self.times_s)[:number]]


def draw_placements(evaluator: OpenVINOEvaluator, number: int, seed: int) -> list[list[int]]:
    """Draw placements, from nearly all on one device to nearly all on the other."""
    generator = np.random.default_rng(seed)
    groups = evaluator.coarse.num_groups
    shares = generator.uniform(0, 1, number)
    return [(generator.random(groups) < share).astype(int).tolist() for share in shares]


def own_timer(evaluator: OpenVINOEvaluator) -> Timer:
    """Return a timer: what the evaluator measures."""
    return lambda assignment: evaluator.evaluate(assignment).time_s


def naive_timer(evaluator: OpenVINOEvaluator, path: Path) -> Timer:
    """Return a timer: read the model, compile, run 10 times, mean seconds of the last 5."""

    def measure(assignment: Sequence[int]) -> float:
        placement = Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)
        model = evaluator.core.read_model(path)
        placement.set_affinities(model)
        compiled = evaluator.core.compile_model(model, placement.hetero_name)
        (sample,) = evaluator.samples.tensors(compiled)
        return statistics.mean([timed(compiled, sample)[1] for _ in range(10)][5:])

    return measure


def search(timers: dict[str, Timer], assignments: Sequence[Sequence[int]]) -> dict[str, Found]:
    """Measure all placements in each way, in turns; each way is the first as often.

    Waiting for others who measure on this machine is no part of what a measurement took.
    """
    found = {name: Found([], []) for name in timers}
    names = itertools.cycle(itertools.permutations(timers))
    for assignment, order in zip(assignments, names, strict=False):
        for name in order:
            with machine_lock():
                time_s, spent_s = timed(timers[name], assignment)
            found[name].times_s.append(time_s)
            found[name].spent_s.append(spent_s)
    return found


def true_ratios(
    evaluator: OpenVINOEvaluator, assignments: Mapping[int, Sequence[int]], rounds: int
) -> dict[int, list[float]]:
    """Measure at length, in turns, the ratio of each placement's time to the first single's.

    Args:
        evaluator: measures.
        assignments: (num_groups,) device numbers of each placement, by its number.
        rounds: samples of each compile.

    Returns:
        By the numbers of the placements, (`PASSES` * rounds,) ratios.
    """
    ratios: dict[int, list[float]] = {number: [] for number in assignments}
    single = next(iter(single_assignments(evaluator).values()))
    numbers = list(assignments)
    for first in [*range(0, len(numbers), BATCH)] * PASSES:
        batch = numbers[first : first + BATCH]
        named = {str(number): assignments[number] for number in batch} | {"single": single}
        entries = [placed(evaluator, name, one) for name, one in named.items()]
        found = compare(evaluator, entries, rounds=rounds, max_seconds=600.0)
        for number in batch:
            own, base = found[str(number)].samples_s, found["single"].samples_s
            ratios[number] += (np.array(own) / np.array(base)).tolist()
    return ratios


def pairs_apart(true: Mapping[int, float], best: int, difference: float) -> list[tuple[int, int]]:
    """Return the pairs of the fastest placements that differ enough, the faster one first.

    Args:
        true: the true time of each placement by its number, in any unit.
        best: how many of the fastest to pair.
        difference: least relative difference.
    """
    fastest = sorted(true, key=lambda number: true[number])[:best]
    return [
        (faster, slower)
        for faster, slower in itertools.combinations(fastest, 2)
        if true[slower] >= (1 + difference) * true[faster]
    ]


def rank(config: RankingConfig, model: str, table: LiveTable) -> None:
    """Add one line per way of measuring a model to the table, and print how the rules compare."""
    problem = OneModelConfig(model, config.devices, config.seed)
    with measuring_each(problem, RULES) as evaluators, tempfile.TemporaryDirectory() as folder:
        evaluator = evaluators[FLAT]
        path = Path(folder) / "model.xml"
        save_model(evaluator.model, path)
        timers = {name: own_timer(one) for name, one in evaluators.items()}
        assignments = draw_placements(evaluator, config.placements, config.seed)
        found = search(timers | {NAIVE: naive_timer(evaluator, path)}, assignments)
        ahead = {number for name in RULES for number in found[name].fastest(config.best)}
        chosen = {number: assignments[number] for number in sorted(ahead)}
        ratios = true_ratios(evaluator, chosen, config.rounds)
    true = {number: statistics.median(values) for number, values in ratios.items()}
    pairs = pairs_apart(true, config.best, config.difference)
    for name, way in found.items():
        right = sum(way.times_s[slower] > way.times_s[faster] for faster, slower in pairs)
        winner = min(true, key=lambda number: way.times_s[number])
        per_minute = 60 * config.placements / sum(way.spent_s)
        table.add(model, name, per_minute, f"{right} of {len(pairs)}", true[winner])
    flat, growing = found[FLAT], found[GROWING]
    faster = np.array(flat.spent_s) / np.array(growing.spent_s)
    winners = [way.fastest(1)[0] for way in (flat, growing)]
    slower = np.array(ratios[winners[1]]) / np.array(ratios[winners[0]])
    print(
        f"{model:<14}growing: {sum(flat.spent_s) / sum(growing.spent_s):.2f} times as many "
        f"placements a minute as flat, placement by placement {_interval(faster)};\n"
        f"{'':<14}its winner takes {_interval(slower)} times as long as that of flat",
        flush=True,
    )


def _interval(ratios: Sequence[float]) -> str:
    low, high = median_interval(ratios)
    return f"{np.median(ratios):.2f} ({low:.2f} - {high:.2f})"


def main(config: RankingConfig) -> int:
    """Print the placements a minute, the pairs ordered rightly and the winner of each way."""
    columns = "model:<14", "way:<9", "placements/min:>15.1f", "pairs right:>13", "winner:>9.3f"
    print(
        f"pairs: of the {config.best} fastest, those whose true times differ by at least "
        f"{config.difference:.0%}; winner: the true time of the fastest, over the first single's"
    )
    table = LiveTable(*columns)
    for model in config.models:
        rank(config, model, table)
    return 0


if __name__ == "__main__":
    run(main, RankingConfig, __doc__)
