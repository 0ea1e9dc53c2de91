"""SQLite store of measurements: convert them to database rows and verify their checksums."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from device_placement.envs.errors import StoreError
from device_placement.envs.evaluation import NAN, Measurement

COLUMNS = tuple(field.name for field in dataclasses.fields(Measurement))


def to_row(measurement: Measurement) -> dict[str, Any]:
    """Return the columns of a measurement: NaN is null, a bool 0 or 1, pairs are JSON."""
    row = {name: _null(getattr(measurement, name)) for name in COLUMNS}
    flags = {name: int(value) for name, value in row.items() if isinstance(value, bool)}
    pairs = [(time_s, _null(other)) for time_s, other in measurement.pairs]
    return row | flags | {"pairs": canonical(pairs)}


def from_row(key: str, op_devices: bytes, values: Sequence[Any]) -> tuple[float, Measurement]:
    """Return a row's time stamp and measurement, after verifying its checksum."""
    taken_at, checksum, *columns = values
    row = dict(zip(COLUMNS, columns, strict=True))
    verify(checksum == checksum_of(key, op_devices.hex(), row))
    row["pairs"] = tuple((time_s, _nan(other)) for time_s, other in json.loads(row["pairs"]))
    row |= {name: bool(row[name]) for name in ("failed_to_compile", "cut_short")}
    row |= {name: _nan(row[name]) for name in ("output_error", "output_cosine")}
    measurement = Measurement(**row)
    verify(math.isfinite(taken_at) and is_storable(measurement))
    return taken_at, measurement


def verify(holds: bool) -> None:
    """Raise ValueError if a condition on a row does not hold."""
    if not holds:
        raise ValueError("a row does not match its checksum")


def is_storable(one: Measurement) -> bool:
    """Return whether a measurement is plausible and permanent."""
    times = [time_s for time_s, _ in one.pairs]
    times += [other for _, other in one.pairs if not math.isnan(other)]
    return (
        (one.failed_to_compile or not one.error)
        and (one.failed_to_compile or bool(times) or not math.isnan(one.output_error))
        and (not times or are_times(times))
        and isinstance(one.error, str)
        and isinstance(one.num_subgraphs, int)
        and one.num_subgraphs >= 0
        and all(0 <= seconds < math.inf for seconds in (one.compile_s, one.run_s))
        and not one.output_error < 0
        and not abs(one.output_cosine) > 1
    )


def are_times(seconds: Sequence[float]) -> bool:
    """Return whether there are times, all above 0 and finite."""
    return bool(seconds) and all(0 < time_s < math.inf for time_s in seconds)


