"""Placers that search: what they find, and what they keep to on the way."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest

from costed import CostsEvaluator, coloured_and_small
from costs import make_costs
from device_placement.agents.placers import PLACERS, make_placer
from device_placement.agents.placers.base import Placer
from device_placement.agents.placers.cross_entropy import sample_choices
from device_placement.agents.placers.posterior_sampling.placer import PosteriorSampling
from device_placement.agents.runs.recording import RecordingEvaluator
from device_placement.envs import DevicePlacementError, Evaluation, make_evaluator
from scripted import ScriptedEvaluator, diamond_evaluator, twelve_groups_evaluator

SEARCHES: dict[str, dict[str, Any]] = {
    "random": {},
    "local_search": {},
    "annealing": {},
    "cross_entropy": {},
    "genetic": {},
    "posterior_sampling": {},
}
OTHERS = ("single", "automatic", "heft", "greedy", "lookahead", "m_etf", "stages")


def searches() -> list[Placer]:
    steepest = make_placer("local_search", descent="steepest")
    return [*(make_placer(name, **options) for name, options in SEARCHES.items()), steepest]


def ends_early(placer: Placer) -> bool:
    """Whether a search may end when it expects nothing new."""
    return isinstance(placer, PosteriorSampling)


each_search = pytest.mark.parametrize("placer", searches(), ids=repr)


@each_search
def test_the_best_of_the_diamond_is_found(placer: Placer) -> None:
    evaluator = diamond_evaluator()
    best_s, best = evaluator.ranked()[0]
    found = placer.place(evaluator, 16, 1)
    assert (found.time_s, list(found.assignment)) == (best_s, best)
    assert math.isnan(found.bound_s)
    assert not found.proven


@pytest.mark.parametrize("name", [name for name in SEARCHES if name != "random"])
def test_most_searches_find_the_best_of_twelve_groups(name: str) -> None:
    evaluator = twelve_groups_evaluator()
    ranked = evaluator.ranked()
    found = [make_placer(name).place(evaluator, 400, seed).time_s for seed in range(3)]
    assert sorted(found)[1] == ranked[0][0]  # of 4096 placements
    assert max(found) <= ranked[20][0]


@each_search
def test_the_singles_come_first_and_the_budget_is_kept(placer: Placer) -> None:
    evaluator = twelve_groups_evaluator()
    found = placer.place(evaluator, 60, 0)
    asked = [assignment for assignment, _ in found.evaluations]
    assert asked[:2] == [(0,) * 12, (1,) * 12]
    assert len(set(asked)) == len(asked) == evaluator.num_calls
    assert len(asked) == 60 or (ends_early(placer) and 20 <= len(asked) < 60)
    assert found.time_s == min(time_s for _, time_s in found.evaluations)


@each_search
def test_equal_seeds_give_equal_searches(placer: Placer) -> None:
    evaluator = twelve_groups_evaluator()
    first, again = placer.place(evaluator, 80, 3), placer.place(evaluator, 80, 3)
    assert first.evaluations == again.evaluations
    if repr(placer) != "LocalSearch(descent='steepest')":  # its first descent is not random
        assert first.evaluations != placer.place(evaluator, 80, 4).evaluations


@each_search
def test_a_search_goes_on_where_a_record_ends(placer: Placer, tmp_path: Any) -> None:
    whole = placer.place(RecordingEvaluator(twelve_groups_evaluator(), 50), 50, 0)
    log = tmp_path / "log.jsonl"
    cut = RecordingEvaluator(twelve_groups_evaluator(), 50, log)
    for assignment, _ in whole.evaluations[:20]:
        cut.evaluate(assignment)
    evaluator = twelve_groups_evaluator()
    assert placer.place(RecordingEvaluator(evaluator, 50, log), 50, 0).evaluations == (
        whole.evaluations
    )
    assert evaluator.num_calls == 30


@each_search
def test_a_search_ends_where_there_is_little_to_choose(placer: Placer) -> None:
    forced = CostsEvaluator(make_costs([[1.0, math.inf], [math.inf, 1.0]], {0: (2.0, [1])}))
    recorder = RecordingEvaluator(forced, 20)
    found = placer.place(recorder, 20, 0)
    assert (found.assignment, found.time_s) == ((0, 1), 4.0)
    assert recorder.num_distinct == 3  # that, and the singles


class NothingRuns(ScriptedEvaluator):
    """Refuses every placement."""

    def evaluate(self, assignment: Any) -> Evaluation:
        return Evaluation.invalid("no such kernel")


@pytest.mark.parametrize("name", [*SEARCHES, "single"])
def test_where_nothing_runs_nothing_is_found(name: str) -> None:
    inner = twelve_groups_evaluator()
    found = make_placer(name).place(NothingRuns(inner.coarse, "CPU,GPU", inner.time_s), 30, 0)
    assert found.assignment == ()
    assert math.isnan(found.time_s)
    assert len(found.evaluations) == (2 if name == "single" else 30)


@functools.cache
def diamond(schedule: str) -> Any:
    options: dict[str, Any] = {"evaluator": "simulator", "hardware": "laptop", "schedule": schedule}
    return make_evaluator("diamond", "CPU,GPU,NPU", **options)


@pytest.mark.parametrize("name", [*SEARCHES, *OTHERS])
@pytest.mark.parametrize(
    "schedule", ["sequential", "concurrent", "dataflow", "pipelined", "max_load"]
)
def test_every_placer_finds_something_valid_in_the_simulator(name: str, schedule: str) -> None:
    evaluator = diamond(schedule)
    found = make_placer(name).place(evaluator, 100, 0)
    assert found.time_s == evaluator.evaluate(found.assignment).time_s
    assert evaluator.evaluate_many(np.array([found.assignment]))[0] == found.time_s


@each_search
def test_colours_and_memory_are_kept(placer: Placer) -> None:
    evaluator = coloured_and_small(0)
    found = placer.place(evaluator, 500, 0)
    for assignment, _ in found.evaluations:
        if len(set(assignment)) > 1:  # no single
            assert assignment[1] == assignment[4] != 0
            assert assignment[3] == assignment[6] != 2
    counts = np.bincount(found.assignment, minlength=3)
    assert (counts <= [4, 5, 1]).all()
    # Most come to the best of 6561. The other two come close: over twenty seeds, posterior sampling
    # is off by 1.6 % in the mean, with a standard deviation of 2.5 %.
    near = {"RandomSearch": 1.3, "PosteriorSampling": 1.1}.get(type(placer).__name__, 1.0)
    assert found.time_s <= near * evaluator.optimum()


def test_devices_are_drawn_with_their_probabilities() -> None:
    probability = np.array([[0.0, 1.0, 0.0], [0.25, 0.0, 0.75]])
    drawn = sample_choices(probability, 4000, np.random.default_rng(0))
    shares = (drawn[:, :, None] == np.arange(3)).mean(axis=0)
    assert shares == pytest.approx(probability, abs=0.03)
    assert (shares[probability == 0.0] == 0.0).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("anealing", {}, "Unknown placer 'anealing'.*Did you mean 'annealing'"),
        ("genetic", {"populaton": 3}, "Unknown option of the placer 'genetic' 'populaton'.*mean"),
        ("genetic", {"population": 1}, "population=1 for Genetic; it must be 2 or more"),
        ("genetic", {"elite": 20}, "elite=20 for Genetic; it must be from 0 to 19"),
        ("annealing", {"acceptance": 1.0}, r"acceptance=1\.0 for Annealing"),
        ("cross_entropy", {"elite": 0}, "elite=0 for CrossEntropy; it must be from 1 to 50"),
        ("local_search", {"descent": "steep"}, "Unknown descent 'steep'.*Did you mean 'steepest'"),
    ],
)
def test_a_wrong_placer_or_option_says_what_is_allowed(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DevicePlacementError, match=message):
        make_placer(name, **options)


def test_the_table_is_data() -> None:
    assert set(SEARCHES) | set(OTHERS) | {"contiguous", "min_cut", "cp_sat", "pretrained"} == set(
        PLACERS
    )
    assert all(entry.summary for entry in PLACERS.values())
