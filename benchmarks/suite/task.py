"""Task of a benchmark: run a placer on a problem with a seed, and write its trace."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import os
import re
import shutil
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from device_placement.agents.placers.base import PlacerResult
from device_placement.agents.runs.recording import RecordingEvaluator
from device_placement.agents.runs.run import write_json
from device_placement.agents.training.malloc import keep_freed_memory
from device_placement.benchmarks.suite.algorithms import find_algorithm
from device_placement.benchmarks.suite.problems import opened
from device_placement.benchmarks.suite.results import (
    Key,
    RunRow,
    fields_of,
    improvements_of,
    shortened,
)
from device_placement.benchmarks.suite.suites import Problem
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import NAN, single_assignments
from device_placement.envs.failures import list_causes
from device_placement.envs.files import replaced
from device_placement.envs.measuring.config import MeasureConfig

MAX_REASON = 20_000  # characters of a traceback that are kept


@dataclass(frozen=True)
class Task:
    """Run of a placer on a problem with a seed."""

    suite: str
    name: str
    problem: Problem
    placer: str
    seed: int
    budget: int
    trace: Path  # its trace file, until it is packed
    measuring: MeasureConfig
    session: int = 0
    repeated: bool = False  # whether the remains of an earlier run are removed

    @property
    def key(self) -> Key:
        """Same as `RunRow.key`."""
        return self.suite, self.name, self.placer, self.seed

    def failed(self, reason: str) -> RunRow:
        """Return the row of this run when it fails."""
        return RunRow(*self.key, self.budget, self.session, failure=reason)


def run_task(task: Task) -> RunRow:
    """Run a task, write every evaluation to its trace, and return its row."""
    keep_freed_memory()
    path = task.trace
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        record_path(path).unlink(missing_ok=True)
        if task.repeated:
            for one in (path, packed_path(path), reason_path(path)):
                one.unlink(missing_ok=True)
        _unpack(path)
        row = _run(task)
        write_record(path, row)
        _pack(path)
        return row
    except Exception as error:  # whatever a placer raises is its result
        with contextlib.suppress(OSError):  # the row has the reason too
            text = traceback.format_exc()[-MAX_REASON:]
            reason_path(path).write_text(text, encoding="utf-8", errors="backslashreplace")
        kind = "" if isinstance(error, DevicePlacementError) else f"{type(error).__name__}: "
        return task.failed(shortened(f"{kind}{_text(error)}"))


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # the error is a user's too
        return "an error without a text"


def _run(task: Task) -> RunRow:
    placer = find_algorithm(task.placer)
    _take_one_core()
    with opened(task.problem, task.measuring) as evaluator:
        recorder = RecordingEvaluator(evaluator, task.budget, task.trace)
        resumed = recorder.num_distinct > 0
        recorder.rewind()
        recorder.evaluate_singles()
        found = placer.place(recorder, task.budget, task.seed)
        row = _row_of(task, recorder, found)
    return dataclasses.replace(row, wall_s=NAN) if resumed else row


def _take_one_core() -> None:
    """Limit torch to one core, even if only the placer imports it later."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _row_of(task: Task, recorder: RecordingEvaluator, found: PlacerResult) -> RunRow:
    if not found.assignment:
        causes = "; ".join(list_causes(recorder.failures))
        return task.failed(f"found no valid placement{causes and f' ({causes})'}")
    best = recorder.known(found.assignment)
    assert best is not None
    singles = {name: recorder.known(one) for name, one in single_assignments(recorder).items()}
    valid = {name: one for name, one in singles.items() if one is not None and one.valid}
    name = min(valid, key=lambda one: valid[one].time_s, default="")
    if not all(one.time_s > 0 for one in (best, *valid.values())):
        return task.failed("found a placement that takes no time, so there is nothing to compare")
    asked = dict(found.evaluations)
    row = RunRow(
        *task.key,
        task.budget,
        task.session,
        groups=recorder.coarse.num_groups,
        devices=",".join(map(str, recorder.devices)),
        time_s=found.time_s,
        interval_s=best.interval_s,
        bound_s=found.bound_s,
        evaluations=recorder.num_distinct,
        wall_s=found.wall_s,
        improvements=improvements_of([asked.get(one, NAN) for one in recorder.record]),
        assignment=found.assignment,
        invalid={cause.cause: cause.count for cause in recorder.failures},
    )
    if not name:
        return row
    single = valid[name]
    return dataclasses.replace(
        row, single=name, single_s=single.time_s, single_interval_s=single.interval_s
    )