def _null(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _nan(value: Any) -> Any:
    return NAN if value is None else value


def describe(content: Mapping[str, Any]) -> tuple[str, str]:
    """Return key and text of a problem or reference, the same for equal ones."""
    text = canonical(dict(content))
    return hashlib.sha256(text.encode()).hexdigest(), text


def checksum_of(*content: Any) -> str:
    """Return the checksum of some numbers and texts."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def canonical(content: Any) -> str:
    """Return JSON that is the same for the same content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


PATH_VARIABLE = "DEVICE_PLACEMENT_STORE"
APPLICATION_ID = int.from_bytes(b"DPEV", "big")  # identifies our files
SCHEMA_VERSION = 1
BUSY_S = 30.0  # how long to wait for another process that writes

# In a REAL column SQLite turns -0.0 into 0.0, so the measured numbers have no declared type.
SCHEMA = (
    """CREATE TABLE problems (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, description TEXT NOT NULL)""",
    """CREATE TABLE measurements (
    id INTEGER PRIMARY KEY, problem INTEGER NOT NULL REFERENCES problems,
    op_devices BLOB NOT NULL, taken_at REAL NOT NULL, pairs TEXT NOT NULL, error TEXT NOT NULL,
    failed_to_compile INTEGER NOT NULL, num_subgraphs INTEGER NOT NULL, compile_s NOT NULL,
    run_s NOT NULL, cut_short INTEGER NOT NULL, output_error, output_cosine,
    checksum TEXT NOT NULL)""",
    "CREATE INDEX measurements_of_a_placement ON measurements (problem, op_devices)",
    """CREATE TABLE reference_times (
    key TEXT PRIMARY KEY NOT NULL, description TEXT NOT NULL, taken_at REAL NOT NULL,
    samples TEXT NOT NULL, checksum TEXT NOT NULL)""",
)
STAMPS = (f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {SCHEMA_VERSION}")
ADD_PROBLEM = "INSERT OR IGNORE INTO problems (key, description) VALUES (?, ?)"
ADD = f"""INSERT INTO measurements (problem, op_devices, taken_at, checksum, {", ".join(COLUMNS)})
    VALUES ((SELECT id FROM problems WHERE key = :key),
    :op_devices, :taken_at, :checksum, :{", :".join(COLUMNS)})"""
GET = f"""SELECT measurements.id, taken_at, checksum, {", ".join(COLUMNS)}
    FROM measurements JOIN problems ON problems.id = problem
    WHERE key = ? AND op_devices = ? ORDER BY measurements.id"""
GET_PLACEMENTS = """SELECT DISTINCT description, op_devices
    FROM measurements JOIN problems ON problems.id = problem
    ORDER BY problem, measurements.id"""
FIX_REFERENCE = "INSERT INTO reference_times VALUES (?, ?, ?, ?, ?)"
GET_REFERENCE = "SELECT samples, checksum FROM reference_times WHERE key = ?"


def default_path() -> Path:
    """Return the file in the user's cache folder, or the one in ``DEVICE_PLACEMENT_STORE``."""
    if named := os.environ.get(PATH_VARIABLE):
        return Path(named)
    return platformdirs.user_cache_path("device-placement", appauthor=False) / "evaluations.sqlite"


class EvaluationStore:
    """Store of measurements of placements, and of the samples that fix a reference's time.

    Threads, forks and other processes may use one file at the same time: no connection stays
    open between two calls, and a write succeeds or leaves the file unchanged. Each row has a
    checksum, so that damage is an error and never a wrong number. A deleted file is created
    again.

    A problem, or a reference, is plain JSON data on which a time depends; the file keeps it
    readable for the ``sqlite3`` shell.

    Args:
        path: the file, created with its folder if missing; `default_path` by default.
        max_age_s: older measurements are not returned; reference times always are.

    Raises:
        StoreError: here and in every method, when the file can't be used: not readable (for
            `add` and `fix_reference`: not writable), damaged, or of another application or
            version. The file is then unchanged.

    Example:
        >>> import tempfile
        >>> problem, op_devices = {"model": "diamond", "devices": ["CPU"]}, bytes([0, 0, 0, 0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = EvaluationStore(Path(folder) / "evaluations.sqlite")
        ...     store.add(problem, op_devices, Measurement(pairs=((0.25, 0.5),)))
        ...     [one.pairs for one in store.get(problem, op_devices)]
        [((0.25, 0.5),)]
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, max_age_s: float = math.inf
    ) -> None:
        if not max_age_s > 0:
            raise StoreError(f"Got max_age_s={max_age_s!r}; give seconds above 0.")
        self.path = Path(default_path() if path is None else path).absolute()
        self._max_age_s = max_age_s
        with self._open() as connection:
            _check(connection)

    def get(self, problem: Mapping[str, Any], op_devices: bytes) -> tuple[Measurement, ...]:
        """Return the measurements of a placement, in the order in which they were added.

        Args:
            problem: what the time depends on, except for the placement.
            op_devices: (num_ops,) number of each op's device.
        """
        key, _ = describe(problem)
        oldest = time.time() - self._max_age_s
        with self._open() as connection:
            rows = connection.execute(GET, (key, op_devices)).fetchall()
            verify([row[0] for row in rows] == sorted({row[0] for row in rows}))
            found = [from_row(key, op_devices, row[1:]) for row in rows]
        return tuple(measurement for taken_at, measurement in found if taken_at >= oldest)

    def add(self, problem: Mapping[str, Any], op_devices: bytes, measurement: Measurement) -> None:
        """Append a measurement of a placement.

        Args:
            problem: what the time depends on, except for the placement.
            op_devices: (num_ops,) number of each op's device.
            measurement: a permanent one: samples, an output error, or a failed compile; no
                crash or time-out.
        """
        assert is_storable(measurement), measurement
        key, description = describe(problem)
        row = to_row(measurement)
        row |= {"checksum": checksum_of(key, op_devices.hex(), row)}
        row |= {"key": key, "op_devices": op_devices, "taken_at": time.time()}
        with self._open(write=True) as connection:
            connection.execute(ADD_PROBLEM, (key, description))
            connection.execute(ADD, row)

    def entries(self) -> Iterator[tuple[dict[str, Any], bytes, tuple[Measurement, ...]]]:
        """Yield each placement with its problem and its measurements, problem by problem."""
        with self._open() as connection:
            found = connection.execute(GET_PLACEMENTS).fetchall()
        for description, op_devices in found:
            problem = json.loads(description)
            if measurements := self.get(problem, op_devices):
                yield problem, op_devices, measurements

    def get_reference(self, reference: Mapping[str, Any]) -> tuple[float, ...] | None:
        """Return the samples that fix a reference's time, (num_samples,) seconds, or None."""
        key, _ = describe(reference)
        with self._open() as connection:
            return _fixed_samples(connection, key)

    def fix_reference(
        self, reference: Mapping[str, Any], samples_s: Sequence[float]
    ) -> tuple[float, ...]:
        """Fix a reference's time for good, unless it is fixed already.

        Args:
            reference: what its time depends on.
            samples_s: (num_samples,) seconds, at least one.

        Returns:
            The samples that count: these, or those of the first writer.
        """
        samples = tuple(float(sample) for sample in samples_s)
        assert are_times(samples), samples
        if fixed := self.get_reference(reference):  # readable also where nothing can be written
            return fixed
        key, description = describe(reference)
        row = (key, description, time.time(), canonical(samples), checksum_of(key, samples))
        with self._open(write=True) as connection:
            fixed = _fixed_samples(connection, key)
            if fixed is None:
                connection.execute(FIX_REFERENCE, row)
        return fixed or samples

    @contextlib.contextmanager
    def _open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield a connection for one transaction, which any exception rolls back."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _check_owner(self.path)
            with contextlib.closing(
                sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
            ) as connection:
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                if _is_empty(connection):
                    _create(connection)
                _check_schema(connection)
                yield connection
                connection.execute("COMMIT")
        # TypeError and ValueError: content that only a damaged file has.
        except (sqlite3.Error, OSError, TypeError, ValueError) as error:
            raise StoreError(
                f"Can't use the store of evaluations {str(self.path)!r}: {error}. Give another "
                "path, delete the file if it is broken (its placements are then measured again), "
                "or use no store: store=None."
            ) from error


def _is_empty(connection: sqlite3.Connection) -> bool:
    """Return whether the file is still empty; raise ValueError if it is not a store."""
    questions = "PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master"
    application, version, num_tables = (connection.execute(ask).fetchone()[0] for ask in questions)
    if (application, version, num_tables) == (0, 0, 0):
        return True
    if application != APPLICATION_ID:
        raise ValueError(f"it is a database of another application (id {application})")
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"it has version {version}, and this release of device-placement knows version "
            f"{SCHEMA_VERSION} only"
        )
    return False


def _create(connection: sqlite3.Connection) -> None:
    """Make the tables, unless another process was faster."""
    connection.execute("ROLLBACK")  # a transaction that waits to write must not be reading
    connection.execute("BEGIN IMMEDIATE")
    if _is_empty(connection):
        for statement in SCHEMA + STAMPS:
            connection.execute(statement)


def _check(connection: sqlite3.Connection) -> None:
    """Raise ValueError if the file is damaged, so that rows might be missing."""
    # Unlike quick_check this finds rows that an index misses; it takes as long.
    ((found,),) = connection.execute("PRAGMA integrity_check(1)").fetchall()
    if found != "ok":
        raise ValueError(f"it is damaged: {found}")


def _check_schema(connection: sqlite3.Connection) -> None:
    """Raise ValueError unless the file has the tables of a store and nothing else.

    A trigger, for one, could delete what is added.
    """
    made = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master") if sql}
    if made != set(SCHEMA):
        raise ValueError("its tables, indexes and triggers are not those of a store")


def _check_owner(path: Path) -> None:
    """Raise ValueError if other users may write or replace the file, where the system tells."""
    if not hasattr(os, "geteuid"):
        return
    folder = path.parent.stat()
    open_to_all = folder.st_mode & stat.S_IWOTH and not folder.st_mode & stat.S_ISVTX
    if folder.st_uid not in (os.geteuid(), 0) or open_to_all:
        raise ValueError(
            "other users may write in its folder, so its times can't be trusted; make that your "
            f"own (chmod o-w {path.parent})"
        )
    if not path.exists():
        return
    known = path.stat()
    if known.st_uid not in (os.geteuid(), 0) or known.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(
            "other users may write it, so its times can't be trusted; make it your own "
            f"(chmod go-w {path})"
        )


def _fixed_samples(connection: sqlite3.Connection, key: str) -> tuple[float, ...] | None:
    """Return the samples of a reference, if it is fixed; raise ValueError if they are damaged."""
    for text, checksum in connection.execute(GET_REFERENCE, (key,)).fetchall():
        samples = tuple(json.loads(text))
        verify(checksum == checksum_of(key, samples) and are_times(samples))
        return samples
    return None
