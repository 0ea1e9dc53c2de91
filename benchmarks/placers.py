"""How far from the optimum does each search end? On problems where that is known, or bounded.

Every placer and every preset, on the same problems, with the same budget. Run it with::

    python -m device_placement.benchmarks.placers --out placers.csv

Runs that the file has already are not made again, so that it can be stopped and called again,
or with more seeds or searches.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

import tyro

from device_placement.agents.learner import named_search
from device_placement.agents.presets import PRESETS
from device_placement.benchmarks.csv_file import append_lines, read_lines
from device_placement.benchmarks.gaps import (
    Row,
    Scores,
    format_table,
    gap_cell,
    improvements_of,
    is_single,
)
from device_placement.benchmarks.suites import SUITES
from device_placement.envs.errors import choose
from device_placement.envs.execution.evaluation import single_assignments
from device_placement.envs.execution.factory import make_evaluator
from device_placement.envs.execution.machine import describe_machine
from device_placement.envs.execution.simulator import SimulatedEvaluator

SINGLES = "singles"
PLANNERS = ("heft", "m_etf", "stages", "automatic")  # give one placement
SEARCHES = (
    "random",
    "local_search",
    "annealing",
    "cross_entropy",
    "genetic",
    "posterior_sampling",
)
PROVER = "cp_sat"
FIELDS = ("problem", "placer", "seed", "time_ms", "bound_ms", "evaluations", "wall_s", "bests_ms")
Key = tuple[str, str, int]  # problem, search, seed


@dataclass(frozen=True)
class PlacersConfig:
    """What to compare."""

    suites: tuple[str, ...] = ("paper", "hard")
    """Suites of problems: paper, hard."""
    searches: tuple[str, ...] = (*PLANNERS, *SEARCHES, *PRESETS, PROVER)
    """Names of placers and presets."""
    budget: int = 2000
    """Distinct placements of each search, singles included."""
    early: int = 500
    """Evaluations after which the gap is shown as well."""
    seeds: int = 5
    """Runs of each search that has something random."""
    time_limit_s: float = 60.0
    """What the exact solver may take for each problem."""
    jobs: int = 1
    """Runs at the same time, each on one core."""
    out: str = ""
    """CSV file for every run, which is gone on with; none by default."""


def run_one(key: Key, config: PlacersConfig) -> list[Row]:
    """One run; of the singles a row each."""
    import torch

    torch.set_num_threads(1)
    problem, name, seed = key
    evaluator = _evaluator_of(problem, config)
    if name == SINGLES:
        rows = []
        for label, single in single_assignments(evaluator).items():
            bests = improvements_of([evaluator.evaluate(single).time_s])
            rows.append(Row(problem, label, 0, math.nan, 1, 0.0, bests))
        return rows
    options = {"time_limit_s": config.time_limit_s} if name == PROVER else {}
    found = named_search(name, **options).place(evaluator, config.budget, seed)
    bests = improvements_of([time_s for _, time_s in found.evaluations])
    return [Row(problem, name, seed, found.bound_s, len(found.evaluations), found.wall_s, bests)]


def _evaluator_of(name: str, config: PlacersConfig) -> SimulatedEvaluator:
    (problem,) = (SUITES[suite][name] for suite in config.suites if name in SUITES[suite])
    evaluator = make_evaluator(
        problem.model,
        problem.devices,
        evaluator="simulator",
        hardware=problem.hardware,
        schedule=problem.schedule,
    )
    assert isinstance(evaluator, SimulatedEvaluator)
    return evaluator


def all_keys(config: PlacersConfig) -> list[Key]:
    """Every run, the first seeds first."""
    problems = [name for suite in config.suites for name in choose("suite", suite, SUITES)]
    keys = [(problem, SINGLES, 0) for problem in problems]
    for seed in range(config.seeds):
        for name in config.searches:
            if seed == 0 or name not in (*PLANNERS, PROVER):
                keys += [(problem, name, seed) for problem in problems]
    return keys


def _key_of(row: Row) -> Key:
    return row.problem, SINGLES if is_single(row) else row.placer, row.seed


def run_all(keys: Sequence[Key], config: PlacersConfig) -> Iterator[list[Row]]:
    """The rows of each run, as the runs end."""
    if config.jobs == 1:
        yield from (run_one(key, config) for key in keys)
        return
    with ProcessPoolExecutor(config.jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run_one, key, config) for key in keys]):
            yield future.result()


def read_rows(path: str) -> list[Row]:
    """The rows that a file has; none when there is no file."""
    return [_from_fields(line) for line in read_lines(path)]


def _from_fields(fields: dict[str, str]) -> Row:
    pairs = [one.split(":") for one in fields["bests_ms"].split()]
    return Row(
        problem=fields["problem"],
        placer=fields["placer"],
        seed=int(fields["seed"]),
        bound_s=1e-3 * float(fields["bound_ms"] or math.nan),
        evaluations=int(fields["evaluations"]),
        wall_s=float(fields["wall_s"]),
        improvements=tuple((int(number), 1e-3 * float(time_ms)) for number, time_ms in pairs),
    )


def append_rows(path: str, rows: Sequence[Row]) -> None:
    """Write rows behind those of the file, which is made when there is none."""
    append_lines(path, FIELDS, map(_to_fields, rows))


def _to_fields(row: Row) -> tuple[object, ...]:
    times = ["" if math.isnan(one) else f"{1e3 * one:.9g}" for one in (row.time_s, row.bound_s)]
    bests = " ".join(f"{number}:{1e3 * one:.9g}" for number, one in row.improvements)
    return row.problem, row.placer, row.seed, *times, row.evaluations, f"{row.wall_s:.2f}", bests


def report(scores: Scores, config: PlacersConfig) -> str:
    """The tables, in Markdown."""
    notes = {one: "" if scores.proven(one) else " †" for one in scores.problems}

    def gaps(evaluations: int) -> str:
        return format_table(
            scores,
            lambda problem, name: gap_cell(scores.gaps(problem, name, evaluations)),
            notes,
        )

    def soon(problem: str, name: str) -> str:
        numbers = [scores.evaluations_within(problem, name, gap) for gap in (0.05, 0.01)]
        walls = [row.wall_s for row in scores.of(problem, name)] or [math.nan]
        counts = ["-" if not math.isfinite(one) else f"{one:.0f}" for one in numbers]
        return f"{counts[0]} / {counts[1]} / {sorted(walls)[len(walls) // 2]:.0f} s"

    return "\n\n".join(
        [
            f"Gap in percent to the optimum after {config.budget} evaluations: median and, where "
            "they differ, quartiles.\n† to the bound, where the optimum is not proven.",
            gaps(config.budget),
            f"The same after {config.early}.",
            gaps(config.early),
            "Evaluations until within 5 % / within 1 % (medians; -: not in half of the runs) / "
            "wall time of a run.",
            format_table(scores, soon, notes),
        ]
    )


def main(config: PlacersConfig) -> int:
    """Make the runs that are missing, and print the tables."""
    print(", ".join(f"{key} {value}" for key, value in describe_machine().items()))
    print(f"{config}\n", flush=True)
    for name in config.searches:
        named_search(name)
    rows = read_rows(config.out)
    made = {_key_of(row) for row in rows}
    missing = [key for key in all_keys(config) if key not in made]
    start = time.perf_counter()
    for number, new in enumerate(run_all(missing, config), start=1):
        rows += new
        if config.out:
            append_rows(config.out, new)
        passed_s = time.perf_counter() - start
        left_s = passed_s / number * (len(missing) - number)
        row = new[-1]
        print(
            f"{number}/{len(missing)} {row.problem}, {row.placer}, seed {row.seed}: "
            f"{1e3 * row.time_s:.4f} ms, {row.wall_s:.0f} s; {left_s / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )
    places = {key: place for place, key in enumerate(all_keys(config))}
    rows.sort(key=lambda row: places.get(_key_of(row), len(places)))
    print(report(Scores(rows), config))
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(PlacersConfig, description=__doc__)))
