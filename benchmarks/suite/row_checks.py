"""Checks of a result row: against itself, the call that made it, its problem and its trace."""

from __future__ import annotations

import calendar
import gzip
import math
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from device_placement.agents.runs.recording import MAX_LINE, read_entry
from device_placement.benchmarks.config import ALL
from device_placement.benchmarks.suite.algorithms import EVERYONE
from device_placement.benchmarks.suite.results import Key, ProblemKey, RunRow, Span, fields_of
from device_placement.benchmarks.suite.suites import MEASURED, SUITES, Problem
from device_placement.benchmarks.suite.task import find_traces, record_path, trace_path
from device_placement.envs.devices import parse_devices
from device_placement.envs.evaluation import Evaluation, Evaluator, single_assignments
from device_placement.envs.untrusted import read_json

SAME = 1e-8  # relative: precision of a time as it is written
PROVEN = 1e-6  # relative: by how much a bound of a solver may exceed the optimum
CLOCK_S = 2.0  # by how much two clocks may differ
UNREADABLE = (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError)
MAX_TRACE = 1 << 30  # bytes of a trace that are read
Trace = Mapping[tuple[int, ...], Evaluation]  # placements and evaluations in order


@dataclass(frozen=True)
class Evidence:
    """What a folder knows about its runs beside their rows."""

    sessions: Sequence[Mapping[str, Any]]
    """The calls that made them."""
    traces: Mapping[Key, Path]
    """Packed traces."""
    records: Mapping[Key, Path]
    """Rows as the runs made them."""
    complete: bool
    """Whether the folder has traces at all, so that a missing one means something."""
    devices: Mapping[int, str]
    """Devices of the measured runs, by session: those of most of them, where any is found."""


def gather(folder: Path, rows: Sequence[RunRow], sessions: Sequence[Mapping[str, Any]]) -> Evidence:
    """Find the evidence of a folder for its rows."""
    keys = [row.key for row in rows]
    own = {key: record_path(trace_path(folder, *key)) for key in keys}
    found = {key: path for key, path in own.items() if path.is_file()}
    problems = {
        (number, suite, name): Problem(**fields)
        for number, session in enumerate(sessions)
        for suite, name, fields in session["problems"]
    }
    chosen: dict[int, Counter[str]] = {}
    for row in rows:
        problem = problems.get((row.session, row.suite, row.problem))
        if not row.failure and problem is not None and _finds_devices(problem):
            chosen.setdefault(row.session, Counter())[row.devices] += 1
    return Evidence(
        sessions,
        find_traces(folder, keys),
        found,
        (folder / "traces").is_dir(),
        {number: counts.most_common(1)[0][0] for number, counts in chosen.items()},
    )


def _finds_devices(problem: Problem) -> bool:
    return problem.evaluator == MEASURED and problem.devices == "auto"


def wrong_claim(row: RunRow, problem: Problem, evidence: Evidence) -> str:
    """Return what is wrong with a row, as far as that is known without its evaluator; or ""."""
    return (
        _contradiction(row)
        or _wrong_session(row, evidence.sessions)
        or _wrong_devices(row, problem, evidence)
        or _wrong_record(row, evidence.records.get(row.key))
        or _missing_trace(row, evidence)
    )


def wrong_result(row: RunRow, evaluator: Evaluator, evidence: Evidence) -> str:
    """Return what is wrong with a row, given the evaluator of its problem and its trace; or ""."""
    devices = ",".join(map(str, evaluator.devices))
    if row.groups != evaluator.coarse.num_groups or row.devices != devices:
        return (
            f"it has {row.groups} groups on {row.devices}, its problem "
            f"{evaluator.coarse.num_groups} on {devices}"
        )
    if row.single and row.single not in single_assignments(evaluator):
        return f"its problem has no single {row.single!r}"
    wrong = "" if evaluator.measures else _wrong_times(row, evaluator)
    if wrong or row.key not in evidence.traces:
        return wrong
    try:
        trace = read_trace(evidence.traces[row.key], row.evaluations)
    except UNREADABLE as error:
        return f"its trace can't be read: {type(error).__name__} {error}"
    return _wrong_with_trace(row, trace, evaluator)


