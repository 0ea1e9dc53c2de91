"""Task of a benchmark: run a placer on a problem with a seed, and write its trace."""

from __future__ import annotations

import dataclasses
import gzip
import os
import re
import shutil
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from device_placement.agents.placers.base import PlacerResult
from device_placement.agents.runs.recording import RecordingEvaluator
from device_placement.agents.training.malloc import keep_freed_memory
from device_placement.benchmarks.suite.algorithms import find_algorithm
from device_placement.benchmarks.suite.problems import opened
from device_placement.benchmarks.suite.results import Key, RunRow, improvements_of
from device_placement.benchmarks.suite.suites import Problem
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import NAN, single_assignments
from device_placement.envs.failures import list_causes
from device_placement.envs.files import replaced
from device_placement.envs.measuring.config import MeasureConfig


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
        if task.repeated:
            for one in (path, _packed(path), _reason(path)):
                one.unlink(missing_ok=True)
        _unpack(path)
        row = _run(task)
        _pack(path)
        return row
    except Exception as error:  # whatever a placer raises is its result
        _reason(path).write_text(traceback.format_exc(), encoding="utf-8")
        kind = "" if isinstance(error, DevicePlacementError) else f"{type(error).__name__}: "
        return task.failed(f"{kind}{error}")


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
    singles = {name: recorder.known(one) for name, one in single_assignments(recorder).items()}
    valid = {name: one for name, one in singles.items() if one is not None and one.valid}
    name = min(valid, key=lambda one: valid[one].time_s, default="")
    assert best is not None
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
    packed = _packed(path)
    if packed.exists() and not path.exists():
        with gzip.open(packed) as source, replaced(path) as draft, draft.open("wb") as target:
            shutil.copyfileobj(source, target)
    packed.unlink(missing_ok=True)


def _pack(path: Path) -> None:
    packed = _packed(path)
    with path.open("rb") as source, replaced(packed) as draft, gzip.open(draft, "wb") as target:
        shutil.copyfileobj(source, target)
    path.unlink()


def _packed(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")


def _reason(path: Path) -> Path:
    return path.with_suffix(".error.txt")


def trace_path(folder: Path, suite: str, problem: str, placer: str, seed: int) -> Path:
    """Return the trace file of a run in progress; ``.gz`` is added at its end.

    >>> trace_path(Path("out"), "hard", "small GPU", "mine.py:search", 0).as_posix()
    'out/traces/hard/small_GPU/mine_py_search-0.jsonl'
    """
    return folder / "traces" / suite / slug(problem) / f"{slug(placer)}-{seed}.jsonl"


def slug(name: str) -> str:
    """Turn a name into part of a path.

    >>> slug("four devices, max_load"), slug("mine.py:search")
    ('four_devices_max_load', 'mine_py_search')
    """
    return re.sub(r"\W+", "_", name)
