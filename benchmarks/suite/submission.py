"""Rules of the leaderboard, and what in a folder of results breaks them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from device_placement.benchmarks.suite.algorithms import DETERMINISTIC, SCHEDULE_OF
from device_placement.benchmarks.suite.folder import read_problems, read_sessions
from device_placement.benchmarks.suite.problems import WORKLOADS
from device_placement.benchmarks.suite.results import ROWS, RunRow, latest, read_rows
from device_placement.benchmarks.suite.row_checks import gather
from device_placement.benchmarks.suite.suites import MEASURED, SUITES
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.rendering.text import count

SEEDS = range(5)  # of every algorithm, unless it is deterministic
PACKAGE = "device-placement"
RANKED = tuple(
    name
    for name, suite in SUITES.items()
    if name != WORKLOADS and all(one.evaluator != MEASURED for one in suite.problems.values())
)
"""Suites with a ranking: simulated times are the same on every machine."""


def broken_rules(folder: Path) -> list[str]:
    """Return the rules that a submission breaks, a sentence each; none if it keeps all.

    Raises:
        DevicePlacementError: when the folder has no runs, or a file that can't be read.
    """
    rows = latest(read_rows(str(folder / ROWS)))
    if not rows:
        raise DevicePlacementError(
            f"There are no runs in {str(folder)!r}; give the --out of a benchmark."
        )
    sessions = read_sessions(folder)
    return [
        *_wrong_problems(folder, rows),
        *wrong_runs(rows),
        *_wrong_versions(sessions),
        *_missing_traces(folder, rows, sessions),
        *_missing_files(folder, rows),
    ]


def wrong_runs(rows: Sequence[RunRow]) -> Iterator[str]:
    """Yield what is wrong with the budgets, seeds and problems of rows."""
    for suite in dict.fromkeys(row.suite for row in rows):
        if suite not in SUITES:
            continue
        own = [row for row in rows if row.suite == suite]
        budget = SUITES[suite].budget
        if others := sorted({row.budget for row in own} - {budget}):
            given = ", ".join(map(str, others))
            yield f"The budget of {suite} is {budget}; there are runs with {given}."
        problems = {*SUITES[suite].problems} or {row.problem for row in own}
        for placer in dict.fromkeys(row.placer for row in own):
            if placer in SCHEDULE_OF:  # bundled, and not for every problem
                continue
            seeds = {0} if placer in DETERMINISTIC else {*SEEDS}
            made = {(row.problem, row.seed) for row in own if row.placer == placer}
            wanted = {(problem, seed) for problem in problems for seed in seeds}
            if missing := wanted - made:
                yield (
                    f"{placer} lacks {count(len(missing), 'run')} of {suite}, which has "
                    f"{count(len(problems), 'problem')} with the seeds "
                    f"{min(seeds)} to {max(seeds)}."
                )


def _wrong_problems(folder: Path, rows: Sequence[RunRow]) -> Iterator[str]:
    recorded = read_problems(folder)
    for suite in dict.fromkeys(row.suite for row in rows):
        if suite not in SUITES:
            yield f"{suite} is not a bundled suite; the leaderboard has those only."
    for suite, name in dict.fromkeys((row.suite, row.problem) for row in rows):
        if suite not in SUITES:
            continue
        bundled, found = SUITES[suite].problems.get(name), recorded.get((suite, name))
        if suite == WORKLOADS or found is None or bundled is None:
            if found is None or suite != WORKLOADS:
                yield f"{suite} has no problem {name!r}, or no call in benchmark.json ran it."
        elif found != bundled and found.evaluator != MEASURED:
            yield f"{name!r} differs from the problem of that name in {suite}."


def _wrong_versions(sessions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    here = importlib.metadata.version(PACKAGE)
    versions = [session["machine"].get(PACKAGE, "unknown") for session in sessions]
    if others := sorted({*versions} - {here}):
        yield (
            f"Runs were made with {PACKAGE} {', '.join(others)}; a submission is made with the "
            f"release it is checked by, {here}."
        )
    openvinos = sorted({session["machine"].get("openvino", "unknown") for session in sessions})
    if len(openvinos) > 1:
        yield f"Runs were made with OpenVINO {' and '.join(openvinos)}; use one version."
    dirty = sum(str(session.get("revision", "")).endswith("-dirty") for session in sessions)
    if dirty:
        yield f"{count(dirty, 'call')} ran changed code of {PACKAGE}; use it as released."


def _missing_traces(
    folder: Path, rows: Sequence[RunRow], sessions: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    evidence = gather(folder, rows, sessions)
    results = [row.key for row in rows if not row.failure]
    for name, found in (("trace", evidence.traces), ("copy of its row", evidence.records)):
        missing = sum(key not in found for key in results)
        if missing:
            yield f"{missing} of {len(results)} runs have no {name} in {folder / 'traces'}."


def short_name(placer: str) -> str:
    """Return the name of an algorithm without the folder of its file.

    >>> short_name("work/mine.py:search"), short_name("random")
    ('mine.py:search', 'random')
    """
    module, sign, function = placer.rpartition(":")
    return f"{Path(module.replace(chr(92), '/')).name}{sign}{function}" if sign else placer


def _missing_files(folder: Path, rows: Sequence[RunRow]) -> Iterator[str]:
    for placer in dict.fromkeys(row.placer for row in rows if ":" in row.placer):
        file = short_name(placer).rpartition(":")[0]
        if not file.endswith(".py"):
            yield f"{placer} is an installed module; give the path of a file as the algorithm."
        elif not (folder / file).is_file():
            yield f"The file of {placer} is not in the folder; copy {file} into it."
