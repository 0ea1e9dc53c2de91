"""Share of pairs of placements that a measurement orders correctly, and its cost.

The study finds the true times of random placements by long measurements in turns, draws pairs
that differ by at least 5 %, and measures both of each pair again in two ways: with the default
settings, and with the naive protocol of the field (read the model, compile, 10 runs, mean of
the last 5). Run it with::

    python -m device_placement.benchmarks.ranking
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_placement.benchmarks.study import OneModelConfig, measuring_each, run, timed
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import single_assignments
from device_placement.envs.measuring.compare import compare, placed
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.models.loading import save_model
from device_placement.envs.placement import Placement

BATCH = 8  # programs held in memory at once
PASSES = 2  # compiles that a true time is taken over


@dataclass(frozen=True)
class RankingConfig(OneModelConfig):
    """Options of the study."""

    placements: int = 24
    """Random placements."""
    pairs: int = 40
    """Pairs of them to order."""
    difference: float = 0.05
    """Least relative difference of the true times in a pair."""
    rounds: int = 20
    """Samples of each compile of a placement for its true time."""


def draw_placements(evaluator: OpenVINOEvaluator, config: RankingConfig) -> list[list[int]]:
    """Draw placements, from nearly all on one device to nearly all on the other."""
    generator = np.random.default_rng(config.seed)
    groups = evaluator.coarse.num_groups
    shares = generator.uniform(0, 1, config.placements)
    return [(generator.random(groups) < share).astype(int).tolist() for share in shares]


def true_ratios(
    evaluator: OpenVINOEvaluator, assignments: Sequence[Sequence[int]], config: RankingConfig
) -> list[float]:
    """Measure at length the ratio of each placement's time to the first single's."""
    ratios: list[list[float]] = [[] for _ in assignments]
    single = next(iter(single_assignments(evaluator).values()))
    for _ in range(PASSES):
        for first in range(0, len(assignments), BATCH):
            batch = range(first, min(first + BATCH, len(assignments)))
            named = {str(number): assignments[number] for number in batch} | {"single": single}
            entries = [placed(evaluator, name, one) for name, one in named.items()]
            found = compare(evaluator, entries, rounds=config.rounds, max_seconds=600.0)
            for number in batch:
                own, base = found[str(number)].samples_s, found["single"].samples_s
                ratios[number] += (np.array(own) / np.array(base)).tolist()
    return [statistics.median(one) for one in ratios]


def draw_pairs(ratios: Sequence[float], config: RankingConfig) -> list[tuple[int, int]]:
    """Draw pairs that differ enough, the faster one first.

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
            f"Got {len(pairs)} pairs that differ by {config.difference:.0%}; {config.pairs} are "
            "needed. Take more placements or another model."
        )
    chosen = np.random.default_rng(config.seed).choice(len(pairs), config.pairs, replace=False)
    return [pairs[number] for number in chosen]


def naive_timer(evaluator: OpenVINOEvaluator, path: Path) -> Callable[[Sequence[int]], float]:
    """Return a timer: read the model, compile, run 10 times, mean seconds of the last 5."""

    def measure(assignment: Sequence[int]) -> float:
        placement = Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)
        model = evaluator.core.read_model(path)
        placement.set_affinities(model)
        compiled = evaluator.core.compile_model(model, placement.hetero_name)
        (sample,) = evaluator.samples.tensors(compiled)
        return statistics.mean([timed(compiled, sample)[1] for _ in range(10)][5:])

    return measure


def order_pairs(
    evaluator: OpenVINOEvaluator, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> None:
    """Measure pairs of placements, the faster one first, in both ways, and print the results."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        save_model(evaluator.model, path)
        ways: dict[str, Callable[[Sequence[int]], float]] = {
            "paired": lambda assignment: evaluator.evaluate(assignment).time_s,
            "naive": naive_timer(evaluator, path),
        }
        right, spent_s = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0.0)
        for faster, slower in pairs:
            for name, measure in ways.items():
                slower_s, slower_spent_s = timed(measure, slower)
                faster_s, faster_spent_s = timed(measure, faster)
                spent_s[name] += slower_spent_s + faster_spent_s
                right[name] += slower_s > faster_s
    for name in ways:
        each_s = spent_s[name] / (2 * len(pairs))
        print(f"{name:<7} {right[name]} of {len(pairs)} pairs right, {each_s:.3f} s per placement")
    print(f"paired takes {spent_s['paired'] / spent_s['naive']:.2f} times as long as naive")


def main(config: RankingConfig) -> int:
    """Print the share of pairs that each way orders correctly, and the time it took."""
    with measuring_each(config, {"paired": MeasureConfig(remeasure=True)}) as evaluators:
        evaluator = evaluators["paired"]  # knows the singles' times, as in a search
        assignments = draw_placements(evaluator, config)
        ratios = true_ratios(evaluator, assignments, config)
        pairs = draw_pairs(ratios, config)
        gaps = sorted(100 * (ratios[slower] / ratios[faster] - 1) for faster, slower in pairs)
        print(
            f"true times {min(ratios):.2f} to {max(ratios):.2f} of the first single; the pairs "
            f"differ by {gaps[0]:.1f} to {gaps[-1]:.1f} %, median {statistics.median(gaps):.1f} %"
        )
        chosen = [(assignments[faster], assignments[slower]) for faster, slower in pairs]
        order_pairs(evaluator, chosen)
    return 0


if __name__ == "__main__":
    run(main, RankingConfig, __doc__)
