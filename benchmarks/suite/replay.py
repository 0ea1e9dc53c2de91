"""Command `replay`: check each row, and measure its placement again beside the best single."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from device_placement.agents.runs.folder_lock import only_writer
from device_placement.benchmarks.config import ReplayConfig
from device_placement.benchmarks.suite.folder import (
    CLUSTER,
    NOT_HASHED,
    REPLAYS,
    check_problem,
    read_measuring,
    read_problems,
    read_replays,
    read_sessions,
)
from device_placement.benchmarks.suite.problems import opened
from device_placement.benchmarks.suite.results import (
    ROWS,
    Key,
    ProblemKey,
    RunRow,
    Span,
    append_lines,
    hash_of,
    latest,
    read_lines,
    read_rows,
    shortened,
)
from device_placement.benchmarks.suite.row_checks import (
    Evidence,
    bound_over,
    gather,
    wrong_claim,
    wrong_result,
)
from device_placement.benchmarks.suite.submission import broken_rules
from device_placement.benchmarks.suite.suites import MEASURED, Problem
from device_placement.envs.errors import DevicePlacementError, PlacementError, printable
from device_placement.envs.evaluation import NAN, Evaluator, single_assignments
from device_placement.envs.measuring.compare import compare, paired_ratio, placed
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.openvino_evaluator import as_measuring
from device_placement.envs.placement import check_assignment
from device_placement.envs.rendering.text import count

SAME = 1e-7  # relative: precision of a simulated speed-up as it is written
NO_SINGLE = "no single is valid, so there is nothing to compare with"
FIELDS = (
    *("suite", "problem", "placer", "seed", "reproduces", "claimed", "claimed_low"),
    *("claimed_high", "speedup", "speedup_low", "speedup_high", "failure", "row_sha256"),
)
KEY = FIELDS[:3]


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
    """Check the rows, measure the remaining winners again, and print what does not reproduce.

    Returns:
        The exit status: 0, or 1 when a row does not reproduce or a submission breaks a rule.
    """
    folder = Path(config.folder)
    if config.submission and not _keeps_rules(folder):
        return 1
    everything = latest(read_rows(str(folder / ROWS)))
    rows = [row for row in everything if not row.failure]
    if not rows:
        raise DevicePlacementError(
            f"There are no runs in {config.folder!r} to replay; give the --out of a benchmark."
        )
    with only_writer(folder):
        path = folder / REPLAYS
        if config.submission:  # what its author replayed does not count
            path.unlink(missing_ok=True)
        evidence = gather(folder, everything, read_sessions(folder))
        _replay_remaining(config, path, rows, evidence)
        outcome = read_replays(str(path))
        lines = {(*map(line.get, KEY), int(line["seed"])): line for line in read_lines(str(path))}
    wrong = [row for row in rows if not outcome[row.key].reproduces]
    hidden = [row for row in everything if row.failure and row.key in evidence.records]
    for row in wrong:
        print(_describe(lines[row.key]), file=sys.stderr)
    for row in hidden:
        print(f"{_name(row)}: its run recorded a result, not a failure", file=sys.stderr)
    if unseen := sum(row.key not in evidence.traces for row in rows):
        print(
            f"{unseen} of {len(rows)} rows have no trace here, so their bests, evaluations, bound "
            "and wall time could only be checked for contradictions"
        )
    print(f"{len(rows) - len(wrong)} of {len(rows)} rows reproduce; each is in {path}")
    return 1 if wrong or hidden else 0


def _keeps_rules(folder: Path) -> bool:
    """Print the rules that a submission breaks, and return whether it keeps all."""
    broken = broken_rules(folder)
    for sentence in broken:
        print(printable(sentence), file=sys.stderr)
    verdict = f"breaks {count(len(broken), 'rule')}" if broken else "keeps the rules"
    print(f"The submission in {folder} {verdict}.")
    return not broken


def _replay_remaining(
    config: ReplayConfig, path: Path, rows: Sequence[RunRow], evidence: Evidence
) -> None:
    """Replay the rows that were not replayed as they are now, and record the results."""
    known = read_replays(str(path))
    if any(one.row_hash == NOT_HASHED for one in known.values()):
        print("Replaying all rows, as an earlier version did not note which rows it replayed.")
        path.unlink()
        known = {}
    missing = [row for row in rows if row.key not in known or not known[row.key].is_of(row)]
    folder = path.parent
    problems, measuring = read_problems(folder), read_measuring(folder)
    chosen = {name: getattr(config, name) for name in CLUSTER}
    measuring = dataclasses.replace(measuring, **chosen)
    with tqdm(total=len(missing), unit="run") as bar:
        for (suite, name, devices), some in by_problem(missing).items():
            problem = _known_problem(problems, suite, name)
            claims = {row.key: wrong_claim(row, problem, evidence) for row in some}
            if problem.evaluator == MEASURED:  # as "auto" may differ here
                problem = dataclasses.replace(problem, devices=devices)
            check_problem(problem, folder, config.devices)
            for one in _results(problem, some, claims, evidence, measuring, config.rounds):
                append_lines(str(path), FIELDS, [_to_fields(one)])
                bar.update()


def _known_problem(problems: Mapping[ProblemKey, Problem], suite: str, name: str) -> Problem:
    if (suite, name) not in problems:
        raise DevicePlacementError(
            f"There is no problem {name!r} of the suite {suite!r} in benchmark.json; give the "
            "folder as the benchmark left it."
        )
    return problems[suite, name]


def _results(
    problem: Problem,
    rows: Sequence[RunRow],
    claims: Mapping[Key, str],
    evidence: Evidence,
    measuring: MeasureConfig,
    rounds: int,
) -> Iterator[Replay]:
    """Yield the results of the rows of one problem; measure only those whose claim may be right."""
    if problem.evaluator == MEASURED:
        yield from (Replay(row, failure=claims[row.key]) for row in rows if claims[row.key])
        rows = [row for row in rows if not claims[row.key]]
    for one in replay_problem(problem, rows, measuring, rounds, evidence) if rows else ():
        failure = one.failure or claims[one.row.key]
        yield dataclasses.replace(one, failure=failure)


def by_problem(rows: Sequence[RunRow]) -> dict[tuple[str, str, str], list[RunRow]]:
    """Return the rows by suite, problem and devices."""
    found: dict[tuple[str, str, str], list[RunRow]] = {}
    for row in rows:
        found.setdefault((row.suite, row.problem, row.devices), []).append(row)
    return found


def replay_problem(
    problem: Problem,
    rows: Sequence[RunRow],
    measuring: MeasureConfig,
    rounds: int,
    evidence: Evidence,
) -> Iterator[Replay]:
    """Replay the rows of one problem, equal placements only once; yield the results."""
    with opened(problem, dataclasses.replace(measuring, store=None, confirmations=0)) as evaluator:
        again = _measured if problem.evaluator == MEASURED else _simulated
        bound_s = math.inf if evaluator.measures else bound_over(rows, evaluator)
        made: dict[tuple[str, tuple[int, ...]], Replay] = {}
        for row in rows:
            if failure := _no_placement(row, evaluator):
                yield Replay(row, failure=failure)
                continue
            failure = wrong_result(row, evaluator, evidence)
            if row.bound_s > bound_s:
                failure = failure or "bound_ms is above the time of a placement that was found"
            if failure and evaluator.measures:
                yield Replay(row, failure=failure)
                continue
            if (key := (row.single, row.assignment)) not in made:
                made[key] = again(evaluator, row, rounds)
            one = made[key]
            yield Replay(row, one.speedup, one.interval, one.failure or failure)


def _no_placement(row: RunRow, evaluator: Evaluator) -> str:
    """Return why a row has no placement of its problem, or ""."""
    try:
        check_assignment(evaluator.coarse, np.asarray(row.assignment), len(evaluator.devices))
    except PlacementError as error:
        return str(error)
    return ""


def _simulated(evaluator: Evaluator, row: RunRow, rounds: int) -> Replay:
    del rounds  # it is the same each time
    found = evaluator.evaluate(row.assignment)
    if not found.valid:
        return Replay(row, failure=found.error)
    singles = single_assignments(evaluator)
    single_s = row.time_s
    if row.single in singles:
        single_s = evaluator.evaluate(singles[row.single]).time_s
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
    reproduces = "yes" if one.reproduces else "no"
    return *one.row.key, reproduces, *written, shortened(one.failure), hash_of(one.row)


def _describe(line: Mapping[str, str]) -> str:
    now = line["failure"] or f"{line['speedup']} ({line['speedup_low']}-{line['speedup_high']})"
    return printable(
        f"{line['placer']}, seed {line['seed']}, on {line['problem']}: {line['claimed']}x the best "
        f"single was claimed ({line['claimed_low']}-{line['claimed_high']}), now it is {now}"
    )


def _name(row: RunRow) -> str:
    return f"{row.placer}, seed {row.seed}, on {row.problem}"
