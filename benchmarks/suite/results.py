"""Result rows of a benchmark, and the CSV files that hold them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from device_placement.benchmarks.suite.algorithms import EVERYONE, VARIANTS
from device_placement.benchmarks.suite.suites import SUITES
from device_placement.envs.errors import DevicePlacementError, printable
from device_placement.envs.evaluation import NAN
from device_placement.envs.files import replaced
from device_placement.envs.untrusted import parse_json, read_bytes, reading

ROWS = "runs.csv"  # in the folder of a benchmark
DIGITS = string.digits + string.ascii_letters  # one per device, in a placement
MAX_FAILURE = 2000  # characters of a failure that are kept
MAX_TABLE = 1 << 30  # bytes
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

    @property
    def measured(self) -> bool:
        """Whether the time was measured: simulated ones have no spread."""
        return self.interval_s[0] < self.interval_s[1]

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
        DevicePlacementError: when a line is not a row, or the second result of a run.
    """
    rows: list[RunRow] = []
    made: dict[Key, list[RunRow]] = {}
    for number, line in _numbered_lines(path):
        try:
            row = _from_fields(line)
            if any(not one.failure or one.session == row.session for one in made.get(row.key, ())):
                raise ValueError(
                    f"{row.placer} on {row.problem} with the seed {row.seed} has a row already"
                )
        except KeyError as error:
            raise DevicePlacementError(
                f"Can't read {path!r} as runs of a benchmark: it has no column {error}. Give the "
                "folder of another benchmark."
            ) from error
        except ValueError as error:
            raise _unreadable(path, number, error) from error
        rows.append(row)
        made.setdefault(row.key, []).append(row)
    return rows


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
        *(shortened(row.failure), row.groups, row.devices),
        *map(_milliseconds, times),
        row.single,
        *map(_milliseconds, singles),
        *(row.evaluations, "" if math.isnan(row.wall_s) else f"{row.wall_s:.2f}"),
        " ".join(f"{number}:{_milliseconds(one_s)}" for number, one_s in row.improvements),
        "".join(DIGITS[device] for device in row.assignment),
        json.dumps(row.invalid) if row.invalid else "",
    )


def fields_of(row: RunRow) -> dict[str, str]:
    """Return the fields of a row by name, as they are written."""
    return dict(zip(FIELDS, map(str, _to_fields(row)), strict=True))


def hash_of(row: RunRow) -> str:
    """Return a hash of a row as it is written, by which a later edit is noticed."""
    text = json.dumps([*fields_of(row).values()])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def shortened(text: str) -> str:
    r"""Return a reason as one line of at most `MAX_FAILURE` printable characters.

    >>> shortened("no\n  memory"), shortened("x" * 9000)[-26:]
    ('no memory', 'xxxx ... (9000 characters)')
    """
    line = printable(" ".join(text[: 2 * MAX_FAILURE].split()))
    if len(text) <= 2 * MAX_FAILURE and len(line) <= MAX_FAILURE:
        return line
    note = f" ... ({len(text)} characters)"
    return line[: MAX_FAILURE - len(note)] + note


def _from_fields(fields: Mapping[str, str]) -> RunRow:
    def word(name: str) -> str:
        if not fields[name].isprintable():
            raise ValueError(f"{name} is {fields[name]!r}; control characters are not allowed")
        return fields[name]

    def whole(name: str, least: int = 0) -> int:
        return _whole_number(name, fields[name], least)

    def seconds(name: str, unit: float = 1e3, zero: bool = False) -> float:
        return _number(name, fields[name], zero) / unit if fields[name] else NAN

    if not fields["failure"] and not fields["time_ms"]:
        raise ValueError("it has neither time_ms nor a failure")
    if fields["single"] and not fields["single_ms"]:
        raise ValueError("it has a single without single_ms")
    return RunRow(
        suite=word("suite"),
        problem=word("problem"),
        placer=word("placer"),
        seed=whole("seed"),
        budget=whole("budget", 1),
        session=whole("session"),
        failure=shortened(fields["failure"]),
        groups=whole("groups"),
        devices=word("devices"),
        time_s=seconds("time_ms"),
        interval_s=(seconds("low_ms"), seconds("high_ms")),
        single=word("single"),
        single_s=seconds("single_ms"),
        single_interval_s=(seconds("single_low_ms"), seconds("single_high_ms")),
        bound_s=seconds("bound_ms", zero=True),
        evaluations=whole("evaluations"),
        wall_s=seconds("wall_s", unit=1.0, zero=True),
        improvements=tuple(map(_improvement, fields["bests_ms"].split())),
        assignment=tuple(map(_device, fields["assignment"])),
        invalid=_causes(fields.get("invalid") or "{}"),  # earlier versions have no such column
    )


