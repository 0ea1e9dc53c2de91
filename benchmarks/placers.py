"""How far from the optimum does each placer end? On problems where that is known, or bounded.

Run it with::

    python -m device_placement.benchmarks.placers
"""

from __future__ import annotations

import csv
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from device_placement.agents.placers import make_placer
from device_placement.agents.placers.result import PlacerResult
from device_placement.benchmarks.suites import SUITES, Problem
from device_placement.envs.errors import choose
from device_placement.envs.execution.evaluation import single_assignments
from device_placement.envs.execution.factory import make_evaluator
from device_placement.envs.execution.machine import describe_machine
from device_placement.envs.execution.simulator import SimulatedEvaluator

SEARCHES = ("random", "local_search", "annealing", "cross_entropy", "genetic")  # with seeds
PLANNERS = ("heft", "m_etf", "stages", "automatic")  # give one placement
PROVER = "cp_sat"
FIELDS = ("problem", "placer", "seed", "time_ms", "bound_ms", "evaluations", "wall_s")


@dataclass(frozen=True)
class PlacersConfig:
    """What to compare."""

    suites: tuple[str, ...] = ("paper", "hard")
    """Suites of problems: paper, hard."""
    budget: int = 2000
    """Distinct placements of each search, singles included."""
    seeds: int = 5
    """Searches of each kind."""
    time_limit_s: float = 60.0
    """What the exact solver may take for each problem."""
    out: str = ""
    """CSV file for every run; none by default."""


@dataclass(frozen=True)
class Row:
    """One run of one placer."""

    problem: str
    placer: str
    seed: int
    result: PlacerResult


def solve(name: str, problem: Problem, config: PlacersConfig) -> list[Row]:
    """Every placer on one problem."""
    evaluator = make_evaluator(
        problem.model,
        problem.devices,
        evaluator="simulator",
        hardware=problem.hardware,
        schedule=problem.schedule,
    )
    assert isinstance(evaluator, SimulatedEvaluator)
    rows = []
    for device, single in single_assignments(evaluator).items():
        time_s = evaluator.evaluate(single).time_s
        rows.append(Row(name, device, 0, PlacerResult(tuple(single), time_s, (), 0.0)))
    runs = [(placer, 0) for placer in PLANNERS]
    runs += [(placer, seed) for placer in SEARCHES for seed in range(config.seeds)]
    for placer, seed in runs:
        found = make_placer(placer).place(evaluator, config.budget, seed)
        rows.append(Row(name, placer, seed, found))
    prover = make_placer(PROVER, time_limit_s=config.time_limit_s)
    rows.append(Row(name, PROVER, 0, prover.place(evaluator, config.budget, 0)))
    return rows


def summarise(rows: Sequence[Row]) -> dict[str, float]:
    """The median gap of each placer on one problem, to the bound that the prover gave."""
    bound_s = rows[-1].result.bound_s
    times: dict[str, list[float]] = {}
    for row in rows:
        label = "best single" if row.placer.startswith("all on ") else row.placer
        times.setdefault(label, []).append(row.result.time_s)
    singles = [one for one in times.pop("best single") if not math.isnan(one)]
    best = min(one for group in (*times.values(), singles) for one in group if not math.isnan(one))
    medians = {"best single": min(singles, default=math.nan)}
    medians |= {placer: statistics.median(group) for placer, group in times.items()}
    medians["best known"] = best
    return {label: time_s / bound_s - 1 for label, time_s in medians.items()}


def format_table(gaps: Mapping[str, Mapping[str, float]], proven: Mapping[str, bool]) -> str:
    """Markdown: a row a problem, a column a placer."""
    columns = list(next(iter(gaps.values())))
    lines = ["| problem | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in gaps.items():
        cells = ["-" if math.isnan(row[one]) else f"{100 * row[one]:.1f}" for one in columns]
        lines.append(f"| {name}{'' if proven[name] else ' †'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(config: PlacersConfig) -> int:
    """Print the table, after a line a problem."""
    print(", ".join(f"{key} {value}" for key, value in describe_machine().items()))
    print(f"{config}\n", flush=True)
    gaps, proven, kept = {}, {}, []
    for suite in config.suites:
        for name, problem in choose("suite", suite, SUITES).items():
            start = time.perf_counter()
            rows = solve(name, problem, config)
            exact = rows[-1].result
            gaps[name], proven[name] = summarise(rows), exact.proven
            kept += rows
            print(
                f"{name}: {problem}\n  {PROVER} {1e3 * exact.time_s:.4f} ms, bound "
                f"{1e3 * exact.bound_s:.4f} ms, {time.perf_counter() - start:.0f} s in all",
                flush=True,
            )
    print(f"\nMedian gap in percent to the optimum, of {config.seeds} seeds and {config.budget} ")
    print("evaluations; † to the bound, where the optimum is not proven.\n")
    print(format_table(gaps, proven))
    if config.out:
        write_csv(Path(config.out), kept)
    return 0


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write every run."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        for row in rows:
            found = row.result
            numbers = [1e3 * found.time_s, 1e3 * found.bound_s]
            texts = ["" if math.isnan(number) else f"{number:.6f}" for number in numbers]
            ends = (len(found.evaluations), f"{found.wall_s:.2f}")
            writer.writerow((row.problem, row.placer, row.seed, *texts, *ends))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(PlacersConfig, description=__doc__)))
