"""The record of a search: its budget, and how it is replayed."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from device_placement.agents.placers.baselines import RandomSearch
from device_placement.agents.runs.recording import (
    LOSSES,
    REQUESTS_PER_BUDGET,
    Budget,
    LostError,
    RecordingEvaluator,
)
from device_placement.envs import DevicePlacementError, make_evaluator
from device_placement.envs.evaluation import Evaluation
from scripted import ScriptedEvaluator, twelve_groups_evaluator


def sample_placements(recorder: RecordingEvaluator, seed: int) -> None:
    RandomSearch().place(recorder, recorder.budget, seed)


def test_the_budget_counts_distinct_placements_and_bounds_requests() -> None:
    recorder = RecordingEvaluator(twelve_groups_evaluator(), budget=4)
    recorder.evaluate_singles()
    assert (recorder.num_distinct, recorder.num_requests, recorder.spent) == (2, 2, False)
    for _ in range(REQUESTS_PER_BUDGET * 4 - 3):
        assert recorder.evaluate([0] * 12).cached
        assert not recorder.spent
    recorder.evaluate([0] * 12)
    assert recorder.spent
    assert recorder.num_distinct == 2
    other = RecordingEvaluator(twelve_groups_evaluator(), budget=3)
    sample_placements(other, seed=0)
    assert other.num_distinct == 3
    with pytest.raises(DevicePlacementError, match="budget of 2; 2 of it go to the singles"):
        RecordingEvaluator(twelve_groups_evaluator(), budget=2)


def test_the_record_is_replayed_even_when_its_last_line_was_cut(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    first = RecordingEvaluator(twelve_groups_evaluator(), 10, log)
    sample_placements(first, seed=0)
    log.write_text(log.read_text() + '{"requests": 3, "assi')
    inner = twelve_groups_evaluator()
    second = RecordingEvaluator(inner, 20, log)
    assert (second.num_distinct, second.best, second.best_s) == (10, first.best, first.best_s)
    assert inner.num_calls == 0
    sample_placements(second, seed=1)
    assert len(log.read_text().splitlines()) == 20
    log.write_text("nonsense\n")
    with pytest.raises(DevicePlacementError, match=r"Can't read line 1 of .*log\.jsonl"):
        RecordingEvaluator(inner, 20, log)


def test_a_record_of_another_problem_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    RecordingEvaluator(twelve_groups_evaluator(), 3, log).evaluate_singles()
    other = make_evaluator("resnet50", "CPU,GPU", evaluator="simulator")
    with pytest.raises(DevicePlacementError, match="12 groups; the model has"):
        RecordingEvaluator(other, 3, log)


def test_a_search_is_repeated_from_an_earlier_moment(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    sample_placements(RecordingEvaluator(twelve_groups_evaluator(), 30, log), seed=0)
    text, inner = log.read_text(), twelve_groups_evaluator()
    recorder = RecordingEvaluator(inner, 30, log)
    best, requests = recorder.best, recorder.num_requests
    recorder.rewind(10, 12)
    assert (recorder.num_distinct, recorder.num_requests, recorder.spent) == (10, 12, False)
    assert recorder.best == best  # of all, those ahead included
    recorder.rewind()
    assert (recorder.shared.num_distinct, recorder.shared.num_requests) == (0, 0)
    sample_placements(recorder, seed=0)
    assert (recorder.num_distinct, recorder.num_requests, recorder.spent) == (30, requests, True)
    assert (inner.num_calls, log.read_text()) == (0, text)


class Losing(ScriptedEvaluator):
    """Loses its measuring process at the calls with the given numbers."""

    lost: frozenset[int] = frozenset()

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        found = super().evaluate(assignment)
        return (
            Evaluation.invalid("was killed", transient=True)
            if self.num_calls in self.lost
            else found
        )


def losing(*lost: int) -> Losing:
    inner = twelve_groups_evaluator()
    evaluator = Losing(inner.coarse, inner.devices, inner.time_s)
    evaluator.lost = frozenset(lost)
    return evaluator


def test_what_was_lost_is_evaluated_again_when_the_run_is_resumed(tmp_path: Path) -> None:
    log, whole_log = tmp_path / "log.jsonl", tmp_path / "whole.jsonl"
    sample_placements(whole := RecordingEvaluator(losing(), 30, whole_log), seed=0)
    first = RecordingEvaluator(losing(2, 5, 30), 30, log)
    sample_placements(first, seed=0)
    assert sum(one.transient for one in first.record.values()) == 3
    lost = next(key for key, one in first.record.items() if one.transient)
    assert first.evaluate(lost).transient  # not in the same run
    inner = losing()
    second = RecordingEvaluator(inner, 30, log)
    assert second.num_distinct == 30
    second.rewind()
    sample_placements(second, seed=0)
    assert inner.num_calls == 3
    assert second.num_distinct == second.shared.num_distinct == 30
    assert list(second.record.items()) == list(whole.record.items())
    assert (second.best, second.best_s) == (whole.best, whole.best_s)
    third = RecordingEvaluator(losing(), 30, log)
    assert dict(third.record) == dict(whole.record)
    assert third.num_distinct == 30


def test_without_a_rewind_too(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    RecordingEvaluator(losing(1, 2), 3, log).evaluate_singles()
    inner = losing()
    recorder = RecordingEvaluator(inner, 3, log)
    assert all(one.valid and not one.cached for one in recorder.evaluate_singles())
    assert (recorder.num_distinct, recorder.shared.num_distinct, inner.num_calls) == (2, 2, 2)
    assert recorder.best_s < math.inf


def test_a_run_ends_when_all_is_lost(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lost = range(4, 4 + LOSSES)
    with pytest.raises(LostError, match=r"last 5 placements were lost.*was killed.*resume"):
        sample_placements(RecordingEvaluator(losing(*lost), 30, log), seed=0)
    assert len(log.read_text().splitlines()) == lost[-1]
    between = {*lost} - {6}
    sample_placements(RecordingEvaluator(losing(*between), 30), seed=0)


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "twice": lambda entry: entry | {"assignment": [0] * 12},
    "negative": lambda entry: entry | {"evaluation": entry["evaluation"] | {"time_s": -1.0}},
    "infinite": lambda entry: entry | {"evaluation": entry["evaluation"] | {"time_s": math.inf}},
    "too large": lambda entry: entry | {"evaluation": entry["evaluation"] | {"time_s": 10**400}},
    "no time": lambda entry: entry | {"evaluation": entry["evaluation"] | {"time_s": None}},
    "a text": lambda entry: entry | {"evaluation": entry["evaluation"] | {"time_s": "1"}},
    "a truth": lambda entry: entry | {"evaluation": entry["evaluation"] | {"time_s": True}},
    "samples": lambda entry: entry | {"evaluation": entry["evaluation"] | {"samples_s": [-1]}},
    "error": lambda entry: entry | {"evaluation": entry["evaluation"] | {"error": "no"}},
    "error of a kind": lambda entry: entry | {"evaluation": entry["evaluation"] | {"error": 1}},
    "cached": lambda entry: entry | {"evaluation": entry["evaluation"] | {"cached": "no"}},
    "unknown": lambda entry: entry | {"evaluation": entry["evaluation"] | {"colour": 1}},
    "device": lambda entry: entry | {"assignment": [2] * 12},
    "negative device": lambda entry: entry | {"assignment": [-1] * 12},
    "half a device": lambda entry: entry | {"assignment": [0.5] * 12},
    "requests": lambda entry: entry | {"requests": 10**400},
    "nothing": lambda _: {},
    "a list": lambda _: [],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_line_is_refused(name: str, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    RecordingEvaluator(twelve_groups_evaluator(), 3, log).evaluate_singles()
    (first, second) = log.read_text().splitlines()
    log.write_text(f"{first}\n{json.dumps(DAMAGES[name](json.loads(second)))}\n")
    with pytest.raises(DevicePlacementError, match=r"log\.jsonl'.*\. (Start|Resume)"):
        RecordingEvaluator(twelve_groups_evaluator(), 3, log)


@pytest.mark.parametrize("line", [b"\xff\xfe", b"[" * 100_000, b"\0", b"{}"])
def test_what_is_no_line_is_refused(line: bytes, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(line + b"\n")
    with pytest.raises(DevicePlacementError, match="Can't read line 1"):
        RecordingEvaluator(twelve_groups_evaluator(), 3, log)


def test_a_search_that_takes_another_way_still_counts_what_it_had_found(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    sample_placements(RecordingEvaluator(twelve_groups_evaluator(), 30, log), seed=0)
    inner = twelve_groups_evaluator()
    recorder = RecordingEvaluator(inner, 40, log)
    recorder.rewind(2, 2)
    sample_placements(recorder, seed=1)
    assert recorder.num_distinct == 40
    assert inner.num_calls == 10
    assert len(log.read_text().splitlines()) == 40


def test_a_shared_budget_counts_all_and_loses_patience() -> None:
    budget = Budget(limit=20, patience=5)
    one, other = (RecordingEvaluator(twelve_groups_evaluator(), budget) for _ in range(2))
    best = list(one.inner.ranked()[0][1])  # type: ignore[attr-defined]
    for recorder in (one, other):
        recorder.evaluate_singles()
    assert (budget.num_distinct, budget.num_requests, one.num_distinct) == (4, 4, 2)
    one.evaluate(best)
    assert budget.num_since_best == 0
    for number in range(5):
        assert not one.spent
        one.evaluate([int(group == number) for group in range(12)])
    assert one.spent
    assert other.spent
    assert budget.out_of_patience
    assert budget.num_distinct == 10


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_a_log_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.jsonl")
    with pytest.raises(DevicePlacementError, match="not a regular file"):
        RecordingEvaluator(twelve_groups_evaluator(), 3, tmp_path / "log.jsonl")


def test_a_log_of_one_endless_line_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.touch()
    os.truncate(log, 1 << 40)  # takes no space
    with pytest.raises(DevicePlacementError, match="a line is longer than 64 MiB"):
        RecordingEvaluator(twelve_groups_evaluator(), 3, log)


def test_a_file_that_is_no_log_is_not_cut(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("mine\nno end")
    with pytest.raises(DevicePlacementError, match="Can't read line 1"):
        RecordingEvaluator(twelve_groups_evaluator(), 3, log)
    assert log.read_text() == "mine\nno end"


def test_singles_that_take_hardly_any_time_are_refused() -> None:
    inner = twelve_groups_evaluator()
    shortest = ScriptedEvaluator(inner.coarse, inner.devices, lambda _: 1e-320)
    with pytest.raises(DevicePlacementError, match="in no time"):
        RecordingEvaluator(shortest, 3).evaluate_singles()