def _causes(text: str) -> dict[str, int]:
    causes = parse_json(text)
    if not isinstance(causes, dict) or not all(type(one) is int for one in causes.values()):
        raise ValueError(f"invalid is {_start(text)}; it must be JSON with a number per cause")
    return {printable(cause): number for cause, number in causes.items()}


def _improvement(text: str) -> tuple[int, float]:
    number, _, time_ms = text.partition(":")
    return _whole_number("bests_ms", number, 1), _number("bests_ms", time_ms) / 1e3


def _device(digit: str) -> int:
    if digit not in DIGITS:
        raise ValueError(f"assignment has {digit!r}; allowed are digits and letters")
    return DIGITS.index(digit)


def _whole_number(name: str, text: str, least: int) -> int:
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) < least:
        raise ValueError(f"{name} is {_start(text)}; it must be a whole number from {least} on")
    return int(text)


def _number(name: str, text: str, zero: bool = False) -> float:
    found = float(text) if re.fullmatch(r"[0-9.e+-]{1,30}", text) else math.nan
    if not (0 < found < math.inf or (zero and found == 0)):
        least = "0 or more" if zero else "above 0"
        raise ValueError(f"{name} is {_start(text)}; it must be a number, {least} and finite")
    return found


def _start(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _milliseconds(time_s: float) -> str:
    return f"{1e3 * time_s:.9g}" if 0 <= time_s < math.inf else ""


# A spreadsheet takes a cell that begins with one of these as a formula and computes it.
FORMULA = re.compile("'*[=+@\t\r-].", flags=re.DOTALL)


def read_lines(path: str) -> list[dict[str, str]]:
    """Read the lines of a CSV file by the names in its header; none if the file is missing.

    An incomplete last line, left by a killed process, is ignored.

    Raises:
        DevicePlacementError: when the file is something else; with the line.
    """
    return [line for _, line in _numbered_lines(path)]


def _numbered_lines(path: str) -> list[tuple[int, dict[str, str]]]:
    """Return the lines of a CSV file below its header, each with the number where it ends."""
    text, found = _whole(path), []
    limit = csv.field_size_limit(min(len(text) + 1, 2**31 - 1))
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        names = next(reader, [])
        for cells in reader:
            if len(cells) != len(names):
                raise csv.Error(f"it has {len(cells)} cells, the header {len(names)}")
            line = dict(zip(names, map(_without_mark, cells), strict=True))
            found.append((reader.line_num, line))
    except csv.Error as error:
        raise _unreadable(path, reader.line_num, error) from error
    finally:
        csv.field_size_limit(limit)
    return found


def _unreadable(path: str, number: int, reason: object) -> DevicePlacementError:
    return DevicePlacementError(
        f"Can't read line {number} of {path!r}: {reason}. Correct or remove the line, or give the "
        "folder of another benchmark."
    )


def write_lines(path: str, names: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Write a CSV file: names, then lines."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([names, *map(_marked, lines)])


def append_lines(path: str, names: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Append lines to a CSV file, creating it with its names if it is missing."""
    whole = _whole(path)
    if Path(path).is_file():
        with open(path, "r+", encoding="utf-8") as file:
            file.truncate(len(whole.encode()))
    with open(path, "a", newline="", encoding="utf-8") as file:
        cells = map(_marked, lines)
        csv.writer(file, lineterminator="\n").writerows(cells if whole else [names, *cells])


def _marked(cells: Sequence[object]) -> list[object]:
    """Return cells with an apostrophe before text that a spreadsheet would compute."""
    return [f"'{one}" if isinstance(one, str) and _is_formula(one) else one for one in cells]


def _without_mark(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _is_formula(cell: str) -> bool:
    return FORMULA.match(cell) is not None and not re.fullmatch("[+-]?[0-9.]+(e[+-]?[0-9]+)?", cell)


def _whole(path: str) -> str:
    """Return the text of a file up to the end of its last whole line."""
    if not Path(path).exists():
        return ""
    with reading(path, "a table", "give the folder of another benchmark."):
        text = read_bytes(path, MAX_TABLE).decode("utf-8")
    return text[: text.rfind("\n") + 1]