def _unpack(path: Path) -> None:
    """Unpack the trace that a finished run left packed."""
    packed = packed_path(path)
    if packed.exists() and not path.exists():
        with gzip.open(packed) as source, replaced(path) as draft, draft.open("wb") as target:
            shutil.copyfileobj(source, target)
    packed.unlink(missing_ok=True)


def _pack(path: Path) -> None:
    packed = packed_path(path)
    with path.open("rb") as source, replaced(packed) as draft, gzip.open(draft, "wb") as target:
        shutil.copyfileobj(source, target)
    path.unlink()


def packed_path(path: Path) -> Path:
    """Return the file that a trace is packed into at the end of its run."""
    return path.with_name(f"{path.name}.gz")


def reason_path(trace: Path) -> Path:
    """Return the file beside a trace with the reason why its run failed."""
    return trace.with_suffix(".error.txt")


def record_path(trace: Path) -> Path:
    """Return the file beside a trace with the row as the run made it, by which edits are found."""
    return trace.with_suffix(".row.json")


def write_record(trace: Path, row: RunRow) -> None:
    """Write the row of a run beside its trace."""
    write_json(record_path(trace), fields_of(row))


def trace_path(folder: Path, suite: str, problem: str, placer: str, seed: int) -> Path:
    """Return the trace file of a run in progress; ``.gz`` is added at its end.

    >>> trace_path(Path("out"), "hard", "small GPU", "random", 0).as_posix()
    'out/traces/hard/small_GPU-007480e33c01/random-0.jsonl'
    """
    return folder / "traces" / short_name(suite) / short_name(problem) / _file(placer, seed)


def _file(placer: str, seed: int) -> str:
    return f"{short_name(placer)}-{seed}.jsonl"


def short_name(name: str) -> str:
    """Turn a name into a short part of a path that no other name has, also without regard to case.

    >>> short_name("min_cut"), short_name("a-b/mine.py:search"), short_name("a_b/mine.py:search")
    ('min_cut', 'a_b_mine_py_search-e6fc77014f41', 'a_b_mine_py_search-929e7258a618')
    """
    if re.fullmatch("[a-z0-9_]{1,40}", name):
        return name
    full = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{slug(name)[-40:]}-{full[:12]}"


def slug(name: str) -> str:
    """Turn a name into the part of a path that other names may share.

    >>> slug("four devices, max_load"), slug("mine.py:search")
    ('four_devices_max_load', 'mine_py_search')
    """
    return re.sub(r"\W+", "_", name, flags=re.ASCII)


def find_traces(folder: Path, keys: Iterable[Key]) -> dict[Key, Path]:
    """Return the packed traces of a folder's runs, those that it has.

    Earlier versions named a trace by its slugs alone. Such a file is returned where it can only be
    of one run.

    Args:
        folder: of the benchmark.
        keys: of all its runs.
    """
    shared: dict[Path, list[Key]] = {}
    for key in keys:
        shared.setdefault(_earlier_path(folder, *key), []).append(key)
    found = {}
    for earlier, owners in shared.items():
        for key in owners:
            own = packed_path(trace_path(folder, *key))
            if own.is_file():
                found[key] = own
            elif len(owners) == 1 and earlier.is_file():
                found[key] = earlier
    return found


def _earlier_path(folder: Path, suite: str, problem: str, placer: str, seed: int) -> Path:
    def unicode_slug(name: str) -> str:
        return re.sub(r"\W+", "_", name)

    file = f"{unicode_slug(placer)}-{seed}.jsonl.gz"
    return folder / "traces" / suite / unicode_slug(problem) / file
