"""Suites on the workers of a cluster: the same rows and files as with processes here."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clusters import in_process
from device_placement.benchmarks.runner import benchmark
from device_placement.benchmarks.suite import cluster_pool
from device_placement.benchmarks.suite.cluster_pool import ClusterPool, packed, put_back
from device_placement.benchmarks.suite.folder import read_sessions
from device_placement.benchmarks.suite.process_pool import Lost
from device_placement.benchmarks.suite.suites import MEASURED, Problem
from device_placement.benchmarks.suite.task import Task, packed_path, run_task
from device_placement.envs import ClusterError
from device_placement.envs.measuring.config import MeasureConfig
from tiny_benchmark import config_of, lines_of, make_here, rows_of

PLACERS = ("random", "min_cut")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with in_process() as found:
        yield found


@pytest.fixture
def _processes_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run tasks in the worker's thread: starting a process takes seconds."""

    class Here:
        def run(self, task: Task, limit_s: float | None) -> Any:
            return run_task(task)

        def close(self) -> None:
            pass

    monkeypatch.setattr(cluster_pool, "_processes", Here())


def files(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("tiny_suite", "_processes_here")
def test_rows_and_traces_are_those_of_processes_here(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    make_here(here, PLACERS, seeds=1)
    assert benchmark(config_of(there, PLACERS, seeds=1, on=address)) == 0
    assert rows_of(there) == rows_of(here)
    assert files(there) == files(here)
    for trace in here.rglob("*.jsonl.gz"):
        assert lines_of(trace) == lines_of(there / trace.relative_to(here))
    assert read_sessions(there)[0]["machine"]["targets"] == "a"
    capsys.readouterr()
    assert benchmark(config_of(there, PLACERS, seeds=2, on=address)) == 0
    assert "2 runs made" in capsys.readouterr().out  # of the second seed; the others were there


def task_of(trace: Path, placer: str = "random", **more: Any) -> Task:
    problem = Problem("diamond", "desktop", "CPU,GPU", "concurrent")
    return Task("tiny", "diamond", problem, placer, 0, 8, trace, MeasureConfig(), **more)


def test_a_run_has_a_process_of_its_own_that_may_be_lost(address: str, tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text(
        "import os\nfrom beside import first\n"
        "def good(evaluator, budget, seed):\n    return first(evaluator)\n"
        "def bad(evaluator, budget, seed):\n    os._exit(7)\n"
    )
    (tmp_path / "beside.py").write_text(
        "def first(evaluator):\n    return [1] * evaluator.coarse.num_groups\n"
    )
    tasks = [task_of(tmp_path / f"{name}.jsonl", f"{own}:{name}") for name in ("bad", "good")]
    with contextlib.closing(ClusterPool(MeasureConfig(on=address), measures=False)) as pool:
        rows = {task.placer: row for task, row in pool.run(tasks, None)}
    bad, good = (rows[task.placer] for task in tasks)
    assert bad.failure.startswith("its process ended with status 7")
    assert not good.failure
    assert good.assignment == (1, 1, 1, 1)
    assert good.placer == f"{own}:good"
    assert packed_path(tmp_path / "good.jsonl").is_file()


@pytest.mark.usefixtures("_processes_here")
def test_a_measured_run_takes_the_clock_and_the_devices_of_its_target(
    address: str, tmp_path: Path
) -> None:
    measuring = MeasureConfig(on=address, max_samples=6, confirmations=0, store=None)
    problem = Problem("diamond", devices="CPU,CPU_B", evaluator=MEASURED)
    task = dataclasses.replace(
        task_of(tmp_path / "random-0.jsonl"), problem=problem, budget=4, measuring=measuring
    )
    with contextlib.closing(ClusterPool(measuring, measures=True)) as pool:
        ((_, row),) = pool.run([task], None)
    assert not row.failure
    assert row.devices == "CPU,CPU_B"
    assert row.evaluations == 4


def test_a_run_that_was_interrupted_takes_its_trace_along(tmp_path: Path) -> None:
    trace = tmp_path / "traces" / "random-0.jsonl"
    trace.parent.mkdir()
    trace.write_text("begun\n")
    parcel = packed(task_of(trace), None)
    assert parcel.traces == {"random-0.jsonl": b"begun\n"}
    assert not parcel.task.measuring.on
    row = put_back(task_of(trace), Lost("why"), {"random-0.error.txt": b"text"})
    assert row.failure == "why"
    assert {path.name for path in trace.parent.iterdir()} == {"random-0.error.txt"}


def test_another_version_runs_nothing(tmp_path: Path) -> None:
    parcel = packed(task_of(tmp_path / "random-0.jsonl"), None)
    other = dataclasses.replace(parcel, versions={"openvino": "1999"})
    with pytest.raises(ClusterError, match=r"has openvino 20.*, but here it is 1999"):
        cluster_pool.run_parcel(other)
