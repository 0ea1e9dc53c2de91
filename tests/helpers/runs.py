"""Short real measurements, and what they leave in the folder of a run and in a store."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from device_placement.envs import OpenVINOEvaluator, make_evaluator
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
