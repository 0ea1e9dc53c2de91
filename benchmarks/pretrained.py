"""The pretrained placer on problems that nothing was trained on, beside other placers.

Gaps are to the best known placement of a problem: the fastest of everything evaluated here, of
neighbourhood searches, and of earlier results if they are given. Run it with::

    python -m device_placement.benchmarks.pretrained --known benchmarks/results/paper_hard/runs.csv
"""

from __future__ import annotations

import contextlib
import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_placement.agents.placers import make_placer
from device_placement.agents.placers.neighbourhoods import neighbourhood_search
from device_placement.agents.placers.pretrained.placer import (
    Pretrained,
    PretrainedPolicy,
    one_thread,
)
from device_placement.agents.placers.search_space import SearchSpace
from device_placement.benchmarks.study import judge, print_table, progress, run, timed
from device_placement.benchmarks.suite.problems import WORKLOADS, open_problem, problems_of
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.problems.config import GeneratorConfig
from device_placement.envs.problems.generator import generate_problem
from device_placement.envs.problems.seeds import VALIDATION_SEEDS
from device_placement.envs.simulation.simulator import SimulatedEvaluator, as_simulated

SUITES = ("paper", "hard")
TABLES = {"ten": ("Ten problems", SUITES), WORKLOADS: ("Workloads", (WORKLOADS,))}
SMALL_GPU = "small GPU"  # whose memory decides: an early mistake is final
FEW, MANY = 16, 64  # samples
TARGETS = {"greedily": 0.10, f"best of {MANY}": 0.05, "fine-tuned": 0.025}
BETTER_TARGET, SMALL_GPU_TARGET, SECONDS_TARGET = 8, 0.10, 0.2
REPEATS = 20  # of the timing


@dataclass(frozen=True)
class PretrainedConfig:
    """Options of the study."""

    weights: tuple[str, ...] = ("",)
    """Files of weights, one per training; default: the one in the package."""
    known: str = ""
    """A runs.csv of the suites paper and hard, whose best times count as known."""
    data: str = ""
    """Folder of workloads, as for the suite workloads; default: none."""
    seeds: int = 5
    """Runs of whatever is random."""
    budget: int = 100
    """Placements of each search, those on a single device included."""
    tables: tuple[str, ...] = ("ten", WORKLOADS)
    """Tables to make; that of workloads only with their folder."""
    patience: int = 16
    """Batches in a row without success after which the search for the best known ends."""


Times = dict[str, float]  # seconds by entrant; inf if it found nothing valid


def times_of(evaluator: SimulatedEvaluator, config: PretrainedConfig) -> Times:
    """Return the times that each entrant finds; of the random ones the mean over the seeds."""
    found = {
        "single": _searched(evaluator, "single", 1, config),
        "HEFT": _searched(evaluator, "heft", 1, config),
        "greedy": _searched(evaluator, "greedy", 1, config),
        "lookahead": _searched(evaluator, "lookahead", 1, config),
    }
    for name in ("random", "local_search", "posterior_sampling"):
        found[name] = _searched(evaluator, name, config.seeds, config)
    for weights in config.weights:
        of = label_of(weights, config)
        few, many, tuned = [], [], []
        for seed in range(config.seeds):
            policy = PretrainedPolicy.load(weights, evaluator, "auto", seed)
            with one_thread():
                times_s = evaluator.evaluate_many(policy.sample(MANY).placements)
                alone = np.array([policy.greedy(), policy.first()])
                greedily, at_once = evaluator.evaluate_many(alone).tolist()
            few.append(float(times_s[:FEW].min()))
            many.append(float(times_s.min()))
            tuned.append(Pretrained(weights).place(evaluator, config.budget, seed).time_s)
        found[f"greedily{of}"] = greedily
        found[f"at once{of}"] = at_once
        found[f"best of {FEW}{of}"] = statistics.fmean(few)
        found[f"best of {MANY}{of}"] = statistics.fmean(many)
        found[f"fine-tuned{of}"] = statistics.fmean(tuned)
    return found


def label_of(weights: str, config: PretrainedConfig) -> str:
    """Return what to add to the name of an entrant, if there are several files of weights."""
    return f", {Path(weights).stem or 'package'}" if len(config.weights) > 1 else ""


def _searched(
    evaluator: SimulatedEvaluator, placer: str, seeds: int, config: PretrainedConfig
) -> float:
    results = [make_placer(placer).place(evaluator, config.budget, one) for one in range(seeds)]
    return statistics.fmean(math.inf if not one.assignment else one.time_s for one in results)


def best_known(evaluator: SimulatedEvaluator, known_s: float, config: PretrainedConfig) -> float:
    """Return the time of the best known placement.

    Args:
        evaluator: of the problem.
        known_s: of earlier results; inf if there are none.
        config: of the study.
    """
    space = SearchSpace.of(evaluator)
    placers = ["single", "greedy", "lookahead", "stages"]
    if evaluator.schedule == "max_load":
        placers.append("contiguous")
    found = set[tuple[int, ...]]()
    for one in placers:
        with contextlib.suppress(DevicePlacementError):  # not exact for this problem
            found.add(make_placer(one).place(evaluator, config.budget, 0).assignment)
    best = known_s
    for start in found - {()}:
        _, time_s = neighbourhood_search(
            lambda choices: evaluator.evaluate_many(choices[:, space.unit]),
            np.array(start)[space.first],
            space.allowed,
            np.random.default_rng(0),
            config.patience,
        )
        best = min(best, time_s)
    return best