def read_trace(path: Path, limit: int) -> Trace:
    """Read a packed trace, up to more than a number of distinct placements.

    Raises:
        ValueError: when it holds something else; also what `read_entry` and gzip raise.
    """
    found: dict[tuple[int, ...], Evaluation] = {}
    left = MAX_TRACE
    with gzip.open(path) as file:
        while len(found) <= limit and (line := file.readline(MAX_LINE)):
            left -= len(line)
            if left < 0:
                raise ValueError(f"it is longer than {MAX_TRACE >> 20} MiB, unpacked")
            _, key, evaluation = read_entry(line)
            if key in found and not found[key].transient:
                raise ValueError("it has a placement twice")
            found[key] = evaluation
    return found


def bound_over(rows: Iterable[RunRow], evaluator: Evaluator) -> float:
    """Return the largest bound that can be right: the time of the best placement in any row."""
    found = [evaluator.evaluate(row.assignment) for row in rows]
    times = [one.time_s for one in found if one.valid]
    return min(times, default=math.inf) * (1 + PROVEN)


def _contradiction(row: RunRow) -> str:
    times = [time_s for _, time_s in row.improvements]
    numbers = [number for number, _ in row.improvements]
    spans = [("time_ms", row.time_s, row.interval_s)]
    if row.single:
        spans.append(("single_ms", row.single_s, row.single_interval_s))
    for name, time_s, (low_s, high_s) in spans:
        if not low_s * (1 - SAME) <= time_s <= high_s * (1 + SAME):
            return f"{name} is outside of its interval"
    if len(row.assignment) != row.groups:
        return f"it places {len(row.assignment)} groups of {row.groups}"
    if not times or not same(times[-1], row.time_s):
        return "time_ms is not the last of bests_ms"
    steps = (*pairwise(numbers), (0, numbers[0]))
    if any(one >= two for one, two in steps) or any(one < two for one, two in pairwise(times)):
        return "bests_ms do not improve one after another"
    if not numbers[-1] <= row.evaluations <= row.budget:
        return f"{row.evaluations} evaluations do not fit its bests_ms and its budget"
    if row.bound_s > row.time_s * (1 + PROVEN):
        return "bound_ms is above its time"
    return ""


def _wrong_session(row: RunRow, sessions: Sequence[Mapping[str, Any]]) -> str:
    if row.session >= len(sessions):
        return f"it is of call {row.session}, and there are {len(sessions)} in benchmark.json"
    session = sessions[row.session]
    settings = session["settings"]
    if (row.suite, row.problem) not in _problems_of(session):
        return f"its call did not run {row.problem!r}"
    budget = budget_of(session, row.suite)
    if budget not in (None, row.budget):
        return f"its budget is {row.budget}, that of its call {budget}"
    if row.seed >= settings.get("seeds", math.inf):
        return f"its call did not run the seed {row.seed}"
    placers = settings.get("placers", row.placer).split(",")
    if row.placer not in placers and not (ALL in placers and row.placer in EVERYONE):
        return f"its call did not run {row.placer}"
    if row.wall_s > min(_longest_s(session), settings.get("run_limit_s") or math.inf):
        return f"it took {row.wall_s:g} s, longer than its call allowed or has been since"
    return ""


def budget_of(session: Mapping[str, Any], suite: str) -> int | None:
    """Return the budget of a call for a suite; None if it is not known."""
    given = session["settings"].get("budget")
    usual = SUITES[suite].budget if suite in SUITES else None
    found: int | None = session.get("budgets", {}).get(suite, usual) if given is None else given
    return found


def _problems_of(session: Mapping[str, Any]) -> set[ProblemKey]:
    return {(suite, name) for suite, name, _ in session["problems"]}


