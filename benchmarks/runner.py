"""Command `benchmark`: run every placer on every problem, one row per run."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from device_placement.agents.placers import PLACERS
from device_placement.agents.runs.folder_lock import only_writer
from device_placement.benchmarks.config import ALL, BenchmarkConfig
from device_placement.benchmarks.report.scores import check_rliable
from device_placement.benchmarks.report.tables import report
from device_placement.benchmarks.suite.algorithms import (
    DETERMINISTIC,
    EVERYONE,
    SCHEDULE_OF,
    find_algorithm,
)
from device_placement.benchmarks.suite.folder import begin_session, check_budgets
from device_placement.benchmarks.suite.problems import find_suite, problems_of
from device_placement.benchmarks.suite.process_pool import Lost, run_all
from device_placement.benchmarks.suite.results import (
    ROWS,
    ProblemKey,
    RunRow,
    append_rows,
    latest,
    read_rows,
)
from device_placement.benchmarks.suite.suite_file import suite_name
from device_placement.benchmarks.suite.suites import MEASURED, Problem
from device_placement.benchmarks.suite.task import Task, run_task, trace_path
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.measuring.cluster import ClusterError
from device_placement.envs.measuring.config import make_measure_config
from device_placement.envs.rendering.text import count


def benchmark(config: BenchmarkConfig) -> int:
    """Run what is missing in the folder, then print the scores of all runs.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.

    Raises:
        DevicePlacementError: when an option is wrong, the folder can't be used, or another
            benchmark writes to it.
    """
    check_rliable()
    _check_numbers(config)
    folder = Path(config.out or f"runs/benchmark-{time.strftime('%Y%m%d-%H%M%S')}")
    problems = chosen_problems(config)
    tasks = all_tasks(config, problems, folder)
    with only_writer(folder):
        return _complete(config, folder, problems, tasks)


def _complete(
    config: BenchmarkConfig,
    folder: Path,
    problems: Mapping[ProblemKey, Problem],
    tasks: Sequence[Task],
) -> int:
    """Make the runs that a folder lacks, print the scores of all, and return the exit status."""
    path = str(folder / ROWS)
    rows = read_rows(path)
    made = {row.key: row for row in rows if not (config.retry_failed and row.failure)}
    check_budgets({task.key[:2]: task.budget for task in tasks}, rows)
    missing = [task for task in tasks if task.key not in made]
    interrupted = False
    if missing:
        measures = any(task.problem.evaluator == MEASURED for task in missing)
        with contextlib.closing(pool_of(config, measures)) as pool:
            budgets = chosen_budgets(config)
            session = begin_session(folder, config, problems, pool.machine, budgets)
            try:
                tried = {row.key for row in rows}
                begun = [
                    dataclasses.replace(one, session=session, repeated=one.key in tried)
                    for one in missing
                ]
                run_missing(begun, rows, path, config.run_limit_s, pool)
            except KeyboardInterrupt:
                interrupted = True
            except ClusterError as error:
                error.args = (f"{error} Resume with --out {folder} and the same options.",)
                raise
    known = read_rows(path)
    print(report(latest(known)))
    print(f"\n{count(len(known) - len(rows), 'run')} made; every run is in {path}")
    if interrupted:
        print(f"Interrupted; resume with --out {folder} and the same options.")
    return 130 if interrupted else 0


class Pool(Protocol):
    """Protocol of what runs the tasks of a benchmark."""

    machine: dict[str, str] | None  # that measures; None: this one
    jobs: int  # runs at a time

    def run(self, tasks: Sequence[Task], limit_s: float | None) -> Iterator[tuple[Task, RunRow]]:
        """Run tasks, and yield each with its row when it ends."""

    def close(self) -> None:
        """Release what it holds."""


class LocalPool:
    """Processes on this machine.

    Args:
        jobs: at a time.
    """

    machine: dict[str, str] | None = None

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def run(self, tasks: Sequence[Task], limit_s: float | None) -> Iterator[tuple[Task, RunRow]]:
        """Run tasks, and yield each with its row when it ends."""
        for task, found in run_all(run_task, tasks, self.jobs, limit_s):
            yield task, task.failed(found.reason) if isinstance(found, Lost) else found

    def close(self) -> None:
        """Do nothing; the processes end with the last task."""


def pool_of(config: BenchmarkConfig, measures: bool) -> Pool:
    """Return what runs the tasks: processes here, or the workers of a cluster.

    Raises:
        DevicePlacementError: when the cluster can't be used.
    """
    if not config.on:
        return LocalPool(config.jobs)
    from device_placement.benchmarks.suite.cluster_pool import ClusterPool

    return ClusterPool(config, measures)


def chosen_problems(config: BenchmarkConfig) -> dict[ProblemKey, Problem]:
    """Return the problems by suite and name.

    Raises:
        DevicePlacementError: on an unknown suite or problem, or a file that can't be used.
    """
    words = config.suite.split(",")
    names = [suite_name(word) for word in words]
    if len({*names}) < len(names):
        raise DevicePlacementError(
            f"Got --suite {config.suite}; two of the suites have the same name. Leave one out, or "
            "rename its file."
        )
    found = {
        (suite, name): problem
        for suite, word in zip(names, words, strict=True)
        for name, problem in problems_of(word, config.data, config.devices).items()
    }
    for name in config.problems:
        choose("problem", name, dict.fromkeys(one for _, one in found))
    wanted = config.problems or [name for _, name in found]
    return {(suite, name): one for (suite, name), one in found.items() if name in wanted}


def chosen_budgets(config: BenchmarkConfig) -> dict[str, int]:
    """Return the budget of each suite by name: that of the command, or the suite's own."""
    words = config.suite.split(",")
    if config.budget is not None:
        return {suite_name(word): config.budget for word in words}
    return {suite_name(word): find_suite(word).budget for word in words}