def read_known(path: str) -> dict[str, float]:
    """Return the least seconds of each problem in a runs.csv; none without a path."""
    found: dict[str, float] = {}
    if path:
        with Path(path).open(newline="") as file:
            for row in csv.DictReader(file):
                if row["time_ms"]:
                    time_s = float(row["time_ms"]) / 1e3
                    found[row["problem"]] = min(time_s, found.get(row["problem"], math.inf))
    return found


def gaps_of(times: Mapping[str, Times], best_s: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return the gaps to the best known, by problem and entrant."""
    return {
        problem: {name: time_s / best_s[problem] - 1 for name, time_s in found.items()}
        for problem, found in times.items()
    }


def print_gaps(gaps: Mapping[str, Mapping[str, float]], title: str) -> None:
    """Print a row per entrant and a column per problem, then the means."""
    problems = [*gaps]
    rows: list[tuple[str, ...]] = [("gap, percent", *map(str, range(1, len(problems) + 1)), "mean")]
    for name in gaps[problems[0]]:
        values = [gaps[problem][name] for problem in problems]
        rows.append((name, *map(_percent, values), _percent(_mean(values))))
    print(f"\n{title}")
    for number, problem in enumerate(problems, 1):
        print(f"{number:3} {problem}")
    print_table(rows, right=range(1, len(problems) + 2))


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the finite ones."""
    return statistics.fmean([one for one in values if math.isfinite(one)])


def _percent(gap: float) -> str:
    return f"{100 * gap:.1f}" if math.isfinite(gap) else "-"


def print_targets(gaps: Mapping[str, Mapping[str, float]], config: PretrainedConfig) -> bool:
    """Print whether the targets are reached on the ten problems; return whether all are."""
    reached = []
    others = [one for one in gaps if one != SMALL_GPU]
    for weights in config.weights:
        of = label_of(weights, config)
        print(f"\nTargets{of}")
        for name, target in TARGETS.items():
            mean = _mean([one[f"{name}{of}"] for one in gaps.values()])
            without = _mean([gaps[one][f"{name}{of}"] for one in others])
            reached.append(mean <= target)
            print(
                f"{name:>12}: mean {mean:.1%}, {judge(reached[-1], f'{target:.1%}')}; "
                f"{without:.1%} without {SMALL_GPU}"
            )
        better = sum(one[f"greedily{of}"] < one["greedy"] for one in gaps.values())
        equal = sum(one[f"greedily{of}"] == one["greedy"] for one in gaps.values())
        reached.append(better >= BETTER_TARGET)
        print(
            f"better than greedy on {better} of {len(gaps)}, equal on {equal}: "
            f"{judge(reached[-1], str(BETTER_TARGET))}"
        )
        small = gaps[SMALL_GPU][f"greedily{of}"]
        reached.append(small <= SMALL_GPU_TARGET)
        print(f"{SMALL_GPU}: {small:.1%}, {judge(reached[-1], f'{SMALL_GPU_TARGET:.0%}')}")
    return all(reached)


def print_seconds() -> bool:
    """Print the time of a zero-shot placement of 100 groups; return whether it is short enough."""
    evaluator = generate_problem(VALIDATION_SEEDS[0], GeneratorConfig(groups=(100, 100)))
    seconds = []
    for _ in range(REPEATS):
        with one_thread():
            seconds.append(
                timed(lambda: PretrainedPolicy.load("", evaluator, "auto", 0).greedy())[1]
            )
    median = statistics.median(seconds[1:])
    reached = median < SECONDS_TARGET
    print(
        f"\nZero-shot placement of 100 groups on {len(evaluator.devices)} devices, weights read "
        f"from the file: {median:.3f} s (median of {REPEATS - 1}, most {max(seconds[1:]):.3f}), "
        f"{judge(reached, f'{SECONDS_TARGET} s')}"
    )
    return reached


def main(config: PretrainedConfig) -> int:
    """Print the tables; return 1 when a target is missed."""
    known = read_known(config.known)
    reached = True
    for table in config.tables:
        title, suites = choose("table", table, TABLES)
        if table == WORKLOADS and not config.data:
            continue
        problems = {
            name: problem
            for suite in suites
            for name, problem in problems_of(suite, data=config.data).items()
        }
        times: dict[str, Times] = {}
        best_s: dict[str, float] = {}
        for name, problem in problems.items():
            evaluator = as_simulated(open_problem(problem), "this study simulates.")
            times[name] = times_of(evaluator, config)
            found_s = min(known.get(name, math.inf), *times[name].values())
            best_s[name] = best_known(evaluator, found_s, config)
            progress(name)
        gaps = gaps_of(times, best_s)
        print_gaps(gaps, title)
        if suites == SUITES:
            reached = print_targets(gaps, config)
    return int(not print_seconds() or not reached)


if __name__ == "__main__":
    run(main, PretrainedConfig, __doc__)