def _longest_s(session: Mapping[str, Any]) -> float:
    """Return how long a run of a session may have taken, as it ended before now."""
    try:
        started = time.strptime(session["started"], "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return math.inf
    return time.time() - calendar.timegm(started) + CLOCK_S


def _wrong_devices(row: RunRow, problem: Problem, evidence: Evidence) -> str:
    if problem.evaluator != MEASURED:
        return ""
    expected = evidence.devices.get(row.session, row.devices)
    if not _finds_devices(problem):
        expected = ",".join(map(str, parse_devices(problem.devices)))
    if row.devices != expected:
        return f"its devices are {row.devices}, those of its call {expected}"
    return ""


def _wrong_record(row: RunRow, record: Path | None) -> str:
    if record is None:
        return ""
    try:
        made = dict(read_json(record))
    except (OSError, ValueError, TypeError) as error:
        return f"its record can't be read: {type(error).__name__} {error}"
    differing = [name for name, text in fields_of(row).items() if made.get(name) != text]
    if differing:
        return f"{', '.join(differing)} changed since the run ended"
    return ""


def _missing_trace(row: RunRow, evidence: Evidence) -> str:
    if evidence.complete and row.key not in evidence.traces:
        return "it has no trace of its own, as runs in this folder have"
    return ""


def _wrong_times(row: RunRow, evaluator: Evaluator) -> str:
    """Compare simulated times, which are the same each time."""
    singles = single_assignments(evaluator)
    found = {name: evaluator.evaluate(one) for name, one in singles.items()}
    return _wrong_best(row, evaluator.evaluate(row.assignment), found)


def _wrong_best(row: RunRow, best: Evaluation, singles: Mapping[str, Evaluation]) -> str:
    """Compare the row with the evaluations of its placement and of the singles."""
    if not _agrees(best, row.time_s, row.interval_s):
        return f"time_ms or its interval is not that of its placement, {1e3 * best.time_s:.9g}"
    valid = {name: one for name, one in singles.items() if one.valid}
    if bool(row.single) != bool(valid):
        return f"it has the single {row.single!r}; {len(valid)} are valid"
    if valid:
        fastest = min(valid.values(), key=lambda one: one.time_s)
        stated = valid.get(row.single, fastest)
        if not (same(stated.time_s, fastest.time_s) and row.single in valid):
            return f"{row.single!r} is not the fastest single"
        if not _agrees(stated, row.single_s, row.single_interval_s):
            return f"single_ms or its interval is not that of it, {1e3 * stated.time_s:.9g}"
    return ""


def _agrees(found: Evaluation, time_s: float, interval_s: Span) -> bool:
    pairs = zip((found.time_s, *found.interval_s), (time_s, *interval_s), strict=True)
    return found.valid and all(same(one, two) for one, two in pairs)


def _wrong_with_trace(row: RunRow, trace: Trace, evaluator: Evaluator) -> str:
    if len(trace) != row.evaluations:
        more = "more" if len(trace) > row.evaluations else len(trace)
        return f"it has {row.evaluations} evaluations, its trace {more}"
    if row.assignment not in trace:
        return "its trace does not have its placement"
    singles = {name: tuple(one) for name, one in single_assignments(evaluator).items()}
    known = {name: trace[one] for name, one in singles.items() if one in trace}
    return (
        _wrong_best(row, trace[row.assignment], known)
        or _wrong_bests(row, trace, {*singles.values()}, evaluator)
        or _wrong_wall(row, trace, {*singles.values()})
    )


def _wrong_bests(
    row: RunRow, trace: Trace, singles: set[tuple[int, ...]], evaluator: Evaluator
) -> str:
    """Compare the new bests with the trace; the placer need not have requested the singles."""
    if math.isnan(row.wall_s):  # it was resumed, so the order may be another one
        times = [one.time_s for one in trace.values() if one.valid]
        known = all(any(same(time_s, one) for one in times) for _, time_s in row.improvements)
        return "" if known else "bests_ms are not in its trace"
    bests, best_s = dict(row.improvements), math.inf
    for number, (key, one) in enumerate(trace.items(), start=1):
        stated_s = bests.get(number)
        if stated_s is None:
            if one.valid and one.time_s < best_s * (1 - SAME) and key not in singles:
                return f"bests_ms lack evaluation {number} of its trace"
            continue
        if not (one.valid and same(one.time_s, stated_s) and stated_s <= best_s):
            return f"bests_ms differ from evaluation {number} of its trace"
        if not evaluator.measures and not same(evaluator.evaluate(key).time_s, stated_s):
            return f"evaluation {number} of its trace has a wrong time"
        best_s = stated_s
    return ""


def _wrong_wall(row: RunRow, trace: Trace, singles: set[tuple[int, ...]]) -> str:
    spent_s = sum(
        one.compile_s + one.run_s
        for key, one in trace.items()
        if not one.cached and key not in singles
    )
    if row.wall_s < spent_s - CLOCK_S:
        return f"it took {row.wall_s:g} s, less than the {spent_s:.0f} s of its evaluations"
    return ""


def same(one: float, other: float) -> bool:
    """Return whether two times are the same, as they are written."""
    return math.isclose(one, other, rel_tol=SAME) or (math.isnan(one) and math.isnan(other))
