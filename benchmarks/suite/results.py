"""Result rows of a benchmark, and the CSV files that hold them."""

from __future__ import annotations

import csv
import io
import json
import math
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from device_placement.benchmarks.suite.algorithms import EVERYONE, VARIANTS
from device_placement.benchmarks.suite.suites import SUITES
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import NAN
from device_placement.envs.files import replaced

ROWS = "runs.csv"  # in the folder of a benchmark
DIGITS = string.digits + string.ascii_letters  # one per device, in a placement
NEVER = math.inf
Span = tuple[float, float]
Key = tuple[str, str, str, int]  # suite, problem, placer, seed
ProblemKey = tuple[str, str]  # suite, problem


@dataclass(frozen=True)
class RunRow:
    """Run of one placer on one problem."""

    suite: str
    problem: str
    placer: str
    seed: int
    budget: int
    session: int
    """Number of the call that made the run, in ``benchmark.json``."""
    failure: str = ""
    """Why there is no result; empty if there is one."""
    groups: int = 0
    devices: str = ""
    """Comma-separated, as `parse_devices` takes them."""
    time_s: float = NAN
    """Seconds of the best valid placement that was evaluated."""
    interval_s: Span = (NAN, NAN)
    """95 % interval of `time_s`."""
    single: str = ""
    """The best single device."""
    single_s: float = NAN
    single_interval_s: Span = (NAN, NAN)
    bound_s: float = NAN
    """Proven lower bound of the time; NaN if the placer proved none."""
    evaluations: int = 0
    """Distinct placements in the run's trace, singles included."""
    wall_s: float = NAN
    """NaN if the run was killed and resumed."""
    improvements: tuple[tuple[int, float], ...] = ()
    """Line of the trace and seconds of each new best that the placer requested."""
    assignment: tuple[int, ...] = ()
    """(groups,) device numbers of the best placement."""
    invalid: Mapping[str, int] = field(default_factory=dict)
    """Number of failed placements by cause, the most frequent first."""

    @property
    def key(self) -> Key:
        """Identity of the run."""
        return self.suite, self.problem, self.placer, self.seed

    @property
    def speedup(self) -> float:
        """Speed-up over the best single."""
        return self.single_s / self.time_s

    def after(self, evaluations: float) -> float:
        """Return the best time after some evaluations; NaN if there was none yet."""
        times = [time_s for number, time_s in self.improvements if number <= evaluations]
        return times[-1] if times else NAN

    def within(self, time_s: float) -> float:
        """Return the number of the first evaluation within a time; inf if there is none."""
        return next((number for number, one_s in self.improvements if one_s <= time_s), NEVER)


FIELDS = (
    "suite",
    "problem",
    "placer",
    "seed",
    "budget",
    "session",
    "failure",
    "groups",
    "devices",
    "time_ms",
    "low_ms",
    "high_ms",
    "single",
    "single_ms",
    "single_low_ms",
    "single_high_ms",
    "bound_ms",
    "evaluations",
    "wall_s",
    "bests_ms",
    "assignment",
    "invalid",
)


