"""What is learnt from times, and the searches that plan with it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphs  # noqa: F401 -- for its profile: no deadline
from costs import make_costs, random_costs
from device_placement.agents.placers.neighbourhoods import descend, neighbourhood_search
from device_placement.agents.placers.posterior_sampling.cost_regression import (
    CostPosterior,
    Observations,
    Scale,
    make_prior,
)
from device_placement.agents.placers.posterior_sampling.design_matrix import (
    COUNTS,
    flatten_costs,
    terms,
)
from device_placement.agents.placers.posterior_sampling.placer import PosteriorSampling
from device_placement.agents.placers.posterior_sampling.posterior import Posterior
from device_placement.agents.runs.recording import RecordingEvaluator
from device_placement.envs import DevicePlacementError, Evaluation, make_evaluator
from device_placement.envs.cost_features import KnownCosts
from device_placement.envs.costs import free_costs
from device_placement.envs.simulation.schedule import SCHEDULES, schedule_times
from device_placement.envs.simulation.simulator import SimulatedEvaluator
from scripted import ScriptedEvaluator, twelve_groups_evaluator

each_schedule = pytest.mark.parametrize("schedule", COUNTS)


@functools.cache
def simulator(schedule: str, model: str = "inception_v3") -> SimulatedEvaluator:
    evaluator = make_evaluator(
        model,
        "CPU,GPU",
        evaluator="simulator",
        hardware="laptop",
        schedule=schedule,
        max_groups=12,
    )
    assert isinstance(evaluator, SimulatedEvaluator)
    return evaluator


def some_placements(evaluator: SimulatedEvaluator, count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    shape = count, evaluator.coarse.num_groups
    return generator.integers(len(evaluator.devices), size=shape).astype(np.uint8)


def observed(evaluator: SimulatedEvaluator, placements: np.ndarray) -> Observations:
    logarithm = np.log(evaluator.evaluate_many(placements))
    return Observations(placements, logarithm, np.zeros(len(placements)))


def fitted(evaluator: SimulatedEvaluator, schedule: str, seen: Observations) -> CostPosterior:
    frame = free_costs(evaluator.coarse, evaluator.devices)
    prior = make_prior(evaluator.coarse, frame, Scale(np.exp(seen.logarithm[:2])))
    posterior = CostPosterior(prior, frame, schedule)
    for _ in range(5):  # the noise settles
        posterior.fit(seen)
    return posterior


@each_schedule
@given(
    seed=st.integers(0, 2**32 - 1),
    groups=st.integers(1, 9),
    devices=st.integers(1, 4),
    data=st.data(),
)
def test_the_terms_add_up_to_the_time(
    schedule: str, seed: int, groups: int, devices: int, data: st.DataObject
) -> None:
    generator = np.random.default_rng(seed)
    pays = generator.random(devices) < 0.7
    costs = random_costs(generator, groups, devices, pays=pays)
    placements = generator.integers(devices, size=(5, groups))
    times = terms(costs, placements, schedule) @ flatten_costs(costs)
    assert times.tolist() == schedule_times(costs, placements, schedule).tolist()


def test_the_terms_of_an_unknown_schedule() -> None:
    with pytest.raises(DevicePlacementError, match="Unknown schedule 'parallel'"):
        terms(make_costs([[1.0]], {}), np.zeros((1, 1), dtype=int), "parallel")


@each_schedule
def test_costs_that_were_fitted_foretell_other_placements(schedule: str) -> None:
    evaluator = simulator(schedule)
    posterior = fitted(evaluator, schedule, observed(evaluator, some_placements(evaluator, 300)))
    others = some_placements(evaluator, 100, seed=1)
    expected = schedule_times(posterior.costs, others, schedule)
    errors = np.log(expected / evaluator.evaluate_many(others))
    assert np.median(np.abs(errors)) < 0.01


@each_schedule
def test_the_schedule_is_found_out(schedule: str) -> None:
    evaluator = simulator(schedule)
    posterior = Posterior(evaluator.coarse, free_costs(evaluator.coarse, evaluator.devices))
    keys = [tuple(row) for row in some_placements(evaluator, 100).tolist()]
    for _ in range(8):  # the noise settles
        posterior.learn({key: evaluator.evaluate(key) for key in keys})
    assert posterior.schedule == schedule


def test_of_schedules_that_explain_alike_the_simplest_is_followed() -> None:
    evaluator = simulator("concurrent", "resnet50")  # whose groups form a chain, nearly
    posterior = Posterior(evaluator.coarse, free_costs(evaluator.coarse, evaluator.devices))
    keys = [tuple(row) for row in some_placements(evaluator, 40).tolist()]
    posterior.learn({key: evaluator.evaluate(key) for key in keys})
    assert posterior.schedule == "sequential"


def test_what_was_not_seen_stays_open() -> None:
    evaluator = simulator("sequential")
    placements = some_placements(evaluator, 200)
    placements[:, 0] = 0  # nothing is told about group 0 on device 1
    posterior = fitted(evaluator, "sequential", observed(evaluator, placements))
    known = some_placements(evaluator, 10, seed=1)
    known[:, 0] = 0
    opened = known.copy()
    opened[:, 0] = 1
    generator = np.random.default_rng(0)
    draws = [posterior.sample(generator) for _ in range(30)]
    spread = [
        np.log([schedule_times(one, some, "sequential") for one in draws]).std(axis=0).max()
        for some in (known, opened)
    ]
    assert spread[0] < 0.02
    assert spread[1] > 5 * spread[0]


def test_the_noise_is_found_out() -> None:
    evaluator = simulator("sequential")
    placements = some_placements(evaluator, 300)
    clean = observed(evaluator, placements)
    noise = 0.03 * np.random.default_rng(0).standard_normal(len(clean))
    noisy = dataclasses.replace(clean, logarithm=clean.logarithm + noise)
    assert 0.02 < fitted(evaluator, "sequential", noisy).noise < 0.04
    assert fitted(evaluator, "sequential", clean).noise < 0.002


def test_windows_move_together() -> None:
    # Alone no unit gains, nor do two; all four do.
    tensors = {unit: (2.0, [unit + 1]) for unit in range(3)}
    costs = make_costs([[2.0, 1.0]] * 4, tensors)
    allowed = np.ones((4, 2), dtype=np.bool_)

    def times(choices: np.ndarray) -> np.ndarray:
        return schedule_times(costs, choices, "sequential")

    choice, time_s = descend(times, np.zeros(4, dtype=np.int64), allowed)
    assert (choice.tolist(), time_s) == ([1, 1, 1, 1], 4.0)
    fixed = allowed & [[True, False]] * 4
    assert descend(times, np.zeros(4, dtype=np.int64), fixed)[0].tolist() == [0, 0, 0, 0]


def test_pairs_get_out_of_where_no_window_helps() -> None:
    target = np.array([1, 0, 0, 0, 0, 1, 0, 0])

    def times(choices: np.ndarray) -> np.ndarray:
        wrong = (choices != target).sum(axis=1)
        return np.where(wrong == 2, 5.0, wrong + 4.0 * (wrong > 0))

    start, allowed = np.zeros(8, dtype=np.int64), np.ones((8, 2), dtype=np.bool_)
    assert descend(times, start, allowed)[1] == 5.0
    found, time_s = neighbourhood_search(
        times, start, allowed, np.random.default_rng(0), patience=4
    )
    assert (found.tolist(), time_s) == (target.tolist(), 0.0)


@pytest.mark.parametrize("schedule", SCHEDULES)  # also the one that it has no model of
def test_the_optimum_is_found_with_few_evaluations(schedule: str) -> None:
    evaluator = simulator(schedule)
    every = np.array(np.unravel_index(np.arange(2**12), (2,) * 12)).T
    optimum_s = evaluator.evaluate_many(every).min()
    found = [PosteriorSampling().place(evaluator, 100, seed) for seed in range(2)]
    assert [one.time_s <= 1.001 * optimum_s for one in found] == [True] * 2


class ErrorEvaluator(ScriptedEvaluator):
    """Refuses placements whose groups on device 0 add too much to the error of the outputs."""

    squares = np.array([1.0, 8.0, 1.0, 1.0, 4.0, 1.0, 2.0, 1.0, 1.0, 8.0, 1.0, 1.0])
    limit = 10.0
    overflow = math.inf  # from where on the outputs are not finite

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        square = float(self.squares @ (np.array(assignment) == 0))
        if square > self.limit:
            refused = Evaluation.invalid("The outputs differ too much.")
            error = math.sqrt(square) if square < self.overflow else math.inf
            return dataclasses.replace(refused, output_error=error)
        return dataclasses.replace(super().evaluate(assignment), output_error=math.sqrt(square))


@pytest.mark.parametrize("overflow", [math.inf, 20.0])  # the single's then is not finite
def test_what_adds_to_the_error_is_learnt_as_well(overflow: float) -> None:
    scripted = twelve_groups_evaluator()
    cheap = np.array([[1.0, 2.0]] * 12)  # device 0 is faster everywhere, and less exact

    def time_s(assignment: np.ndarray) -> float:
        return 1e-3 * float(cheap[np.arange(12), assignment].sum())

    found = []
    for seed in range(2):
        evaluator = ErrorEvaluator(scripted.coarse, scripted.devices, time_s)
        evaluator.overflow = overflow
        found.append(PosteriorSampling().place(evaluator, 100, seed))
    # Nine groups are below the limit: all but the two heaviest and the third.
    assert [round(1e3 * one.time_s, 6) for one in found] == [15.0] * 2


def test_a_memory_is_known_beforehand() -> None:
    evaluator = make_evaluator(
        "bert_base", evaluator="simulator", hardware="small_gpu", max_groups=16
    )
    found = PosteriorSampling().place(evaluator, 80, 0)
    invalid = [time_s for _, time_s in found.evaluations[20:] if math.isnan(time_s)]
    assert len(invalid) <= 20  # of random neighbours; no plan is


def test_it_ends_when_rounds_bring_nothing_better() -> None:
    evaluator = simulator("sequential", "resnet50")
    soon, later = (
        PosteriorSampling(patience=patience).place(evaluator, 2000, 0) for patience in (1, 24)
    )
    assert soon.time_s == later.time_s  # the optimum is a single
    assert len(soon.evaluations) < len(later.evaluations) < 200


def test_a_repeated_run_ends_where_it_ended(tmp_path: Path) -> None:
    log, placer = tmp_path / "log.jsonl", PosteriorSampling(patience=2)
    recorder = RecordingEvaluator(simulator("pipelined", "resnet50"), 300, log)
    whole = placer.place(recorder, 300, 0)
    again = RecordingEvaluator(simulator("pipelined", "resnet50"), 300, log)
    again.rewind()  # the best of all is known already, and must not be missed as an improvement
    assert placer.place(again, 300, 0).evaluations == whole.evaluations


@pytest.mark.parametrize(
    "options", [{"explore": -1}, {"proposals": 0}, {"batches": 0}, {"patience": 0}]
)
def test_options_out_of_range(options: dict[str, int]) -> None:
    with pytest.raises(DevicePlacementError, match=next(iter(options))):
        PosteriorSampling(**options)


def profiled(evaluator: SimulatedEvaluator, error: float, transfers: bool) -> KnownCosts:
    """Costs of a simulator as a profile with an error of this size would have them."""
    generator, costs = np.random.default_rng(3), evaluator.costs
    factors = np.exp(error * generator.standard_normal(costs.compute_s.shape))
    changed = costs.with_times(costs.compute_s * factors, 1.3 * costs.latency_s, costs.s_per_byte)
    return KnownCosts(changed, evaluator.schedule, transfers)


def evaluations_until(
    placer: PosteriorSampling, evaluator: SimulatedEvaluator, time_s: float
) -> int:
    """Evaluations until a placement takes at most 1 % more; one more than the budget if none."""
    found = placer.place(evaluator, budget=40, seed=0).evaluations
    return next((n for n, one in enumerate(found, 1) if one[1] <= 1.01 * time_s), 41)


@pytest.mark.parametrize(
    ("schedule", "transfers"), [("concurrent", True), ("concurrent", False), ("dataflow", True)]
)
def test_a_profile_as_the_prior_saves_most_evaluations(schedule: str, transfers: bool) -> None:
    evaluator = make_evaluator(
        "inception_v3",
        evaluator="simulator",
        hardware="paper",
        schedule=schedule,
        max_groups=32,
    )
    known = profiled(evaluator, 0.15, transfers)
    best_s = PosteriorSampling(profile=known).place(evaluator, 40, 1).time_s
    broad = evaluations_until(PosteriorSampling(), evaluator, best_s)
    sharp = evaluations_until(PosteriorSampling(profile=known), evaluator, best_s)
    assert 2 * sharp <= broad


def test_a_prior_predicts_what_its_profile_does_before_anything_else_is_known() -> None:
    evaluator = simulator("dataflow")
    known = KnownCosts(evaluator.costs, "dataflow")
    posterior = Posterior(evaluator.coarse, free_costs(evaluator.coarse, evaluator.devices), known)
    singles = {(one,) * 12: evaluator.evaluate([one] * 12) for one in (0, 1)}
    posterior.learn(singles)
    others = np.random.default_rng(0).integers(0, 2, (50, 12))
    ratio = posterior.expect().times(others) / evaluator.evaluate_many(others)
    assert np.abs(ratio - 1).max() < 0.1  # links of the simulator without latency get a little


def test_a_wrong_profile_is_corrected() -> None:
    evaluator = simulator("sequential")
    wrong = KnownCosts(
        evaluator.costs.with_times(
            evaluator.costs.compute_s[:, ::-1].copy(),
            evaluator.costs.latency_s,
            evaluator.costs.s_per_byte,
        ),
        "sequential",
    )
    best_s = PosteriorSampling().place(evaluator, 100, 0).time_s
    found = PosteriorSampling(profile=wrong).place(evaluator, 100, 0)
    assert found.time_s <= 1.01 * best_s


def test_given_placements_are_evaluated_after_the_singles() -> None:
    evaluator = simulator("sequential")
    first = ((0,) * 6 + (1,) * 6, (1, 0) * 6)
    found = PosteriorSampling(first=first).place(evaluator, 10, 0)
    assert [key for key, _ in found.evaluations[2:4]] == list(first)
