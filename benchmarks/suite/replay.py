"""Command `replay`: measure each winning placement again, in turns with the best single device."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from device_placement.benchmarks.config import ReplayConfig
from device_placement.benchmarks.suite.folder import (
    REPLAYS,
    read_measuring,
    read_problems,
    read_replays,
)
from device_placement.benchmarks.suite.problems import opened
from device_placement.benchmarks.suite.results import (
    ROWS,
    RunRow,
    Span,
    append_lines,
    latest,
    read_lines,
    read_rows,
)
from device_placement.benchmarks.suite.suites import MEASURED, Problem
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import NAN, Evaluator, single_assignments
from device_placement.envs.measuring.compare import compare, paired_ratio, placed
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.openvino_evaluator import as_measuring

SAME = 1e-7  # relative: precision of a simulated time as it is written
NO_SINGLE = "no single is valid, so there is nothing to compare with"
FIELDS = (
    *("suite", "problem", "placer", "seed", "reproduces", "claimed", "claimed_low"),
    *("claimed_high", "speedup", "speedup_low", "speedup_high", "failure"),
)


@dataclass(frozen=True)
class Replay:
    """Result of measuring a winning placement again."""

    row: RunRow
    speedup: float = NAN  # over the best single
    interval: Span = (NAN, NAN)
    failure: str = ""  # why there is none

    @property
    def claimed(self) -> Span:
        """Interval of the speed-up, from the run's intervals of both times."""
        if not self.row.single:
            return 1.0, 1.0  # as fast as it was
        (low_s, high_s), (single_low_s, single_high_s) = (
            self.row.interval_s,
            self.row.single_interval_s,
        )
        return single_low_s / high_s, single_high_s / low_s

    @property
    def reproduces(self) -> bool:
        """Whether the two intervals overlap."""
        low, high = self.claimed
        return not self.failure and low <= self.interval[1] and self.interval[0] <= high


def replay(config: ReplayConfig) -> int:
    """Measure the remaining winners again, record them, and print what does not reproduce.

    Returns:
        The exit status: 0, or 1 when a row does not reproduce.
    """
    folder = Path(config.folder)
    rows = [row for row in latest(read_rows(str(folder / ROWS))) if not row.failure]
    if not rows:
        raise DevicePlacementError(
            f"There are no runs in {config.folder!r} to replay; give the --out of a benchmark."
        )
    path = str(folder / REPLAYS)
    known = read_replays(path)
    missing = [row for row in rows if row.key not in known]
    problems, measuring = read_problems(folder), read_measuring(folder)
    with tqdm(total=len(missing), unit="run") as bar:
        for (suite, name, devices), some in by_problem(missing).items():
            problem = problems[suite, name]
            if problem.evaluator == MEASURED:  # as "auto" may differ here
                problem = dataclasses.replace(problem, devices=devices)
            for one in replay_problem(problem, some, measuring, config.rounds):
                append_lines(path, FIELDS, [_to_fields(one)])
                bar.update()
    outcome = read_replays(path)
    wrong = [row for row in rows if not outcome[row.key]]
    for line in read_lines(path):
        if line["reproduces"] == "no":
            print(_describe(line), file=sys.stderr)
    print(f"{len(rows) - len(wrong)} of {len(rows)} rows reproduce; each is in {path}")
    return 1 if wrong else 0


def by_problem(rows: Sequence[RunRow]) -> dict[tuple[str, str, str], list[RunRow]]:
    """Return the rows by suite, problem and devices."""
    found: dict[tuple[str, str, str], list[RunRow]] = {}
    for row in rows:
        found.setdefault((row.suite, row.problem, row.devices), []).append(row)
    return found


def replay_problem(
    problem: Problem, rows: Sequence[RunRow], measuring: MeasureConfig, rounds: int
) -> Iterator[Replay]:
    """Replay the rows of one problem, equal placements only once; yield the results."""
    with opened(problem, dataclasses.replace(measuring, store=None, confirmations=0)) as evaluator:
        again = _measured if problem.evaluator == MEASURED else _simulated
        made: dict[tuple[str, tuple[int, ...]], Replay] = {}
        for row in rows:
            if (key := (row.single, row.assignment)) not in made:
                made[key] = again(evaluator, row, rounds)
            one = made[key]
            yield Replay(row, one.speedup, one.interval, one.failure)


def _simulated(evaluator: Evaluator, row: RunRow, rounds: int) -> Replay:
    del rounds  # it is the same each time
    found = evaluator.evaluate(row.assignment)
    if not found.valid:
        return Replay(row, failure=found.error)
    single_s = row.time_s
    if row.single:
        single_s = evaluator.evaluate(single_assignments(evaluator)[row.single]).time_s
    speedup = single_s / found.time_s
    return Replay(row, speedup, (speedup * (1 - SAME), speedup * (1 + SAME)))


def _measured(evaluator: Evaluator, row: RunRow, rounds: int) -> Replay:
    evaluator = as_measuring(evaluator)
    if evaluator.config.verifies:
        found = evaluator.evaluate(row.assignment)
        if not found.valid:
            return Replay(row, failure=found.error)
    if not row.single:
        return Replay(row, failure=NO_SINGLE)
    single = single_assignments(evaluator)[row.single]
    if list(row.assignment) == single:
        return Replay(row, 1.0, (1.0, 1.0))
    names = {"found": row.assignment, "single": single}
    entries = [placed(evaluator, name, assignment) for name, assignment in names.items()]
    timed = compare(evaluator, entries, rounds)
    speedup, interval = paired_ratio(timed["single"], timed["found"])
    return Replay(row, speedup, interval, timed["found"].error or timed["single"].error)


def _to_fields(one: Replay) -> tuple[object, ...]:
    numbers = (one.row.speedup, *one.claimed, one.speedup, *one.interval)
    written = ("" if math.isnan(number) else f"{number:.9g}" for number in numbers)
    return *one.row.key, "yes" if one.reproduces else "no", *written, one.failure


def _describe(line: Mapping[str, str]) -> str:
    now = line["failure"] or f"{line['speedup']} ({line['speedup_low']}-{line['speedup_high']})"
    return (
        f"{line['placer']}, seed {line['seed']}, on {line['problem']}: {line['claimed']}x the best "
        f"single was claimed ({line['claimed_low']}-{line['claimed_high']}), now it is {now}"
    )