def all_tasks(
    config: BenchmarkConfig, problems: Mapping[ProblemKey, Problem], folder: Path
) -> list[Task]:
    """Return a task for every run, ordered by seed.

    Raises:
        DevicePlacementError: on an unknown placer.
    """
    given = dict.fromkeys(config.placers.split(","))
    placers = tuple(dict.fromkeys([*(EVERYONE if ALL in given else ()), *given]))
    placers = tuple(name for name in placers if name != ALL)
    for name in placers:
        if not name.isprintable():
            raise DevicePlacementError(
                f"Got {name!r} as a placer; names of placers and files are without control "
                "characters. Rename the file."
            )
        find_algorithm(name)
    measuring, budgets = make_measure_config(config), chosen_budgets(config)
    return [
        Task(
            suite,
            label,
            problem,
            placer,
            seed,
            budgets[suite],
            trace_path(folder, suite, label, placer, seed),
            measuring,
        )
        for seed in range(config.seeds)
        for placer in placers
        if seed == 0 or placer not in DETERMINISTIC
        for (suite, label), problem in problems.items()
        if placer in given or _applies(placer, problem)
    ]


def _applies(placer: str, problem: Problem) -> bool:
    """Return whether a bundled placer can solve a problem."""
    if problem.evaluator == MEASURED:
        return placer not in PLACERS or not PLACERS[placer].needs_costs
    return SCHEDULE_OF.get(placer, problem.schedule) == problem.schedule


def _check_numbers(config: BenchmarkConfig) -> None:
    for name in ("seeds", "jobs"):
        if getattr(config, name) < 1:
            raise DevicePlacementError(f"Got --{name} {getattr(config, name)}; give 1 or more.")


def run_missing(
    tasks: Sequence[Task], rows: Sequence[RunRow], path: str, limit_s: float | None, pool: Pool
) -> None:
    """Run tasks, append each row when its run ends, and show how much time is left."""
    known, left = list(rows), {task.key: task for task in tasks}
    form = "{percentage:3.0f} %|{bar}| {n_fmt} of {total_fmt} runs, {elapsed}{postfix}"
    with tqdm(total=len(tasks), bar_format=form) as bar:
        for task, row in pool.run(tasks, limit_s):
            append_rows(path, [row])
            known.append(row)
            del left[task.key]
            left_s = time_left_s(list(left.values()), known, pool.jobs)
            about = "" if math.isnan(left_s) else f"about {tqdm.format_interval(int(left_s))} left"
            ended = f"{task.placer} on {task.name}"
            ended += ": failed" if row.failure else ""
            bar.set_postfix_str(f"{about}; {ended}", refresh=False)
            bar.update()


def time_left_s(tasks: Sequence[Task], rows: Sequence[RunRow], jobs: int) -> float:
    """Estimate how long tasks take, from runs of the same placer, if possible on that problem.

    Returns:
        Seconds; NaN if no run has been timed.
    """
    walls: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if not math.isnan(row.wall_s):
            for level in ((row.placer, row.suite, row.problem), (row.placer,), ()):
                walls.setdefault(level, []).append(row.wall_s)
    if not walls:
        return math.nan
    total_s = 0.0
    for task in tasks:
        levels = ((task.placer, task.suite, task.name), (task.placer,), ())
        total_s += statistics.mean(next(walls[level] for level in levels if level in walls))
    return total_s / jobs
