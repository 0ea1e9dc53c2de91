"""Folders of results: sessions (machine, versions, revision, command), runs and replays."""

from __future__ import annotations

import dataclasses
import reprlib
import shlex
import subprocess
import sys
import time
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_placement.agents.runs.run import write_json
from device_placement.benchmarks.config import BenchmarkConfig
from device_placement.benchmarks.suite.results import (
    ROWS,
    Key,
    ProblemKey,
    RunRow,
    hash_of,
    latest,
    read_lines,
    read_rows,
)
from device_placement.benchmarks.suite.suites import MEASURED, SIMULATED, Problem
from device_placement.envs.devices import parse_devices
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.machine import describe_machine
from device_placement.envs.untrusted import check_file_devices, check_types, read_json

NAME = "benchmark.json"
# What a session has, as JSON.
SESSION = {"started": str, "machine": dict, "settings": dict, "problems": list}
# Settings that a folder from elsewhere may not decide.
CLUSTER = ("on", "target", "tls_ca_file", "tls_cert", "tls_key")
# Settings that measured times depend on.
MEASURING = (
    *("objective", "requests", "timing", "warmup", "max_samples", "max_seconds", "tolerance"),
    *("confirmations", "verify", "max_output_error"),
)


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """Return the calls that made a folder's runs; none if the file is missing.

    Raises:
        DevicePlacementError: when the file holds something else.
    """
    path = folder / NAME
    if not path.is_file():
        return []
    try:
        sessions = read_json(path)["sessions"]
        if not isinstance(sessions, list):
            raise TypeError(f"sessions is {_start(sessions)}, no list")
        for session in sessions:
            _check_session(session)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        raise DevicePlacementError(
            f"Can't read {str(path)!r}: {reason}. Start again with another --out."
        ) from error
    return sessions


def check_problem(problem: Problem, folder: Path, trusted: str = "") -> None:
    """Check that a recorded problem's devices have only properties that a file may set.

    Args:
        problem: to be opened.
        folder: where it was recorded.
        trusted: devices that the user gave.

    Raises:
        DeviceError: when one has another property.
    """
    if problem.devices != "auto":
        given = parse_devices(trusted) if trusted else ()
        check_file_devices(parse_devices(problem.devices), folder / NAME, given)


def _check_session(session: Any) -> None:
    """Check the parts of a session that are used.

    Raises:
        TypeError: when one is of another type.
        ValueError: when a problem or a setting has a wrong value.
        KeyError: when one is missing.
    """
    if not isinstance(session, dict):
        raise TypeError(f"a session is {_start(session)}, no object")
    for name, kind in SESSION.items():
        if not isinstance(session[name], kind):
            raise TypeError(f"{name} of a session is {_start(session[name])}, no {kind.__name__}")
    budgets = session.get("budgets", {})  # earlier versions have none
    if not isinstance(budgets, dict) or not all(type(one) is int for one in budgets.values()):
        raise TypeError(f"budgets of a session is {_start(budgets)}, not a number per suite")
    check_types("setting", session["settings"], BenchmarkConfig)
    _measuring_of(session["settings"])
    for entry in session["problems"]:
        if not (isinstance(entry, list) and [*map(type, entry)] == [str, str, dict]):
            raise TypeError(f"a problem is {_start(entry)}, not [suite, name, fields]")
        unknown = entry[2].keys() - typing.get_type_hints(Problem).keys()
        if unknown:
            raise TypeError(f"the problem {entry[1]!r} has unknown fields: {_start(min(unknown))}")
        check_types(f"field of the problem {entry[1]!r}", entry[2], Problem)
        if Problem(**entry[2]).evaluator not in (SIMULATED, MEASURED):
            raise ValueError(f"the problem {entry[1]!r} has the evaluator {_start(entry[2])}")


def _start(value: Any) -> str:
    return reprlib.repr(value)


def read_problems(folder: Path) -> dict[ProblemKey, Problem]:
    """Return the problems of a folder's runs, as recorded, by suite and name."""
    return {
        (suite, name): Problem(**fields)
        for session in read_sessions(folder)
        for suite, name, fields in session["problems"]
    }


