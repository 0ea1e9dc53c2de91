"""Does the default measurement order two placements rightly, and what does it cost?

It finds the true times of random placements by long measurements in turns, draws pairs that
differ by at least 5 %, and measures both of each pair anew in two ways: with the default
settings, and with the naive protocol of the field (read the model, compile, 10 runs, mean of
the last 5). Run it with::

    python -m device_placement.benchmarks.ranking
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import single_assignments
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.bench import Entry
from device_placement.envs.measuring.compare import Contender, compare
from device_placement.envs.measuring.machine import describe_machine
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.measuring.program import seeded_inputs
from device_placement.envs.models.loading import save_model
from device_placement.envs.placement import Placement

BATCH = 8  # programs held in memory at once
PASSES = 2  # compiles that a true time is taken over


@dataclass(frozen=True)
class RankingConfig:
    """What to order."""

    model: str = "resnet50"
    """Model, as load_model takes it."""
    devices: str = "auto"
    """Devices, as everywhere."""
    placements: int = 24
    """Random placements."""
    pairs: int = 40
    """Pairs of them to order."""
    difference: float = 0.05
    """Least relative difference of the true times in a pair."""
    rounds: int = 20
    """Samples of each compile of a placement for its true time."""
    seed: int = 0
    """Seed of placements and pairs."""


def draw_placements(evaluator: OpenVINOEvaluator, config: RankingConfig) -> list[list[int]]:
    """Random placements, from nearly all on one device to nearly all on the other."""
    generator = np.random.default_rng(config.seed)
    groups = evaluator.coarse.num_groups
    shares = generator.uniform(0, 1, config.placements)
    return [(generator.random(groups) < share).astype(int).tolist() for share in shares]


def true_ratios(
    evaluator: OpenVINOEvaluator, assignments: Sequence[Sequence[int]], config: RankingConfig
) -> list[float]:
    """The time of each placement over that of the first single, by long measurement."""
    ratios: list[list[float]] = [[] for _ in assignments]
    single = next(iter(single_assignments(evaluator).values()))
    for _ in range(PASSES):
        for first in range(0, len(assignments), BATCH):
            batch = range(first, min(first + BATCH, len(assignments)))
            named = {str(number): assignments[number] for number in batch} | {"single": single}
            entries = [Contender(name, _entry(evaluator, one)) for name, one in named.items()]
            found = compare(evaluator, entries, rounds=config.rounds, max_seconds=600.0)
            for number in batch:
                own, base = found[str(number)].samples_s, found["single"].samples_s
                ratios[number] += (np.array(own) / np.array(base)).tolist()
    return [statistics.median(one) for one in ratios]


def draw_pairs(ratios: Sequence[float], config: RankingConfig) -> list[tuple[int, int]]:
    """Random pairs that differ enough, the faster one first.

    Raises:
        DevicePlacementError: when there are too few.
    """
    order = np.argsort(ratios).tolist()
    pairs = [
        (faster, slower)
        for index, faster in enumerate(order)
        for slower in order[index + 1 :]
        if ratios[slower] >= (1 + config.difference) * ratios[faster]
    ]
    if len(pairs) < config.pairs:
        raise DevicePlacementError(
            f"Only {len(pairs)} pairs differ by {config.difference:.0%}, not {config.pairs}; take "
            "more placements or another model."
        )
    chosen = np.random.default_rng(config.seed).choice(len(pairs), config.pairs, replace=False)
    return [pairs[number] for number in chosen]


def naive_timer(evaluator: OpenVINOEvaluator, path: Path) -> Callable[[Sequence[int]], float]:
    """Read the model, compile, run 10 times, mean of the last 5; in seconds."""

    def measure(assignment: Sequence[int]) -> float:
        placement = Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)
        model = evaluator.core.read_model(path)
        placement.set_affinities(model)
        compiled = evaluator.core.compile_model(model, placement.hetero_name)
        inputs, times = seeded_inputs(compiled), []
        for _ in range(10):
            start = time.perf_counter()
            compiled(inputs)
            times.append(time.perf_counter() - start)
        return statistics.mean(times[5:])

    return measure


def main(config: RankingConfig) -> int:
    """Print what share of the pairs each way orders rightly, and the time it took."""
    print(", ".join(f"{key} {value}" for key, value in describe_machine().items()))
    print(f"{config}\n", flush=True)
    evaluator = make_evaluator(config.model, config.devices, remeasure=True, store=None)
    assert isinstance(evaluator, OpenVINOEvaluator)
    for single in single_assignments(evaluator).values():  # the best so far, as in a search
        evaluator.evaluate(single)
    assignments = draw_placements(evaluator, config)
    ratios = true_ratios(evaluator, assignments, config)
    pairs = draw_pairs(ratios, config)
    gaps = sorted(ratios[slower] / ratios[faster] - 1 for faster, slower in pairs)
    print(
        f"true times {min(ratios):.2f} to {max(ratios):.2f} of the first single; the pairs differ "
        f"by {100 * gaps[0]:.1f} to {100 * gaps[-1]:.1f} %, median "
        f"{100 * statistics.median(gaps):.1f} %"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        save_model(evaluator.model, path)
        naive = naive_timer(evaluator, path)
        ways: dict[str, Callable[[Sequence[int]], float]] = {
            "paired": lambda assignment: evaluator.evaluate(assignment).time_s,
            "naive": naive,
        }
        right, spent_s = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0.0)
        for faster, slower in pairs:
            for name, measure in ways.items():
                start = time.perf_counter()
                times = measure(assignments[slower]), measure(assignments[faster])
                spent_s[name] += time.perf_counter() - start
                right[name] += times[0] > times[1]
    for name in ways:
        each_s = spent_s[name] / (2 * len(pairs))
        print(f"{name:<7} {right[name]} of {len(pairs)} pairs right, {each_s:.3f} s a placement")
    print(f"paired takes {spent_s['paired'] / spent_s['naive']:.2f} times as long as naive")
    return 0


def _entry(evaluator: OpenVINOEvaluator, assignment: Sequence[int]) -> Entry:
    placement = Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)
    return Entry(placement.hetero_name, bytes(placement.op_devices))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(RankingConfig, description=__doc__)))
