"""The record of a search: its budget, and how it is replayed."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_placement.agents.placers.baselines import RandomSearch
from device_placement.agents.runs.recording import REQUESTS_PER_BUDGET, Budget, RecordingEvaluator
from device_placement.envs import DevicePlacementError, make_evaluator
from scripted import twelve_groups_evaluator


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