def read_measuring(folder: Path) -> MeasureConfig:
    """Return how a folder's runs were measured, with the user's own store, and on this machine."""
    sessions = read_sessions(folder)
    return _measuring_of(sessions[-1]["settings"] if sessions else {})


def _measuring_of(settings: Mapping[str, Any]) -> MeasureConfig:
    known = {field.name for field in dataclasses.fields(MeasureConfig)} - {"store", *CLUSTER}
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
                        f"Got runs with {name}={earlier_value!r} (on {when!r}) and {value!r} (on "
                        f"{session['started']!r}), which can't be compared; give another --out."
                    )


def _way(session: Mapping[str, Any]) -> dict[str, object]:
    """Return the settings that times depend on."""
    fixed = {name: session["machine"].get(name) for name in ("processor", "cores", "openvino")}
    chosen = {name: session["settings"].get(name) for name in MEASURING}
    return {**fixed, **chosen}


def begin_session(
    folder: Path,
    config: Any,
    problems: Mapping[ProblemKey, Problem],
    machine: Mapping[str, str] | None = None,
    budgets: Mapping[str, int] | None = None,
) -> int:
    """Record this call, and return its number.

    Args:
        folder: of the benchmark.
        config: a dataclass of settings.
        problems: by suite and name.
        machine: that measures; this one by default.
        budgets: by suite.

    Raises:
        DevicePlacementError: when it can't be compared with earlier calls.
    """
    sessions = read_sessions(folder)
    session = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": shlex.join([_program(), *sys.argv[1:]]),
        "revision": git_revision(),
        "machine": dict(machine) if machine is not None else describe_machine(),
        "settings": dataclasses.asdict(config),
        "problems": [
            [suite, name, dataclasses.asdict(one)] for (suite, name), one in problems.items()
        ],
        "budgets": dict(budgets or {}),
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


NOT_HASHED = ""  # of a row that an earlier version replayed


@dataclass(frozen=True)
class Verdict:
    """Result of replaying a row."""

    reproduces: bool
    row_hash: str  # of the row that was replayed

    def is_of(self, row: RunRow) -> bool:
        """Whether the row is still what was replayed, as far as that is known."""
        return self.row_hash in (NOT_HASHED, hash_of(row))


def read_replays(path: str) -> dict[Key, Verdict]:
    """Return the last verdict on each replayed row.

    Raises:
        DevicePlacementError: when the file holds something else.
    """
    try:
        return {
            (line["suite"], line["problem"], line["placer"], int(line["seed"])): Verdict(
                {"yes": True, "no": False}[line["reproduces"]], line.get("row_sha256", NOT_HASHED)
            )
            for line in read_lines(path)
        }
    except (KeyError, ValueError) as error:
        raise DevicePlacementError(
            f"Can't read {path!r} as replays ({type(error).__name__}: {error}). Remove the file, "
            "and replay the folder again."
        ) from error


def _reproduced(folder: str, rows: Sequence[RunRow]) -> list[RunRow]:
    """Return the rows without those that did not reproduce; failed ones stay."""
    known = read_replays(str(Path(folder) / REPLAYS))
    results = [row for row in rows if not row.failure]
    missing = sum(row.key not in known for row in results)
    edited = sum(row.key in known and not known[row.key].is_of(row) for row in results)
    for number, reason in ((missing, "were not"), (edited, "were changed since they were")):
        if number:
            raise DevicePlacementError(
                f"{number} of the {len(rows)} runs in {folder!r} {reason} replayed; do that first: "
                f"device-placement replay {folder}"
            )
    if unhashed := sum(known[row.key].row_hash == NOT_HASHED for row in results):
        print(
            f"{unhashed} runs in {folder} were replayed by an earlier version, not hashed: it is "
            "not known whether they were changed since",
            file=sys.stderr,
        )
    kept = [row for row in rows if row.failure or known[row.key].reproduces]
    if len(kept) < len(rows):
        print(
            f"{len(rows) - len(kept)} runs in {folder} did not reproduce and are left out",
            file=sys.stderr,
        )
    return kept