def improvements_of(times_s: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """Return the new bests among times in order; NaN: not valid.

    >>> improvements_of([3.0, math.nan, 2.0, 2.5])
    ((1, 3.0), (3, 2.0))
    """
    found: list[tuple[int, float]] = []
    for number, time_s in enumerate(times_s, start=1):
        if not math.isnan(time_s) and (not found or time_s < found[-1][1]):
            found.append((number, time_s))
    return tuple(found)


def read_rows(path: str) -> list[RunRow]:
    """Read the rows of a file; none if it is missing.

    Raises:
        DevicePlacementError: when it holds something else.
    """
    try:
        return [_from_fields(line) for line in read_lines(path)]
    except (KeyError, ValueError) as error:
        raise DevicePlacementError(
            f"Can't read {path!r} as runs of a benchmark ({type(error).__name__}: {error})."
        ) from error


def append_rows(path: str, rows: Sequence[RunRow]) -> None:
    """Append rows to a file, creating it if it is missing; one of an earlier version is updated."""
    header = _whole(path).partition("\n")[0]
    if header not in ("", ",".join(FIELDS)):
        known = read_lines(path)
        with replaced(path) as draft:
            write_lines(str(draft), FIELDS, map(_to_fields, map(_from_fields, known)))
    append_lines(path, FIELDS, map(_to_fields, rows))


def latest(rows: Sequence[RunRow]) -> list[RunRow]:
    """Return the last row of each run, since failed ones may be repeated, in a fixed order.

    Suites, problems and placers are in the order in which they are listed.
    """
    return sorted({row.key: row for row in rows}.values(), key=_place)


def _place(row: RunRow) -> tuple[int, int, int, Key]:
    problems = SUITES[row.suite].problems if row.suite in SUITES else ()
    listed = (SUITES, row.suite), (problems, row.problem), ((*EVERYONE, *VARIANTS), row.placer)
    suite, problem, placer = ([*names, name].index(name) for names, name in listed)
    return suite, problem, placer, row.key


def _to_fields(row: RunRow) -> tuple[object, ...]:
    times = (row.time_s, *row.interval_s)
    singles = (row.single_s, *row.single_interval_s, row.bound_s)
    return (
        *(row.suite, row.problem, row.placer, row.seed, row.budget, row.session),
        *(" ".join(row.failure.split()), row.groups, row.devices),
        *map(_milliseconds, times),
        row.single,
        *map(_milliseconds, singles),
        *(row.evaluations, "" if math.isnan(row.wall_s) else f"{row.wall_s:.2f}"),
        " ".join(f"{number}:{_milliseconds(one_s)}" for number, one_s in row.improvements),
        "".join(DIGITS[device] for device in row.assignment),
        json.dumps(row.invalid) if row.invalid else "",
    )


def _from_fields(fields: Mapping[str, str]) -> RunRow:
    def seconds(name: str) -> float:
        return float(fields[name]) / 1e3 if fields[name] else NAN

    bests = (item.partition(":") for item in fields["bests_ms"].split())
    return RunRow(
        suite=fields["suite"],
        problem=fields["problem"],
        placer=fields["placer"],
        seed=int(fields["seed"]),
        budget=int(fields["budget"]),
        session=int(fields["session"]),
        failure=fields["failure"],
        groups=int(fields["groups"]),
        devices=fields["devices"],
        time_s=seconds("time_ms"),
        interval_s=(seconds("low_ms"), seconds("high_ms")),
        single=fields["single"],
        single_s=seconds("single_ms"),
        single_interval_s=(seconds("single_low_ms"), seconds("single_high_ms")),
        bound_s=seconds("bound_ms"),
        evaluations=int(fields["evaluations"]),
        wall_s=float(fields["wall_s"]) if fields["wall_s"] else NAN,
        improvements=tuple((int(number), float(ms) / 1e3) for number, _, ms in bests),
        assignment=tuple(map(DIGITS.index, fields["assignment"])),
        invalid=json.loads(fields.get("invalid") or "{}"),  # earlier versions have no such column
    )


def _milliseconds(time_s: float) -> str:
    return "" if math.isnan(time_s) else f"{1e3 * time_s:.9g}"


def read_lines(path: str) -> list[dict[str, str]]:
    """Read the lines of a CSV file by the names in its header; none if the file is missing.

    An incomplete last line, left by a killed process, is ignored.
    """
    return list(csv.DictReader(io.StringIO(_whole(path), newline="")))


def write_lines(path: str, names: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Write a CSV file: names, then lines."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([names, *lines])


def append_lines(path: str, names: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Append lines to a CSV file, creating it with its names if it is missing."""
    whole = _whole(path)
    if Path(path).is_file():
        with open(path, "r+", encoding="utf-8") as file:
            file.truncate(len(whole.encode()))
    with open(path, "a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines if whole else [names, *lines])


def _whole(path: str) -> str:
    """Return the text of a file up to the end of its last whole line."""
    if not Path(path).is_file():
        return ""
    with open(path, newline="", encoding="utf-8") as file:
        text = file.read()
    return text[: text.rfind("\n") + 1]
