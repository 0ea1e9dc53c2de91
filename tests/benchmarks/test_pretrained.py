"""The studies of the pretrained placer: gaps, targets and rows on small problems."""

from __future__ import annotations

import contextlib
import csv
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest

from device_placement.agents.placers.pretrained.weights import shipped_weights
from device_placement.benchmarks import parallel_winners, pretrained, pretrained_measured
from device_placement.benchmarks.pretrained import PretrainedConfig, best_known, gaps_of, times_of
from device_placement.benchmarks.suite.problems import opened
from device_placement.benchmarks.suite.suites import Problem
from device_placement.envs import make_evaluator
from device_placement.envs.cores import cpu_affinity
from device_placement.envs.measuring.openvino_evaluator import executor_of
from device_placement.envs.simulation.simulator import as_simulated
from problems import TWO_CPUS

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = PretrainedConfig(seeds=2, budget=30, patience=2)
SMALL = {"diamond here": Problem("diamond", devices=TWO_CPUS, evaluator="openvino")}


def test_gaps_are_to_the_best_known_and_entrants_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    evaluator = as_simulated(
        make_evaluator("inception_v3", "CPU,GPU.1", evaluator="simulator", hardware="paper"), ""
    )
    config = PretrainedConfig(("", str(shipped_weights())), seeds=1, budget=20, patience=2)
    times = times_of(evaluator, config)
    best_s = best_known(evaluator, math.inf, config)
    gaps = gaps_of({"one": times}, {"one": best_s})["one"]
    assert gaps["single"] > 0
    assert gaps["best of 64, package"] <= gaps["best of 16, package"]
    assert gaps["greedily, package"] == gaps["greedily, construct"]  # the same weights
    assert best_known(evaluator, 1e-9, config) == 1e-9
    pretrained.print_gaps({"one": gaps}, "A title")
    rows = capsys.readouterr().out.splitlines()
    assert rows[1:3] == ["A title", "  1 one"]
    assert any(row.startswith("fine-tuned, package") for row in rows)


@pytest.mark.parametrize(("gap", "status"), [(0.01, True), (0.2, False)])
def test_targets_are_judged(gap: float, status: bool, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("greedy", "greedily", "best of 64", "fine-tuned")
    gaps = {f"problem {number}": dict.fromkeys(names, gap) for number in range(9)}
    gaps[pretrained.SMALL_GPU] = dict.fromkeys(names, gap)
    for one in gaps.values():
        one["greedy"] = 0.3
    assert pretrained.print_targets(gaps, CONFIG) is status
    text = capsys.readouterr().out
    assert "better than greedy on 10 of 10" in text
    assert ("MISSES" in text) is not status


def test_the_best_times_of_earlier_results_are_known(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["problem", "time_ms"], ["a", "2"], ["a", "1"], ["b", ""], ["c", "3"]])
    assert pretrained.read_known(str(path)) == {"a": 0.001, "c": 0.003}
    assert pretrained.read_known("") == {}


@pytest.mark.skipif(len(cpu_affinity()) < 2, reason="halves need two cores")
@pytest.mark.parametrize("study", [parallel_winners, pretrained_measured])
def test_the_parts_of_a_placement_run_side_by_side(
    study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem("diamond", devices="halves", evaluator="openvino")
    used = []

    @contextlib.contextmanager
    def stopped(chosen: Problem, measuring: Any = None) -> Iterator[None]:
        with opened(chosen, measuring) as evaluator:
            used.append(executor_of(evaluator))
        raise KeyboardInterrupt
        yield

    row = SimpleNamespace(suite="local_parallel", problem="diamond", assignment=(0,), time_s=1.0)
    monkeypatch.setattr(study, "problems_of", lambda _: {"diamond": problem})
    monkeypatch.setattr(study, "opened", stopped)
    monkeypatch.setattr(parallel_winners, "read_folders", lambda _: [row])
    options = {"folder": "none"} if study is parallel_winners else {}
    with pytest.raises(KeyboardInterrupt):
        study.main(get_type_hints(study.main)["config"](**options))
    assert used == ["dataflow"]


def test_measured_problems_have_a_row_for_each_search(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pretrained_measured, "problems_of", lambda _: SMALL)
    config = pretrained_measured.PretrainedMeasuredConfig(budget=2, rounds=2)
    assert pretrained_measured.main(config) == 0
    rows = capsys.readouterr().out.splitlines()
    for name in ("zero-shot", *pretrained_measured.PLACERS):
        assert sum(name in row for row in rows) == 1, name


@pytest.mark.skipif(len(cpu_affinity()) < 2, reason="halves need two cores")
def test_winners_run_under_both_executors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from device_placement.agents.cli import main
    from device_placement.benchmarks.suite.suites import SUITES, Suite

    small = {"diamond here": Problem("diamond", devices="halves", evaluator="openvino")}
    monkeypatch.setitem(SUITES, "local_parallel", Suite("small", small, 4))  # type: ignore[index]
    words = ["--suite", "local_parallel", "--placers", "random", "--seeds", "1", "--budget", "4"]
    assert main(["benchmark", *words, "--out", str(tmp_path / "b")]) == 0
    capsys.readouterr()
    config = parallel_winners.ParallelWinnersConfig(str(tmp_path / "b"), rounds=2)
    assert parallel_winners.main(config) in (0, 1)
    (row,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("diamond")]
    assert row.count("x (") == 3
