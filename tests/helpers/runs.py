"""Short real measurements, and what they leave in the folder of a run and in a store."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from device_placement.envs import OpenVINOEvaluator, Placement, make_evaluator
from problems import TWO_CPUS

MEASURING: dict[str, Any] = {"max_samples": 4, "max_seconds": 0.5, "confirmations": 0}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]


def rows(store: Path) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(store)
    found = connection.execute("SELECT op_devices, pairs, cut_short FROM measurements").fetchall()
    connection.close()
    return found


def evaluator_of(model: str, store: Path | None, **options: Any) -> OpenVINOEvaluator:
    settings = {"store": store and str(store), **MEASURING, **options}
    evaluator = make_evaluator(model, TWO_CPUS, **settings)
    assert isinstance(evaluator, OpenVINOEvaluator)
    return evaluator


def interrupt(out: Path, *words: str) -> None:
    """Run a command in a process of its own; send Ctrl-C once it has evaluated something.

    It must end with 130, say how to resume, and leave a placement that can be loaded.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "device_placement.agents.cli", *words, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    log = out / "evaluations.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and log.read_text().count("\n") > 4):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline, "nothing was evaluated in five minutes"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert b"placements evaluated; results in" in stdout
    assert b"resume with --resume --out" in stdout
    assert b"Traceback" not in stderr
    Placement.load(out / "best_placement.json")
