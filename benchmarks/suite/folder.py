"""Folders of results: sessions (machine, versions, revision, command), runs and replays."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from device_placement.agents.runs.run import write_json
from device_placement.benchmarks.suite.results import (
    ROWS,
    Key,
    ProblemKey,
    RunRow,
    latest,
    read_lines,
    read_rows,
)
from device_placement.benchmarks.suite.suites import MEASURED, Problem
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.machine import describe_machine

NAME = "benchmark.json"
# Settings that measured times depend on.
MEASURING = (
    *("objective", "requests", "timing", "warmup", "max_samples", "max_seconds", "tolerance"),
    *("confirmations", "verify", "max_output_error"),
)


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """Return the calls that made a folder's runs; none if the file is missing.

    Raises:
        DevicePlacementError: when the file can't be read.
    """
    path = folder / NAME
    if not path.is_file():
        return []
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["sessions"])
    except (ValueError, KeyError, TypeError) as error:
        raise DevicePlacementError(
            f"Can't read {str(path)!r} ({type(error).__name__}: {error}); start again with another "
            "--out."
        ) from error


def read_problems(folder: Path) -> dict[ProblemKey, Problem]:
    """Return the problems of a folder's runs, as recorded, by suite and name."""
    return {
        (suite, name): Problem(**fields)
        for session in read_sessions(folder)
        for suite, name, fields in session["problems"]
    }


def read_measuring(folder: Path) -> MeasureConfig:
    """Return how a folder's runs were measured."""
    sessions = read_sessions(folder)
    settings = sessions[-1]["settings"] if sessions else {}
    known = {field.name for field in dataclasses.fields(MeasureConfig)}
    return MeasureConfig(**{name: value for name, value in settings.items() if name in known})


def check_comparable(sessions: Sequence[Mapping[str, Any]]) -> None:
    """Check that the runs of several calls can be compared in one table.

    Raises:
        DevicePlacementError: when they have other problems of the same names, or measured on
            different machines or in different ways.
    """
    problems: dict[ProblemKey, Problem] = {}
    ways: dict[str, tuple[str, object]] = {}  # by setting: when and what it was
    for session in sessions:
        for suite, name, fields in session["problems"]:
            problem = Problem(**fields)
            if (earlier := problems.setdefault((suite, name), problem)) != problem:
                raise DevicePlacementError(
                    f"Got {problem} as {name!r}; earlier runs are of another problem {name!r}: "
                    f"{earlier}. Give another --out."
                )
        if any(fields["evaluator"] == MEASURED for _, _, fields in session["problems"]):
            for name, value in _way(session).items():
                when, earlier_value = ways.setdefault(name, (session["started"], value))
                if value != earlier_value:
                    raise DevicePlacementError(
                        f"Got runs with {name}={earlier_value!r} (on {when}) and {value!r} (on "
                        f"{session['started']}), which can't be compared; give another --out."
                    )


def _way(session: Mapping[str, Any]) -> dict[str, object]:
    """Return the settings that times depend on."""
    fixed = {name: session["machine"].get(name) for name in ("processor", "cores", "openvino")}
    chosen = {name: session["settings"].get(name) for name in MEASURING}
    return {**fixed, **chosen}


def begin_session(folder: Path, config: Any, problems: Mapping[ProblemKey, Problem]) -> int:
    """Record this call, and return its number.

    Args:
        folder: of the benchmark.
        config: a dataclass of settings.
        problems: by suite and name.

    Raises:
        DevicePlacementError: when it can't be compared with earlier calls.
    """
    sessions = read_sessions(folder)
    session = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": shlex.join([_program(), *sys.argv[1:]]),
        "revision": git_revision(),
        "machine": describe_machine(),
        "settings": dataclasses.asdict(config),
        "problems": [
            [suite, name, dataclasses.asdict(one)] for (suite, name), one in problems.items()
        ],
    }
    check_comparable([*sessions, session])
    write_json(folder / NAME, {"sessions": [*sessions, session]})
    return len(sessions)


def _program() -> str:
    """Return the name of the command, also if it was run as a module."""
    name = Path(sys.argv[0]).name
    return "device-placement" if name == "cli.py" else name


def git_revision() -> str:
    """Return this code's commit, ``-dirty`` if changed; empty outside a repository."""
    here = Path(__file__).resolve()

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here.parent), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        known = git("ls-files", here.name)  # of this repository, not of one around it
        return git("describe", "--always", "--dirty", "--abbrev=40") if known else ""
    except OSError:  # there is no git
        return ""


REPLAYS = "replay.csv"


def read_folders(folders: Sequence[str], *, replayed: bool = False) -> list[RunRow]:
    """Return the runs in some folders, each once, in a fixed order.

    Args:
        folders: of benchmarks.
        replayed: leave out runs that did not reproduce, and report them on stderr.

    Raises:
        DevicePlacementError: when a folder has no runs or, with `replayed`, runs that were not
            replayed; when folders have the same run, or runs that can't be compared.
    """
    check_comparable([one for folder in folders for one in read_sessions(Path(folder))])
    rows: dict[Key, RunRow] = {}
    for folder in folders:
        found = latest(read_rows(str(Path(folder) / ROWS)))
        if not found:
            raise DevicePlacementError(
                f"There are no runs in {folder!r}; give the --out of a benchmark."
            )
        for row in _reproduced(folder, found) if replayed else found:
            if row.key in rows:
                raise DevicePlacementError(
                    f"{row.placer} on {row.problem} with the seed {row.seed} is in {folder!r} and "
                    "in an earlier folder; give one of them."
                )
            rows[row.key] = row
    check_budgets({(row.suite, row.problem): row.budget for row in rows.values()}, rows.values())
    return latest([*rows.values()])


def check_budgets(budgets: Mapping[ProblemKey, int], rows: Iterable[RunRow]) -> None:
    """Check that runs had these budgets.

    Raises:
        DevicePlacementError: when one had another.
    """
    for row in rows:
        if (budget := budgets.get((row.suite, row.problem), row.budget)) != row.budget:
            raise DevicePlacementError(
                f"{row.placer} on {row.problem} was run with a budget of {row.budget}, others with "
                f"{budget}; compared runs need the same budget. Give that, or another --out."
            )


def read_replays(path: str) -> dict[Key, bool]:
    """Return whether each replayed row reproduces."""
    return {
        (line["suite"], line["problem"], line["placer"], int(line["seed"])): (
            line["reproduces"] == "yes"
        )
        for line in read_lines(path)
    }


def _reproduced(folder: str, rows: Sequence[RunRow]) -> list[RunRow]:
    """Return the rows without those that did not reproduce; failed ones stay."""
    known = read_replays(str(Path(folder) / REPLAYS))
    missing = sum(not row.failure and row.key not in known for row in rows)
    if missing:
        raise DevicePlacementError(
            f"{missing} of the {len(rows)} runs in {folder!r} were not replayed; do that first: "
            f"device-placement replay {folder}"
        )
    left_out = sum(not known.get(row.key, True) for row in rows)
    if left_out:
        print(f"{left_out} runs in {folder} did not reproduce and are left out", file=sys.stderr)
    return [row for row in rows if known.get(row.key, True)]
