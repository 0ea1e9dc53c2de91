"""A suite of two small problems, runs on it, and what they leave behind."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device_placement.benchmarks.runner import BenchmarkConfig, all_tasks, chosen_problems
from device_placement.benchmarks.suite.folder import REPLAYS, begin_session
from device_placement.benchmarks.suite.results import (
    ROWS,
    RunRow,
    append_lines,
    append_rows,
    read_rows,
)
from device_placement.benchmarks.suite.suites import Problem, Suite
from device_placement.benchmarks.suite.task import run_task

OWN = "own_algorithms:"
TINY = Suite(
    "two small problems",
    {
        "diamond": Problem("diamond", "desktop", "CPU,GPU", "concurrent"),
        "pipelined": Problem("diamond", "laptop", schedule="pipelined"),
    },
    budget=8,
)


def config_of(out: Path, placers: Sequence[str], **more: Any) -> BenchmarkConfig:
    return BenchmarkConfig(suite="tiny", placers=",".join(placers), out=str(out), **more)


def make_here(out: Path, placers: Sequence[str], **more: Any) -> None:
    """Make a benchmark as the command does, but in this process, which is quick."""
    config = config_of(out, placers, **more)
    problems = chosen_problems(config)
    out.mkdir(parents=True, exist_ok=True)
    session = begin_session(out, config, problems)
    tasks = all_tasks(config, problems, out)
    rows = [run_task(dataclasses.replace(task, session=session)) for task in tasks]
    append_rows(str(out / ROWS), rows)


def rows_of(out: Path) -> dict[tuple[Any, ...], RunRow]:
    """By key, without what differs from run to run."""
    found = read_rows(str(out / "runs.csv"))
    plain = [dataclasses.replace(row, wall_s=0.0, session=0) for row in found]
    assert len({row.key for row in plain}) == len(plain)
    return {row.key: row for row in plain}


def lines_of(trace: Path) -> list[dict[str, Any]]:
    return [*map(json.loads, gzip.decompress(trace.read_bytes()).splitlines())]


def write_replays(out: Path, rows: Sequence[RunRow], reproduces: str = "yes") -> None:
    """What a replay leaves behind, in short."""
    names = ("suite", "problem", "placer", "seed", "reproduces")
    append_lines(str(out / REPLAYS), names, [(*row.key, reproduces) for row in rows])
